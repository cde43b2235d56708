"""What happens to files on the way: spread over media, flipped, cut, lost, swapped, mixed up."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from hypothesis import strategies as st

from support.oracle import INDEX, SUMS, Build, Medium

Draw = st.DrawFn


class Trip:
    """A build on its media, and the story of what befell them.

    ``other`` is another build of the same name and version, by the same signers.
    """

    def __init__(self, build: Build, other: Build, media: list[Medium]) -> None:
        self.build, self.other, self.media = build, other, media
        self.story: list[str] = []

    def __repr__(self) -> str:
        spread = "; ".join(" ".join(n for n in m if "0000" in n) for m in self.media)
        return f"parity {self.build.parity}; now [{spread}]: {', '.join(self.story)}"

    def write(self, place: Path, title: str) -> list[Path]:
        """Put the media below ``place``; returns their directories, in order."""
        directories = [place / f"medium{number}" / title for number in range(len(self.media))]
        for directory, medium in zip(directories, self.media, strict=True):
            directory.mkdir(parents=True)
            for name, data in medium.items():
                (directory / name).write_bytes(data)
        return directories


@st.composite
def trips(draw: Draw, builds: Sequence[tuple[Build, Build]]) -> Trip:
    """One of ``builds``, on one to three media in any order, and up to five mishaps."""
    build, other = draw(st.sampled_from(builds))
    trip = Trip(build, other, draw(_spread(build)))
    for mishap in draw(st.lists(st.sampled_from(MISHAPS), min_size=1, max_size=5)):
        mishap(draw, trip)
    return trip


@st.composite
def _spread(draw: Draw, build: Build) -> list[Medium]:
    """Every volume on at least one medium, some on two, all small files on each."""
    count = draw(st.integers(1, 3))
    media = [{name: build.files[name] for name in build.small} for _ in range(count)]
    for name in build.volumes:
        places = st.lists(st.integers(0, count - 1), min_size=1, max_size=2)
        for place in draw(places):
            media[place][name] = build.files[name]
    return media


def _file(draw: Draw, trip: Trip) -> tuple[int, str]:
    """A medium, and a file that is there: more often a volume than a small one."""
    place = draw(st.integers(0, len(trip.media) - 1))
    names = sorted(trip.media[place])
    volumes = [name for name in names if name in trip.build.volumes]
    small = [name for name in names if name not in volumes]
    choice = volumes if volumes and (not small or draw(st.integers(0, 3))) else small
    return place, draw(st.sampled_from(choice)) if choice else ""


def _position(draw: Draw, trip: Trip, size: int) -> int:
    """A position below ``size``, now and then at the edge of a chunk."""
    edges = range(0, size, trip.build.chunk_size)
    edge = st.sampled_from(edges) if edges else st.just(0)
    return draw(st.one_of(st.integers(0, size - 1), edge))


def flip(draw: Draw, trip: Trip) -> None:
    """Some bits of one byte."""
    place, name = _file(draw, trip)
    data = bytearray(trip.media[place].get(name, b""))
    if data:
        position = _position(draw, trip, len(data))
        data[position] ^= draw(st.integers(1, 255))
        trip.media[place][name] = bytes(data)
        trip.story.append(f"byte {position} of {name} on {place} flipped")


def cut(draw: Draw, trip: Trip) -> None:
    """The end of a file, from anywhere on."""
    place, name = _file(draw, trip)
    if data := trip.media[place].get(name):
        size = _position(draw, trip, len(data))
        trip.media[place][name] = data[:size]
        trip.story.append(f"{name} on {place} cut to {size} of {len(data)}")


def blank(draw: Draw, trip: Trip) -> None:
    """Zeros from anywhere on, as a filesystem leaves them that knew the size and no more."""
    place, name = _file(draw, trip)
    if data := trip.media[place].get(name):
        size = _position(draw, trip, len(data))
        trip.media[place][name] = data[:size].ljust(len(data), b"\0")
        trip.story.append(f"{name} on {place} zeros from {size} on")


def extend(draw: Draw, trip: Trip) -> None:
    """Bytes behind the end."""
    place, name = _file(draw, trip)
    if name:
        more = draw(st.binary(min_size=1, max_size=8)) * draw(st.sampled_from([1, 9000]))
        trip.media[place][name] += more
        trip.story.append(f"{len(more)} bytes behind {name} on {place}")


def drop(draw: Draw, trip: Trip) -> None:
    """A file, from one medium or from all."""
    place, name = _file(draw, trip)
    places = range(len(trip.media)) if draw(st.booleans()) else [place]
    for each in places:
        trip.media[each].pop(name, None)
    trip.story.append(f"{name} gone from {[*places]}")


def forget_medium(draw: Draw, trip: Trip) -> None:
    """A whole medium."""
    if len(trip.media) > 1:
        place = draw(st.integers(0, len(trip.media) - 1))
        del trip.media[place]
        trip.story.append(f"medium {place} left at home")


def swap(draw: Draw, trip: Trip) -> None:
    """The contents of two files."""
    (place, name), (there, with_name) = _file(draw, trip), _file(draw, trip)
    if name and with_name:
        ours, theirs = trip.media[place][name], trip.media[there][with_name]
        trip.media[place][name], trip.media[there][with_name] = theirs, ours
        trip.story.append(f"{name} on {place} and {with_name} on {there} swapped")


def duplicate(draw: Draw, trip: Trip) -> None:
    """A file once more, under the name of another."""
    (place, name), there = _file(draw, trip), draw(st.integers(0, len(trip.media) - 1))
    if name:
        to = draw(_names(trip, name))
        trip.media[there][to] = trip.media[place][name]
        trip.story.append(f"{name} of {place} also as {to} on {there}")


def rename(draw: Draw, trip: Trip) -> None:
    """A file under another name."""
    place, name = _file(draw, trip)
    if name:
        to = draw(_names(trip, name))
        trip.media[place][to] = trip.media[place].pop(name)
        trip.story.append(f"{name} on {place} renamed {to}")


def copy_bad(draw: Draw, trip: Trip) -> None:
    """A volume on a second medium, not as it should be."""
    place, name = _file(draw, trip)
    there = draw(st.integers(0, len(trip.media) - 1))
    if data := bytearray(trip.media[place].get(name, b"")):
        position = _position(draw, trip, len(data))
        data[position] ^= 0xFF
        trip.media[there][name] = bytes(data)
        trip.story.append(f"{name} of {place} on {there} too, byte {position} flipped")


def mix(draw: Draw, trip: Trip) -> None:
    """A file of the other build under its own name."""
    place = draw(st.integers(0, len(trip.media) - 1))
    name = draw(st.sampled_from(sorted(trip.other.files)))
    trip.media[place][name] = trip.other.files[name]
    trip.story.append(f"{name} on {place} of the other build")


def mix_evidence(draw: Draw, trip: Trip) -> None:
    """The sums, the index and the signatures of the other build, which all hold together."""
    place = draw(st.integers(0, len(trip.media) - 1))
    names = (SUMS, INDEX, *trip.other.signatures)
    spare = draw(st.sampled_from(["", "spare."]))
    for name in names:
        trip.media[place][spare + name] = trip.other.files[name]
    trip.story.append(f"{spare or 'first copies of'} evidence on {place} of the other build")


def _names(trip: Trip, name: str) -> st.SearchStrategy[str]:
    strange = ["payload.00099", "parity.00099", "notes.txt", name.upper() + "~", f"spare.{name}"]
    return st.sampled_from([*strange, *(n for n in trip.build.files if n != name)])


MISHAPS: tuple[Callable[[Draw, Trip], None], ...] = (
    flip, flip, cut, cut, blank, extend, drop, drop, forget_medium, swap, duplicate, rename,
    copy_bad, mix, mix, mix_evidence,
)  # fmt: skip
