"""Where a loaded shared object looks up a function of its own: its procedure linkage table.

A function that a shared object exports is called, even from inside of it, through a slot that
holds the function's address (System V ABI, chapter 5, "Procedure Linkage Table"). Whoever
changes the slot is called instead.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from packager.errors import EngineError

_PT_LOAD, _PT_DYNAMIC = 1, 2
_DT_PLTRELSZ, _DT_STRTAB, _DT_SYMTAB, _DT_JMPREL = 2, 5, 6, 23
_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SEGMENT = struct.Struct("<IIQQQQQQ")
_DYNAMIC = struct.Struct("<qQ")
_SYMBOL = struct.Struct("<IBBHQQ")
_RELOCATION = struct.Struct("<QQq")
_ELF64_LITTLE = b"\x7fELF\x02\x01\x01"


@dataclass(frozen=True)
class Slot:
    """Offsets, from where the object is loaded, of a function's slot and of the function."""

    slot: int
    function: int


def find_slot(path: Path, function: str) -> Slot:
    """The slot through which the ELF object in ``path`` calls its own ``function``.

    Raises ``EngineError`` where there is none.
    """
    with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
        try:
            return _find(data, function.encode("ascii"))
        except (struct.error, KeyError, ValueError, IndexError):
            raise EngineError(f"{path}: {function} cannot be watched in this engine") from None


def redirect(library: ctypes.CDLL, slot: Slot, function: str, target: int) -> None:
    """Have ``library`` call the code at address ``target`` whenever it calls its ``function``."""
    address = ctypes.cast(getattr(library, function), ctypes.c_void_p).value or 0
    place = address - slot.function + slot.slot
    page = place & -mmap.PAGESIZE
    libc = ctypes.CDLL(None, use_errno=True)
    # An object linked with -z now has its slots made read-only.
    if libc.mprotect(ctypes.c_void_p(page), mmap.PAGESIZE, mmap.PROT_READ | mmap.PROT_WRITE):
        raise EngineError(f"{function} cannot be watched: {os.strerror(ctypes.get_errno())}")
    ctypes.c_void_p.from_address(place).value = target


def _find(data: mmap.mmap, function: bytes) -> Slot:
    if data[: len(_ELF64_LITTLE)] != _ELF64_LITTLE:
        raise ValueError
    segments = list(_segments(data))
    dynamic = {tag: value for s in segments if s[0] == _PT_DYNAMIC for tag, value in _tags(data, s)}
    symbols, names, relocations = (
        _offset(segments, dynamic[tag]) for tag in (_DT_SYMTAB, _DT_STRTAB, _DT_JMPREL)
    )
    for start in range(relocations, relocations + dynamic[_DT_PLTRELSZ], _RELOCATION.size):
        slot, info, _ = _RELOCATION.unpack_from(data, start)
        name, _, _, _, value, _ = _SYMBOL.unpack_from(data, symbols + (info >> 32) * _SYMBOL.size)
        end = names + name + len(function)
        if data[names + name : end + 1] == function + b"\0" and value:
            return Slot(slot, value)
    raise ValueError


def _segments(data: mmap.mmap) -> Iterator[tuple[int, ...]]:
    header = _HEADER.unpack_from(data)
    table, size, count = header[5], header[9], header[10]
    for index in range(count):
        yield _SEGMENT.unpack_from(data, table + index * size)


def _tags(data: mmap.mmap, segment: tuple[int, ...]) -> Iterator[tuple[int, int]]:
    begin, size = segment[2], segment[5]
    for start in range(begin, begin + size, _DYNAMIC.size):
        yield _DYNAMIC.unpack_from(data, start)


def _offset(segments: list[tuple[int, ...]], address: int) -> int:
    """Where in the file what is loaded at ``address`` lies."""
    for kind, _, offset, begin, _, size, _, _ in segments:
        if kind == _PT_LOAD and begin <= address < begin + size:
            return offset + address - begin
    raise ValueError
