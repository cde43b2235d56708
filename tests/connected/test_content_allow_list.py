"""The allow-list: cases 85-88 and 91, and the paths of cases 34-47, on files of a source."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.tiny_source import CARD, safetensors

from packager.errors import AirpackError, IntegrityError, UnsafeContentError
from packager.runtime.content import check_content, check_names, is_pickle_name

Check = Callable[[str, bytes], None]
WEIGHTS = safetensors({"a": (3, 4)})
# Two pieces, "a" with a score and "b"; then an empty trainer specification.
SENTENCEPIECE = b"\x0a\x08\x0a\x01a\x15\x00\x00\x80\xbf\x0a\x03\x0a\x01b\x12\x00"


@pytest.fixture
def check(tmp_path: Path) -> Check:
    def write_and_check(path: str, data: bytes) -> None:
        file = tmp_path / "file"
        file.write_bytes(data)
        check_content({path: file})

    return write_and_check


def archive() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as file:
        file.writestr("archive/data.pkl", pickle.dumps({}))
    return stream.getvalue()


@pytest.mark.parametrize(
    ("path", "data"),
    [
        ("model.safetensors", WEIGHTS),
        ("sub/model-00001-of-00002.safetensors", WEIGHTS),
        ("config.json", b'{"architectures": ["LlamaForCausalLM"], "x": [1, {"y": null}]}'),
        ("merges.json", b"[]"),
        ("README.md", CARD + "Grüße, 世界\r\n\f".encode()),
        ("LICENSE", b"Do as you like.\n"),
        ("LICENSE-2.0", b"Do as you like.\n"),
        ("merges.txt", b"#version: 0.2\na b\n"),
        ("chat_template.jinja", b"{{ messages }}"),
        ("tokenizer.model", SENTENCEPIECE),
        ("tokenizer.model.v3", SENTENCEPIECE),
        ("NOTICE", b""),
        ("Notice", b"Llama"),
        ("LICENSE.txt", b"(c) Foo\nAll rights\nReserved.\n"),
        ("license_llama", b"x"),
        ("USE_POLICY.md", b"copyright \xc2\xa9 2024\nfoo\n"),
        ("vocab.json", b'{"!": 0, "__class__": 1, "chat_template": 2}'),
        ("vocab", b"[PAD]\nthe\n"),
        ("tokenizer_config.json", b'{"chat_template": "{{ a__b }}", "x": "__class__"}'),
    ],
)
def test_what_a_model_is_made_of_passes(check: Check, path: str, data: bytes) -> None:
    check(path, data)


@pytest.mark.parametrize("begin", [b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"])
def test_header_whose_size_reads_as_a_pickle_passes(check: Check, begin: bytes) -> None:
    data = safetensors({"a": (3, 4)}, header_size=int.from_bytes(begin, "little"))

    assert data.startswith(begin)
    check("model.safetensors", data)


def test_vocabulary_may_hold_the_words_as_tokens(check: Check) -> None:
    check("tokenizer.json", b'{"model": {"vocab": {"auto_map": 17, "trust_remote_code": 3}}}')


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("path", ["model.safetensors", "config.json", "merges.txt", "LICENSE"])
def test_85_pickle_under_any_name(check: Check, path: str, protocol: int) -> None:
    class Runs:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return eval, ("1",)

    data = pickle.dumps(Runs(), protocol=protocol)

    with pytest.raises((UnsafeContentError, IntegrityError), match=path):
        check(path, data)


@pytest.mark.parametrize(
    "data",
    [
        b"I1\n0cos\nsystem\n(S'id'\ntR.",
        b"(cos\nsystem\nS'id'\no.",
        b"(S'id'\nios\nsystem\n.",
        b"cshutil\nrmtree\n(S'/x'\ntR",
        b"Vos\n0Vsystem\n0K\xc2\x93cos\nsystem\n(S'id'\ntR.",
        "S'é'\n0cos\nsystem\n(S'id'\ntR.".encode(),
        b"I1\n0" * 70_000 + b"cos\nsystem\n(S'id'\ntR.",
    ],
)
@pytest.mark.parametrize("path", ["vocab.txt", "LICENSE", "merges"])
def test_85_pickle_written_as_text_is_refused_whole_or_cut(
    check: Check, path: str, data: bytes
) -> None:
    with pytest.raises(UnsafeContentError, match=f"{path}: is a pickle"):
        check(path, data)


@pytest.mark.parametrize("comment", [b"", b"c" * 0xFFFF])
def test_86_archive_inside_the_last_tensor_is_refused(check: Check, comment: bytes) -> None:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as file:
        file.writestr("__main__.py", "print('ran')")
        file.comment = comment
    data = stream.getvalue()
    entry = {"dtype": "U8", "shape": [len(data)], "data_offsets": [0, len(data)]}
    header = json.dumps({"a": entry}).encode()
    with pytest.raises(UnsafeContentError, match=r"model\.safetensors: ends as a ZIP archive"):
        check("model.safetensors", len(header).to_bytes(8, "little") + header + data)


def test_86_the_mark_of_an_archive_without_one_passes(check: Check) -> None:
    data = b"PK\x05\x06" + b"\x07" * 40
    entry = {"dtype": "U8", "shape": [len(data)], "data_offsets": [0, len(data)]}
    header = json.dumps({"a": entry}).encode()
    check("model.safetensors", len(header).to_bytes(8, "little") + header + data)


@pytest.mark.parametrize(
    ("path", "data"),
    [
        ("chat_template.jinja", b"{{ cycler.__init__.__globals__.os }}"),
        ("chat_template.jinja", rb"{{ ''['\x5f\x5fclass\x5f\x5f'] }}"),
        ("chat_template.json", b'{"chat_template": "{{ a.__class__ }}"}'),
        ("chat_template.json", b'"{{ a.__class__ }}"'),
        ("tokenizer_config.json", b'{"chat_template": "{{ \'\'.__class__ }}"}'),
        (
            "tokenizer_config.json",
            b'{"chat_template": [{"name": "tool", "template": "{{ a.\\u005f_class__ }}"}]}',
        ),
    ],
)
def test_chat_template_that_reaches_into_python_is_refused(
    check: Check, path: str, data: bytes
) -> None:
    with pytest.raises(UnsafeContentError, match=f"{path}: its chat template holds"):
        check(path, data)


@pytest.mark.parametrize(
    "path",
    [
        "license.php", "readme.hta", "notice.vbs", "README.html", "authors.cmd", "LICENSE.R",
        "LICENSE-1.php", "copying.lua", "Makefile", "Dockerfile", "setup", "install", "weights",
    ],
)  # fmt: skip
def test_name_that_only_begins_as_a_legal_text_does_is_refused(path: str) -> None:
    with pytest.raises(UnsafeContentError, match=r"is neither|is code"):
        check_names([path])


@pytest.mark.parametrize(
    "path", ["pytorch_model.bin", "model.pt", "a/model.PTH", "model.ckpt", "x.pkl", "x.npz"]
)
def test_85_pickle_by_name_is_refused_before_it_is_fetched(path: str) -> None:
    assert is_pickle_name(path)
    with pytest.raises(UnsafeContentError, match="runs code when it is loaded") as caught:
        check_names([path])
    assert caught.value.exit_code == 17


@pytest.mark.parametrize(
    ("data", "fact"),
    [
        (archive(), "ZIP"),
        (b"7z\xbc\xaf\x27\x1c\x00\x04" + b"\0" * 64, "7z"),
        (b"\x89HDF\r\n\x1a\n" + b"\0" * 64, "HDF5"),
        (b"\x1f\x8b\x08" + b"\0" * 64, "gzip"),
        (b"GGUF\x03\0\0\0" + b"\0" * 64, "GGUF"),
        (b"\x93NUMPY\x01\x00" + b"\0" * 64, "NumPy"),
        (b"\0" * 257 + b"ustar\x0000" + b"\0" * 300, "tar"),
    ],
)
@pytest.mark.parametrize("path", ["model.safetensors", "tokenizer.model", "config.json"])
def test_86_other_containers_named_as_something_allowed(
    check: Check, path: str, data: bytes, fact: str
) -> None:
    with pytest.raises(UnsafeContentError, match=rf"{path}: is an? .*{fact}"):
        check(path, data)


@pytest.mark.parametrize(
    "path", ["modeling_x.py", "a/b.so", "run.sh", "x.ipynb", "setup.EXE", "lib.whl", "a.js"]
)
def test_87_code_by_name(path: str) -> None:
    with pytest.raises(UnsafeContentError, match="is code"):
        check_names([path])


@pytest.mark.parametrize("data", [b"\x7fELF\x02", b"MZ\x90", b"#!/bin/sh\nid\n", b"\0asm\1"])
def test_87_code_by_content(check: Check, data: bytes) -> None:
    with pytest.raises(UnsafeContentError, match=r"LICENSE: is a (program|script)"):
        check("LICENSE", data + b"\0" * 32)


@pytest.mark.parametrize(
    "document",
    [
        {"auto_map": {"AutoModel": "modeling.X"}},
        {"a": [{"b": {"trust_remote_code": False}}]},
        {"_attn_implementation": "eager"},
        {"_attn_implementation_autoset": True},
        {"auto_map": None},
    ],
)
@pytest.mark.parametrize("path", ["config.json", "deep/other.json"])
def test_88_keys_that_make_a_loader_run_code(
    check: Check, path: str, document: dict[str, object]
) -> None:
    with pytest.raises(UnsafeContentError, match="makes a loader run other code") as caught:
        check(path, json.dumps(document).encode())
    assert caught.value.exit_code == 17


def test_88_key_hidden_behind_an_escape(check: Check) -> None:
    with pytest.raises(UnsafeContentError, match="auto_map"):
        check("config.json", b'{"auto\\u005fmap": "x"}')


def test_91_requirements_name_packages_to_install() -> None:
    with pytest.raises(UnsafeContentError, match="packages to install"):
        check_names(["requirements.txt"])


@pytest.mark.parametrize(
    ("path", "data"),
    [
        ("config.json", b"{"),
        ("config.json", b"\xff\xfe{\0}\0"),
        ("config.json", b'\xef\xbb\xbf{"a": 1}'),
        ("config.json", b'{"a": 1, "a": 2}'),
        ("config.json", b'{"a": ' + b"[" * 100_000),
        ("config.json", b""),
        ("merges.txt", b"\xff"),
        ("README.md", b"a\x1b[2J"),
        ("README.md", b"a\x00"),
        ("tokenizer.model", b""),
        ("tokenizer.model", b"text, not a protobuf"),
        ("tokenizer.model", SENTENCEPIECE + b"\x0a\xff\xff\xff\xff\xff\xff"),
        ("tokenizer.model", SENTENCEPIECE + b"\x0a\x05a"),
        ("tokenizer.model", b"\x12\x00"),
        ("weights.bin.safetensors.xyz", WEIGHTS),
        ("picture.png", b"\x89PNG"),
        ("LICENSE.pdf.exe", b"x"),
    ],
)
def test_file_that_is_not_what_its_name_says(check: Check, path: str, data: bytes) -> None:
    with pytest.raises(UnsafeContentError, match=path.replace(".", r"\.")):
        check(path, data)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0" * 8,
        (2**63).to_bytes(8, "little") + b"{}",
        WEIGHTS[:-1],
        WEIGHTS + b"\0",
        WEIGHTS + archive(),
    ],
)
def test_safetensors_that_are_not_whole(check: Check, data: bytes) -> None:
    with pytest.raises((UnsafeContentError, IntegrityError), match=r"model\.safetensors"):
        check("model.safetensors", data)


@pytest.mark.parametrize(
    "path",
    [
        "../a.json", "/etc/a.json", "C:/a.json", "a\\b.json", "a\0.json", "a\n.json",
        "a\x1b.json", "\u202ea.json", "-rf.json", "a./b.json", "a /b.json", "con.json",
        "a:b.json", "x" * 256 + ".json", ".git/a.json", ".hidden.json", "a//b.json", "",
    ],
)  # fmt: skip
def test_34_to_47_path_that_means_something_else_elsewhere(path: str) -> None:
    with pytest.raises(UnsafeContentError):
        check_names([path])


@pytest.mark.parametrize(
    "paths",
    [
        ("config.json", "Config.json"),
        ("caf\u00e9.json", "cafe\u0301.json"),
        ("LICENSE", "LICENSE/a.json"),
    ],
)
def test_43_to_46_paths_that_are_one_on_some_hosts(paths: tuple[str, str]) -> None:
    with pytest.raises(UnsafeContentError):
        check_names(paths)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    data=st.binary(max_size=300),
    path=st.sampled_from(["a.safetensors", "a.json", "a.txt", "tokenizer.model"]),
)
def test_any_bytes_pass_or_are_refused_by_name(check: Check, data: bytes, path: str) -> None:
    assert refusal(check, path, data).startswith(path)


def refusal(check: Check, path: str, data: bytes) -> str:
    try:
        check(path, data)
    except AirpackError as error:
        return error.message
    return path
