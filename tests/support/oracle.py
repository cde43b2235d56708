"""What must be found of a bundle on its media, told by one who knows every true byte.

Media are plain dictionaries here, file names to bytes, so that what is expected is counted from
the bytes themselves: with Python's own ``tarfile``, and with nothing of what is being judged.
"""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from hypothesis.vendor.pretty import RepresentationPrinter as PrettyPrinter

Medium = dict[str, bytes]
SUMS, INDEX = "SHA256SUMS", "bundle.json"
LARGEST_READ = 8_193  # bytes under a signature's name, one more than a signature may have


@dataclass(frozen=True)
class Piece:
    """A chunk: its number, its volume, its place there, its stripe, the files it has bytes of."""

    number: int
    volume: str
    offset: int
    size: int
    stripe: int
    files: tuple[str, ...]


@dataclass(frozen=True)
class Named:
    """Damage as it must be named: bytes of a file on a medium, as the command line gives them."""

    medium: int
    volume: str
    chunk: int | None
    offset: int
    size: int
    files: tuple[str, ...] = ()


@dataclass(frozen=True)
class Build:
    """A bundle as it was built: every file's true bytes. ``chunk_size`` in bytes."""

    directory: Path
    files: Mapping[str, bytes]
    chunk_size: int

    @classmethod
    def read(cls, directory: Path, chunk_size: int) -> Build:
        """The build in ``directory``, which stays there."""
        files = {path.name: path.read_bytes() for path in sorted(directory.iterdir())}
        return cls(directory, files, chunk_size)

    def __repr__(self) -> str:
        return f"Build({self.digest[:8]})"

    def _repr_pretty_(self, printer: PrettyPrinter, _cycle: bool) -> None:
        """Keep Hypothesis from printing every byte."""
        printer.text(repr(self))

    @cached_property
    def volumes(self) -> tuple[str, ...]:
        """The names of the volumes, then those of the parity volumes."""
        kinds = ("payload.", "parity.")
        return tuple(n for kind in kinds for n in sorted(self.files) if n.startswith(kind))

    @cached_property
    def parity(self) -> int:
        """How many of the volumes are of parity."""
        return sum(name.startswith("parity.") for name in self.volumes)

    @cached_property
    def small(self) -> tuple[str, ...]:
        """The names of all other files."""
        return tuple(name for name in self.files if name not in self.volumes)

    @cached_property
    def signatures(self) -> tuple[str, ...]:
        """The names of the signatures, without their spare copies."""
        return tuple(n for n in self.small if n.startswith(f"{SUMS}.") and n.endswith(".sig"))

    @cached_property
    def evidence(self) -> tuple[str, ...]:
        """What believing rests on: each of it has a spare copy."""
        return (SUMS, INDEX, *self.signatures)

    @cached_property
    def listed(self) -> tuple[str, ...]:
        """The names that were signed for."""
        return tuple(line.split()[1] for line in self.files[SUMS].decode().splitlines())

    @cached_property
    def digest(self) -> str:
        """What names this build."""
        return hashlib.sha256(self.files[SUMS]).hexdigest()

    @cached_property
    def members(self) -> Mapping[str, tuple[int, bytes]]:
        """The files in the payload: where each begins, and its bytes."""
        payload = b"".join(self.files[n] for n in self.volumes if n.startswith("payload."))
        found = {}
        with tarfile.open(fileobj=io.BytesIO(payload)) as archive:
            for member in archive:
                begin = member.offset_data
                found[member.name] = (begin, payload[begin : begin + member.size])
        return found

    @cached_property
    def pieces(self) -> tuple[Piece, ...]:
        """Every chunk, in the order of their numbers."""
        return tuple(self._pieces())

    def _pieces(self) -> Iterator[Piece]:
        number = position = 0
        for volume in self.volumes:
            whole = len(self.files[volume])
            for stripe, offset in enumerate(range(0, whole, self.chunk_size)):
                size = min(self.chunk_size, whole - offset)
                payload = volume.startswith("payload.")
                files = tuple(self._touched(position, position + size)) if payload else ()
                yield Piece(number, volume, offset, size, stripe, files)
                number, position = number + 1, position + size

    def _touched(self, begin: int, end: int) -> Iterator[str]:
        for path, (start, data) in self.members.items():
            if start < end and start + len(data) > begin:
                yield path


@dataclass(frozen=True)
class Judgement:
    """What is true of ``media``, in their order, if ``build`` is what they should hold."""

    build: Build
    media: Sequence[Medium]

    def copies(self, name: str) -> list[bytes]:
        """The content of every copy, and of none of its spares."""
        return [medium[name] for medium in self.media if name in medium]

    def is_good(self, name: str) -> bool:
        """Whether some medium has the whole file, and nothing more under that name."""
        return self.build.files[name] in self.copies(name)

    @cached_property
    def may_be_believed(self) -> bool:
        """Whether what is needed to believe this build is there at all."""
        copies = {n: [*self.copies(n), *self.copies(f"spare.{n}")] for n in self.build.evidence}
        good = {name for name, found in copies.items() if self.build.files[name] in found}
        # A key of which only bad signatures are there is forgery for all that a host can tell; what
        # is larger than any signature is none.
        forged = [
            name
            for name in self.build.signatures
            if name not in good and any(len(copy) <= LARGEST_READ for copy in copies[name])
        ]
        signed = good.intersection(self.build.signatures)
        return {SUMS, INDEX} <= good and bool(signed) and not forged

    @cached_property
    def must_be_believed(self) -> bool:
        """Whether, besides, each medium shows that it belongs to this build."""
        return self.may_be_believed and all(
            any(
                self.build.files[n] in (medium.get(n), medium.get(f"spare.{n}"))
                for n in (SUMS, INDEX)
            )
            for medium in self.media
        )

    @cached_property
    def damage(self) -> frozenset[Named]:
        """All that is there and is not as it was built."""
        return frozenset(
            named
            for number, medium in enumerate(self.media)
            for name in medium.keys() & self.build.files.keys()
            for named in self._damage(number, name, medium[name])
        )

    def _damage(self, medium: int, name: str, found: bytes) -> Iterator[Named]:
        true = self.build.files[name]
        if name not in self.build.volumes:
            if found != true and self._can_be_judged(name):
                yield Named(medium, name, None, 0, len(found))
            return
        if len(found) > len(true):
            yield Named(medium, name, None, len(true), len(found) - len(true))
        for piece in self.build.pieces:
            if piece.volume == name and not self._has(found, piece):
                place = (piece.number, piece.offset, piece.size)
                yield Named(medium, name, *place, piece.files)

    def _has(self, found: bytes, piece: Piece) -> bool:
        part = slice(piece.offset, piece.offset + piece.size)
        return found[part] == self.build.files[piece.volume][part]

    @cached_property
    def small(self) -> frozenset[str]:
        """The small files that belong on each medium; of a signature both copies, or none."""
        return frozenset(
            name
            for name in self.build.small
            if not self._is_signature(name)
            or (any(self._signature_copies(name)) and self._can_be_judged(name))
        )

    def _can_be_judged(self, name: str) -> bool:
        """Whether, of a model signature, its key is known: by what it signed of the bundle."""
        bare = name.removeprefix("spare.")
        if not bare.endswith(".model.sig"):
            return True
        signature = f"{SUMS}.{bare.split('.')[-3]}.sig"
        return self.build.files[signature] in self._signature_copies(signature)

    def _is_signature(self, name: str) -> bool:
        bare = name.removeprefix("spare.")
        return bare in self.build.signatures or bare.endswith(".model.sig")

    def _signature_copies(self, name: str) -> list[bytes]:
        bare = name.removeprefix("spare.")
        return [*self.copies(bare), *self.copies(f"spare.{bare}")]

    @cached_property
    def missing(self) -> frozenset[str]:
        """What should be on the media, and is on none: only a signature needs no spare copy."""
        wanted = {n for n in self.small if not (self._is_signature(n) and n.startswith("spare."))}
        return frozenset(n for n in {*wanted, *self.build.volumes} if not self.copies(n))

    @cached_property
    def beyond(self) -> frozenset[str]:
        """The small files of which no medium has the bytes, under whatever small file's name.

        What a signature should be is known of one that holds under a name of its own.
        """
        there = {m[name] for m in self.media for name in self.build.small if name in m}
        return frozenset(
            name
            for name in self.small
            if self.build.files[name]
            not in (self._signature_copies(name) if self._is_signature(name) else there)
        )

    @cached_property
    def strangers(self) -> frozenset[tuple[int, str]]:
        """What nobody made, and what under a signature's name can be none, of no known signer."""
        return frozenset(
            (number, name)
            for number, medium in enumerate(self.media)
            for name, data in medium.items()
            if name not in self.build.files or self._is_no_signature(name, data)
        )

    def _is_no_signature(self, name: str, data: bytes) -> bool:
        bare = name.removeprefix("spare.")
        return (
            bare in self.build.signatures
            and len(data) >= LARGEST_READ
            and self.build.files[bare] not in self._signature_copies(bare)
        )

    @cached_property
    def lost(self) -> tuple[Piece, ...]:
        """The chunks of which no copy is good."""
        return tuple(
            piece
            for piece in self.build.pieces
            if not any(self._has(found, piece) for found in self.copies(piece.volume))
        )

    @cached_property
    def hopeless(self) -> tuple[Piece, ...]:
        """Those of them that are in a stripe with more lost chunks than parity volumes."""
        lost = Counter(piece.stripe for piece in self.lost)
        return tuple(piece for piece in self.lost if lost[piece.stripe] > self.build.parity)

    @cached_property
    def to_ask_for(self) -> int:
        """How many chunks it takes from elsewhere, so that parity makes good the others."""
        lost = Counter(piece.stripe for piece in self.lost)
        return sum(max(0, count - self.build.parity) for count in lost.values())

    @cached_property
    def ok(self) -> bool:
        """Whether all is there as it was built, and nothing else."""
        return not (self.damage or self.missing or self.strangers)

    @cached_property
    def repairable(self) -> bool:
        """Whether something is at fault, and all of that can be made good from what is here."""
        faults = {named.volume for named in self.damage} | self.missing
        return not (self.ok or self.strangers or self.hopeless or self.beyond & faults)

    @cached_property
    def to_mend(self) -> frozenset[str]:
        """The volumes of which no medium has a whole copy."""
        return frozenset(name for name in self.build.volumes if not self.is_good(name))

    def state(self, name: str, medium: int | None) -> str:
        """The word for a volume on a medium; ``None`` where it is on none."""
        if medium is not None and self.media[medium][name] == self.build.files[name]:
            return "good"
        if name not in {piece.volume for piece in self.hopeless}:
            return "repairable"
        return "missing" if medium is None else "bad"
