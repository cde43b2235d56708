"""A bundle that lies behind an HTTP server in the enclave, read as from a stick.

The small files come first, into a directory of this host's; volumes are never kept: each chunk
is checked as it arrives and goes on to whoever asked. A connection that breaks is made again where
it broke. Nothing the server says is believed: not its sizes, nor its names, nor its certificate.
"""

from __future__ import annotations

import http.client
import time
import urllib.error
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import quote

from packager.errors import AirpackError, HostError, MissingVolumeError
from packager.format.bundle import INDEX_NAME, MAX_INDEX_SIZE
from packager.format.digest import Digest
from packager.format.model_signature import MAX_MODEL_SIGNATURE_SIZE, model_signature_name
from packager.format.sums import MAX_SUMS_SIZE, SUMS_NAME, signature_name, spare_name
from packager.format.volumes import VolumeFile
from packager.isolated.chunks import ChunkHandler
from packager.isolated.http_client import BROKEN, ask, check_address, read_at_most
from packager.isolated.media import Media
from packager.isolated.verify import authenticate
from packager.progress import Progress, Task
from packager.store.atomic import write_file
from packager.trust.keyring import Keyring
from packager.trust.keys import MAX_SIGNATURE_SIZE
from packager.trust.verify import VerifiedBundle

TRIES = 5
_PAUSE = 1.0  # seconds before the second try, doubled before each further one
_NOT_THERE = (403, 404, 410)


@dataclass(frozen=True)
class HttpSource:
    """The directory at ``url``; ``sleep`` waits between tries."""

    url: str
    progress: Progress
    sleep: Callable[[float], None] = time.sleep

    def read_small(self, name: str, max_size: int) -> bytes | None:
        """The file ``name``, or ``None`` where the server has none.

        Raises ``HostError`` where the server cannot be reached, or sends more than ``max_size``.
        """
        patience = _Patience(self, name)
        while True:
            try:
                with ask(self._address(name), 0) as answer:
                    data = read_at_most(answer, max_size + 1)
                break
            except urllib.error.HTTPError as error:
                if error.code in _NOT_THERE:
                    return None
                patience.failed(error)
            except BROKEN as error:
                patience.failed(error)
        if len(data) > max_size:
            raise HostError(f"{self.url}{name}: more than {max_size} bytes")
        return data

    def read_chunks(
        self,
        verified: VerifiedBundle,
        chunks: Sequence[int],
        *,
        good: ChunkHandler,
        bad: Callable[[int], None],
        task: Task,
    ) -> None:
        """Read ``chunks``, ascending; ``good`` gets each that has its signed digest, in order.

        ``bad`` gets those that the server sends otherwise, twice. Raises ``HostError`` where it
        cannot be reached, ``MissingVolumeError`` where a volume is not there.
        """
        digests = verified.bundle.chunk_digests
        for volume in verified.bundle.volume_files:
            wanted = [chunk for chunk in chunks if chunk in volume.chunks]
            for chunk, data in self._stream(volume, wanted, digests):
                if data is None:
                    bad(chunk)
                else:
                    good(chunk, data)
                task.advance(volume.place(chunk)[1])

    def _stream(
        self, volume: VolumeFile, wanted: Sequence[int], digests: Sequence[Digest]
    ) -> Iterator[tuple[int, memoryview | None]]:
        """Each of the chunks ``wanted`` of ``volume``; ``None`` for one that comes wrong twice."""
        doubted: set[int] = set()
        done = 0
        while done < len(wanted):
            for chunk, data in self._arriving(volume, wanted[done:]):
                holds = Digest.of(data) == digests[chunk]
                if not holds and chunk not in doubted:
                    doubted.add(chunk)  # asked for once more
                    break
                yield chunk, data if holds else None
                done += 1

    def _arriving(
        self, volume: VolumeFile, wanted: Sequence[int]
    ) -> Iterator[tuple[int, memoryview]]:
        """The chunks ``wanted`` as they come, over as many connections as that takes."""
        done = 0
        patience = _Patience(self, volume.name)
        while done < len(wanted):
            try:
                for chunk, data in self._one_answer(volume, wanted[done:]):
                    yield chunk, data
                    done += 1
                    patience = _Patience(self, volume.name)  # it does come forward
            except urllib.error.HTTPError as error:
                if error.code in _NOT_THERE:
                    raise MissingVolumeError(f"{self.url}{volume.name}: {error.reason}") from None
                patience.failed(error)
            except BROKEN as error:
                patience.failed(error)

    def _one_answer(
        self, volume: VolumeFile, wanted: Sequence[int]
    ) -> Iterator[tuple[int, memoryview]]:
        """What one answer of the server gives of the chunks ``wanted``."""
        begin, _ = volume.place(wanted[0])
        with ask(self._address(volume.name), begin) as answer:
            position = begin if answer.status == http.client.PARTIAL_CONTENT else 0
            for chunk in wanted:
                offset, size = volume.place(chunk)
                _skip(answer, offset - position)
                data = bytearray(size)
                _read_into(answer, memoryview(data))
                yield chunk, memoryview(data)
                position = offset + size

    def _address(self, name: str) -> str:
        return f"{self.url}{quote(name)}"


class _Patience:
    """Counts how often in a row something failed, and waits longer each time."""

    def __init__(self, source: HttpSource, name: str) -> None:
        self._source = source
        self._name = name
        self._count = 0

    def failed(self, error: Exception) -> None:
        """Say so and wait for the next try; raises ``HostError`` if there is none."""
        fact = f"{self._source.url}{self._name}: {_reason(error)}"
        self._count += 1
        if self._count == TRIES:
            raise HostError(fact, hint="is the server up? the same command goes on where it ended")
        self._source.progress.note(f"{fact}; trying again")
        self._source.sleep(_PAUSE * 2 ** (self._count - 1))


def _reason(error: Exception) -> str:
    reason = getattr(error, "reason", None) or error
    said = reason.strerror if isinstance(reason, OSError) else None  # without its number
    return (said or str(reason) or type(error).__name__).lower()


def _skip(answer: http.client.HTTPResponse, size: int) -> None:
    buffer = memoryview(bytearray(min(size, 1 << 20)))
    while size > 0:
        _read_into(answer, buffer[:size])
        size -= len(buffer[:size])


def _read_into(answer: http.client.HTTPResponse, buffer: memoryview) -> None:
    filled = 0
    while filled < len(buffer):
        count = answer.readinto(buffer[filled:])
        if not count:
            raise ConnectionError("ended early")
        filled += count


@contextmanager
def open_bundle_at(
    url: str, keyring: Keyring, progress: Progress, *, now: datetime
) -> Iterator[Media]:
    """The bundle at ``url``: its small files are here until the block ends, its volumes there.

    Raises ``MissingVolumeError`` where no bundle is there, ``HostError`` where no server is, and
    ``UsageError`` for an address that is none, or holds a secret.
    """
    source = HttpSource(f"{check_address(url).rstrip('/')}/", progress)
    with TemporaryDirectory(prefix="airpack-") as place:
        media = Media((Path(place),), source)
        _bring(source, Path(place), _evidence_names(keyring))
        if not (media.copies(SUMS_NAME) or media.copies(spare_name(SUMS_NAME))):
            raise MissingVolumeError(
                f"{source.url}: no bundle there; the server has no {SUMS_NAME}",
                hint="the address of the bundle's own directory, with http:// before it",
            )
        with suppress(AirpackError):  # the command itself meets it, and says so
            verified = authenticate(media, keyring, now=now)
            _bring(
                source,
                Path(place),
                dict.fromkeys(_signatures_of(verified), MAX_MODEL_SIGNATURE_SIZE),
            )
        yield media


def _bring(source: HttpSource, place: Path, names: Mapping[str, int]) -> None:
    """Put the files ``names`` that the server has into ``place``; each with its most bytes."""
    for name, max_size in names.items():
        data = source.read_small(name, max_size)
        if data is not None:
            write_file(place / name, data)


def _evidence_names(keyring: Keyring) -> dict[str, int]:
    """What the decision to trust needs: of signatures, those of the keys that count here."""
    signatures = [signature_name(trusted.key.key_id) for trusted in keyring.keys]
    names = {SUMS_NAME: MAX_SUMS_SIZE, INDEX_NAME: MAX_INDEX_SIZE}
    names |= dict.fromkeys(signatures, MAX_SIGNATURE_SIZE)
    return names | {spare_name(name): max_size for name, max_size in names.items()}


def _signatures_of(verified: VerifiedBundle) -> Iterable[str]:
    for signer in verified.signers:
        for variant in verified.bundle.variants:
            name = model_signature_name(variant.name, signer.key_id)
            yield from (name, spare_name(name))
