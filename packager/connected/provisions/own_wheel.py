"""airpack's own wheel, put together from whatever is running.

Whether airpack runs from a checkout or was installed from a wheel, its package directory and
its metadata are at hand; a wheel (PEP 427) is those two in a ZIP file with a RECORD. So the
bundle carries the very code that built it, with no build tool and no network.
"""

from __future__ import annotations

import base64
import hashlib
import io
import zipfile
from importlib.metadata import Distribution, distribution
from pathlib import Path

import packager
from packager.errors import HostError
from packager.store.atomic import make_directory, naming_refusals, write_file

_ZIP_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest a ZIP file can say, so that bytes repeat
_WHEEL = "Wheel-Version: 1.0\nGenerator: airpack\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
_METADATA = ("METADATA", "entry_points.txt", "licenses/LICENSE")


def build_own_wheel(directory: Path) -> Path:
    """Write airpack's wheel into ``directory`` and return its path; the same code, the same bytes.

    Raises ``HostError`` where airpack is neither in a checkout nor installed.
    """
    own = distribution("airpack")
    info = f"airpack-{own.version}.dist-info"
    contents = {
        **_package_files(Path(packager.__file__).parent),
        **{f"{info}/{name}": _metadata(own, name) for name in _METADATA},
        f"{info}/WHEEL": _WHEEL.encode(),
    }
    contents[f"{info}/RECORD"] = _record(contents, f"{info}/RECORD")
    path = directory / f"airpack-{own.version}-py3-none-any.whl"
    make_directory(directory)
    write_file(path, _archive(contents))
    return path


def _metadata(own: Distribution, name: str) -> bytes:
    text = own.read_text(name)
    if not text:
        raise HostError(
            f"airpack's own {name} is not installed", hint="pip install --force-reinstall airpack"
        )
    return text.encode()


def _package_files(package: Path) -> dict[str, bytes]:
    """Every file of the package by its name in the wheel, but caches and hidden files."""
    with naming_refusals(package):
        return {
            f"{package.name}/{path.as_posix()}": (package / path).read_bytes()
            for path in sorted(path.relative_to(package) for path in package.rglob("*"))
            if (package / path).is_file() and not any(map(_stays, path.parts))
        }


def _stays(name: str) -> bool:
    return name == "__pycache__" or name.startswith(".")


def _archive(contents: dict[str, bytes]) -> bytes:
    """A ZIP file. Not compressed: what deflate makes depends on the host's zlib."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
        for name, data in contents.items():
            entry = zipfile.ZipInfo(name, _ZIP_EPOCH)
            entry.external_attr = 0o100644 << 16
            archive.writestr(entry, data)
    return stream.getvalue()


def _record(contents: dict[str, bytes], record: str) -> bytes:
    lines = [f"{name},{_record_hash(data)},{len(data)}\n" for name, data in contents.items()]
    return "".join([*lines, f"{record},,\n"]).encode()


def _record_hash(data: bytes) -> str:
    digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest())
    return f"sha256={digest.rstrip(b'=').decode('ascii')}"
