"""The allow-list: safetensors, GGUF, JSON, text and tokenizer files, and nothing that can run.

A file is what its bytes are, whatever it is called; its name only says what it must be. This
runs on every file of a source before anything else opens it. What it cannot see is whether the
numbers in a file of weights are good ones: that is for the smoke test.
"""

from __future__ import annotations

import io
import os
import pickletools
import re
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path

from packager.errors import AirpackError, MalformedError, UnsafeContentError
from packager.format.foreign_json import parse_json
from packager.format.gguf_header import MAGIC as GGUF_MAGIC
from packager.format.gguf_header import parse_header as parse_gguf
from packager.format.relpath import check_distinct, check_relpath
from packager.format.safetensors_header import PREFIX_SIZE, header_end, parse_header
from packager.store.atomic import open_regular, read_capped

MAX_DOCUMENT_SIZE = 128 << 20
_HEAD_SIZE = 512
_LEAVE_OUT = "take a revision of the model without it, or leave it out by source.exclude"

# Each begins a file that runs, unpacks, or is loaded by code of its own.
_SIGNATURES = (
    (b"PK\x03\x04", "a ZIP archive (as torch.save writes), which may hold a pickle"),
    (b"PK\x05\x06", "a ZIP archive"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (b"\x1f\x8b", "a gzip file"),
    (b"BZh", "a bzip2 file"),
    (b"\xfd7zXZ\x00", "an xz file"),
    (b"\x28\xb5\x2f\xfd", "a zstandard file"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"GGUF", "a GGUF file"),
    (b"\x7fELF", "a program (ELF)"),
    (b"MZ", "a program (PE)"),
    (b"\xca\xfe\xba\xbe", "a program (Mach-O or Java)"),
    (b"\xcf\xfa\xed\xfe", "a program (Mach-O)"),
    (b"\x00asm", "a program (WebAssembly)"),
    (b"#!", "a script"),
)
_PICKLE = re.compile(rb"\x80[\x02-\x05]|c?__builtin__\n|\(?c(builtins|os|posix|nt|subprocess)\n")

_PICKLE_NAMES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib", ".npy", ".npz")
_OTHER_WEIGHT_NAMES = (".h5", ".hdf5", ".keras", ".msgpack", ".onnx", ".tflite", ".pb")
_CODE_NAMES = (
    ".py", ".pyc", ".pyd", ".ipynb", ".sh", ".bash", ".bat", ".ps1", ".js", ".mjs", ".so", ".dll",
    ".dylib", ".exe", ".jar", ".whl", ".cu", ".c", ".cc", ".cpp", ".rs", ".go", ".rb", ".pl",
)  # fmt: skip
_ARCHIVE_NAMES = (".zip", ".7z", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".zst", ".rar", ".nemo")
_NEVER = (
    (_PICKLE_NAMES, "is weights as a pickle, which runs code when it is loaded"),
    (_OTHER_WEIGHT_NAMES, "is weights in a format other than safetensors"),
    (_CODE_NAMES, "is code"),
    (_ARCHIVE_NAMES, "is an archive"),
)
_TEXT_NAMES = (".txt", ".md", ".jinja", ".jinja2", ".rst", ".tiktoken", ".bpe", ".vocab", ".jsonl")
_BARE_NAMES = ("vocab", "merges")
_LEGAL = re.compile(
    r"(licen[cs]e|notice|copying|use_policy|authors|readme)"
    r"([-_][a-z0-9_-]+(\.[0-9]+)*)?(\.(md|txt|rst))?\Z"
)
_SENTENCEPIECE = re.compile(r"(.*\.model|tokenizer\.model\..*|.*\.spm)\Z")
_ADAPTER = "adapter_config.json"
_RUNS_CODE = re.compile(r"(auto_map|trust_remote_code|_attn_implementation.*)\Z", re.DOTALL)
_TEMPLATE_NAMES = (".jinja", ".jinja2")
# Jinja reaches Python's own machinery by such names, spelt out or as escapes.
_DUNDER = re.compile(r"__\w+__|\\(x5f|u005f|137)", re.IGNORECASE)

# A pickle as text: more operations than any text happens to begin with, and what they may call.
_MAX_OPERATIONS = 1 << 16
_IMPORTABLE = re.compile(r"[\w.]+ [\w.]+\Z")
_CALLS = frozenset({"REDUCE", "OBJ", "NEWOBJ", "NEWOBJ_EX"})
_HIGH_AS_ASCII = bytes(range(128)) + b"x" * 128

_ZIP_END = struct.Struct("<4s4H2LH")
_ZIP_TAIL_SIZE = _ZIP_END.size + 0xFFFF

# Text as a terminal takes it: no control characters but tab, the line ends and the form feed.
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0e-\x1f\x7f]")


def check_names(paths: Iterable[str]) -> None:
    """Refuse, before a byte is fetched, what no content could redeem.

    Raises ``UnsafeContentError`` for weights in formats that run code, for code, and for paths
    that mean something else on another system.
    """
    listed = tuple(paths)
    for path in listed:
        check_relpath(path)
        _kind(path)
    check_distinct(listed)


def is_pickle_name(path: str) -> bool:
    """Whether ``path`` is called as pickled weights are."""
    return path.lower().endswith(_PICKLE_NAMES)


def check_content(files: Mapping[str, Path]) -> None:
    """Look into ``files``, by their path in the source.

    Raises ``UnsafeContentError`` for the first that is not what the allow-list lets through.
    """
    check_names(files)
    for path, file in sorted(files.items()):
        _CHECKS[_kind(path)](path, file)


def check_arrived(files: Mapping[str, Path]) -> None:
    """Look into ``files`` as :func:`check_content` does, as another airpack may have packed them.

    A kind of file that this one does not know passes if by its bytes nothing runs or unpacks it.
    Adapters arrive converted, never as they were published.
    """
    for path, file in sorted(files.items()):
        if path.rpartition("/")[2] == _ADAPTER:
            raise _refuse(path, "is an adapter, whose base loaders would look for elsewhere")
        _CHECKS[_kind(path, unknown="unknown")](path, file)


def _kind(path: str, unknown: str | None = None) -> str:
    """What a file called ``path`` must be, ``unknown`` for a name that nothing is known by.

    Raises ``UnsafeContentError`` for what is never carried, and unless there is ``unknown``.
    """
    name = path.rpartition("/")[2].lower()
    if name.endswith(".safetensors"):
        return "safetensors"
    if name.endswith(".gguf"):
        return "gguf"
    if name.endswith(".json"):
        return "json"
    if _SENTENCEPIECE.match(name):
        return "sentencepiece"
    _refuse_name(path, name)
    if name in _BARE_NAMES or name.endswith(_TEXT_NAMES) or _LEGAL.match(name):
        return "text"
    if unknown is not None:
        return unknown
    raise _refuse(path, "is neither safetensors, GGUF, JSON, text nor a tokenizer")


def _refuse_name(path: str, name: str) -> None:
    if re.match(r"requirements.*\.txt\Z", name):
        raise _refuse(path, "names packages to install")
    for suffixes, fact in _NEVER:
        if name.endswith(suffixes):
            raise _refuse(path, fact)


def _refuse(path: str, fact: str) -> UnsafeContentError:
    return UnsafeContentError(f"{path}: {fact}", hint=_LEAVE_OUT)


def _check_head(path: str, file: Path) -> None:
    with open_regular(file) as descriptor:
        head = os.pread(descriptor, _HEAD_SIZE, 0)
    if _PICKLE.match(head):
        raise _refuse(path, "is a pickle, which runs code when it is loaded")
    for signature, fact in _SIGNATURES:
        if head.startswith(signature):
            raise _refuse(path, f"is {fact}")
    if head[257:262] == b"ustar":
        raise _refuse(path, "is a tar archive")


def _check_safetensors(path: str, file: Path) -> None:
    try:
        with open_regular(file) as descriptor:
            size = os.fstat(descriptor).st_size
            end = header_end(os.pread(descriptor, PREFIX_SIZE, 0), file_size=size, what=path)
            header = os.pread(descriptor, end, 0)
        parse_header(header, file_size=size, what=path)
    except AirpackError:
        # Only now: the size in front of a good header of 640 bytes begins as a pickle does.
        _check_head(path, file)
        raise
    _refuse_zip_tail(path, file)


def _check_gguf(path: str, file: Path) -> None:
    with open_regular(file) as descriptor, open(descriptor, "rb", closefd=False) as stream:
        if os.pread(descriptor, len(GGUF_MAGIC), 0) != GGUF_MAGIC:
            _check_head(path, file)
        header = parse_gguf(stream, file_size=os.fstat(descriptor).st_size, what=path)
    for key, value in header.metadata.items():
        if "template" in key:
            _check_template(path, value)
    _refuse_zip_tail(path, file)


def _refuse_zip_tail(path: str, file: Path) -> None:
    """Refuse an archive inside the last tensor: readers of ZIP begin at the end of a file."""
    with open_regular(file) as descriptor:
        size = os.fstat(descriptor).st_size
        start = max(0, size - _ZIP_TAIL_SIZE)
        tail = os.pread(descriptor, _ZIP_TAIL_SIZE, start)
        found = tail.find(b"PK\x05\x06")
        while 0 <= found <= len(tail) - _ZIP_END.size:
            _, _, _, _, _, length, offset, _ = _ZIP_END.unpack_from(tail, found)
            directories = {max(0, start + found - length), offset}
            begins = [os.pread(descriptor, 4, directory) for directory in directories]
            is_large = tail[max(0, found - 20) : found].startswith(b"PK\x06\x07")
            if is_large or b"PK\x01\x02" in begins:
                raise _refuse(path, "ends as a ZIP archive does, which may hold a pickle")
            found = tail.find(b"PK\x05\x06", found + 1)


def _check_json(path: str, file: Path) -> None:
    _check_head(path, file)
    try:
        waiting = [parse_json(_read(path, file), what=path)]
    except MalformedError as error:
        raise UnsafeContentError(error.message, hint=_LEAVE_OUT) from None
    if path.endswith("chat_template.json"):
        _check_template(path, waiting[0])
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            _check_keys(path, value)
            _check_template(path, value.get("chat_template"))
            waiting.extend(value.values())
        elif isinstance(value, list):
            waiting.extend(value)


def _check_keys(path: str, members: dict[str, object]) -> None:
    for key, value in members.items():
        if runs_code(key, value):
            raise _refuse(path, f"has {key[:60]!a}, which makes a loader run other code")


def runs_code(key: str, value: object) -> bool:
    """Whether a JSON object's ``key``, with this ``value``, makes a loader run other code."""
    # A vocabulary may hold any of these words, as a token and its number.
    return bool(_RUNS_CODE.match(key)) and type(value) is not int


def _check_template(path: str, template: object) -> None:
    """Refuse a chat template, or a list or mapping of them, that reaches into Python."""
    waiting = [template]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            waiting.extend(value.values())
        elif isinstance(value, list):
            waiting.extend(value)
        elif isinstance(value, str) and (match := _DUNDER.search(value)):
            raise _refuse(path, f"its chat template holds {match[0][:60]!a}")


def _calls(data: bytes) -> bool:
    """Whether ``data``, read as a pickle, calls something.

    It need not be whole: what stands before the fault has run by then.
    """
    imports = marked = False
    try:
        for count, (operation, argument, _) in enumerate(pickletools.genops(io.BytesIO(data))):
            if operation.name in ("GLOBAL", "INST") and _IMPORTABLE.match(str(argument)):
                imports = True
            imports |= operation.name == "STACK_GLOBAL"
            marked |= operation.name == "MARK"
            runs = operation.name == "INST" and marked
            if imports and (runs or operation.name in _CALLS or operation.name == "STOP"):
                return True
            if count == _MAX_OPERATIONS:
                return True
    except (ValueError, struct.error):
        return False
    return False


def _check_text(path: str, file: Path) -> None:
    _check_head(path, file)
    data = _read(path, file)
    if _calls(data) or _calls(data.translate(_HIGH_AS_ASCII)):
        raise _refuse(path, "is a pickle, which runs code when it is loaded")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _refuse(path, f"is not UTF-8 text, at byte {error.start}") from None
    if match := _CONTROL.search(text):
        raise _refuse(path, f"is not text: it holds the control character {match[0]!a}")
    if path.lower().endswith(_TEMPLATE_NAMES):
        _check_template(path, text)


def _check_unknown(path: str, file: Path) -> None:
    _check_head(path, file)
    if file.stat().st_size <= MAX_DOCUMENT_SIZE and _calls(read_capped(file, MAX_DOCUMENT_SIZE)):
        raise _refuse(path, "is a pickle, which runs code when it is loaded")


def _read(path: str, file: Path) -> bytes:
    if file.stat().st_size > MAX_DOCUMENT_SIZE:
        raise _refuse(path, f"is larger than the limit of {MAX_DOCUMENT_SIZE} bytes for its kind")
    return read_capped(file, MAX_DOCUMENT_SIZE)


def _check_sentencepiece(path: str, file: Path) -> None:
    """A ``ModelProto`` of sentencepiece_model.proto: at its top level nothing but messages."""
    _check_head(path, file)
    data = memoryview(_read(path, file))
    position = pieces = 0
    while position < len(data):
        field, wire = data[position] >> 3, data[position] & 7
        size, position = _varint(data, position + 1)
        if wire != 2 or not 1 <= field <= 5 or size < 0 or position + size > len(data):
            raise _refuse(path, "is not a SentencePiece model")
        pieces += field == 1
        position += size
    if pieces == 0:
        raise _refuse(path, "is not a SentencePiece model: it has no pieces")


def _varint(data: memoryview, position: int) -> tuple[int, int]:
    """A base-128 number and the position behind it; -1 where there is none within five bytes."""
    value = 0
    for shift, byte in enumerate(data[position : position + 5]):
        value |= (byte & 0x7F) << (7 * shift)
        if byte < 0x80:
            return value, position + shift + 1
    return -1, position


_CHECKS = {
    "safetensors": _check_safetensors,
    "gguf": _check_gguf,
    "json": _check_json,
    "text": _check_text,
    "sentencepiece": _check_sentencepiece,
    "unknown": _check_unknown,
}
