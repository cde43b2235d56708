"""The hidden directory that a bundle is built in, which the next build goes on with.

Whatever ends a build leaves there what it wrote: the volumes, most of all, are hours of work on a
slow medium. Only volumes are gone on with, and they are read again and compared; all else is
made anew in moments, and goes.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from packager.errors import AirpackError, IntegrityError
from packager.format.sizes import format_size
from packager.progress import Progress
from packager.store.atomic import (
    make_directory,
    name_directory,
    naming_refusals,
    unfinished_place,
)


@contextmanager
def going_on(directory: Path, names: Collection[str], progress: Progress) -> Iterator[Path]:
    """A hidden directory that gets the name ``directory`` if the block succeeds.

    It has the files ``names`` as far as an earlier build wrote them, and nothing else of that,
    whether it was of the same plan or another. If the block fails it stays, and the error's hint
    says so; unless it fails for bytes that are not what they should be: then it goes.
    The caller is the only process that builds there.
    """
    place = unfinished_place(directory)
    _open(place, names)
    try:
        with naming_refusals(place):
            yield place
        name_directory(place, directory)
    except IntegrityError:
        shutil.rmtree(place, ignore_errors=True)
        raise
    except BaseException as error:
        _say_what_stays(place, error, progress)
        raise


def _open(place: Path, names: Collection[str]) -> None:
    """Have the directory, with nothing in it but regular files of ``names``."""
    with naming_refusals(place):
        if os.path.lexists(place) and (place.is_symlink() or not place.is_dir()):
            place.unlink()
        make_directory(place)
        for entry in list(os.scandir(place)):
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path)
            elif entry.name not in names or not _is_own_file(entry):
                Path(entry.path).unlink()


def _is_own_file(entry: os.DirEntry[str]) -> bool:
    # Writing into a file that has a second name would change what is under that, too.
    return entry.is_file(follow_symlinks=False) and entry.stat(follow_symlinks=False).st_nlink == 1


def _say_what_stays(place: Path, error: BaseException, progress: Progress) -> None:
    with suppress(OSError):
        place.rmdir()  # where nothing was written
    with suppress(OSError):
        size = sum(path.stat().st_size for path in place.iterdir())
        words = (
            f"{format_size(size)} stay in {place}, and the same command goes on there; remove it "
            "if you do not want that"
        )
        if isinstance(error, AirpackError):
            error.hint = f"{error.hint}; {words}" if error.hint else words
        else:
            progress.note(words)
