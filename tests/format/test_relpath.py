"""Paths: one meaning on every host, or refused."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path, PurePosixPath, PureWindowsPath

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from packager.errors import UnsafeContentError
from packager.format.relpath import (
    MAX_COMPONENT_BYTES,
    MAX_COMPONENTS,
    MAX_PATH_BYTES,
    check_distinct,
    check_medium_name,
    check_relpath,
    is_bare_name,
)

UNSAFE = {
    "34": ["..", "../x", "a/../b", "a/..", "./a", ".", "a//b", "a/", "\uff0e\uff0e/x", "\u2025/b"],
    "35": ["/", "/etc/passwd", "//host/share"],
    "36": ["C:/x", "c:x", "C:", "\\\\host\\share", "\\\\?\\C:\\x"],
    "37": ["a\\b", "..\\x", "\\"],
    "38": ["a\0b", "\0"],
    "39": ["a\nb", "a\rb", "\x1b[2J", "\x9b2J", "a\u202eb", "\u2066a", "a\u200fb", "a\u2028b",
           "a\u200bb", "\ufeffa", "a\x7fb", "\ud800", "a\u0085"],
    "40": ["-rf", "a/-o", "--help"],
    "41": ["a.", "a ", "a./b", "a /b", " a", "a/ b", "...", "a\u00a0", "\u3000a"],
    "42": ["CON", "con.txt", "a/AUX", "nul.tar.gz", "com1", "LPT9.x", "CONIN$", "con .txt",
           "COM\u00b9", "\uff23\uff2f\uff2e", "a:b", "a?", "a*b", 'a"b', "a<b", "a>b", "a|b"],
    "45": ["x" * (MAX_COMPONENT_BYTES + 1), "é" * 128, "a/" + "x" * 256],
    "47": [".git", "a/.git/config", ".bashrc", "a/.x"],
    "bounds": ["", "a/" * 600 + "a", "a/" * MAX_COMPONENTS + "a", "x/" + "é/" * 10 + "y" * 1100],
    "separators": ["a\uff0fb", "a\uff3cb"],
}  # fmt: skip


@pytest.mark.parametrize("path", [path for paths in UNSAFE.values() for path in paths])
def test_34_to_47_a_path_that_means_something_else_elsewhere_is_refused(path: str) -> None:
    with pytest.raises(UnsafeContentError) as caught:
        check_relpath(path)
    assert caught.value.exit_code == 17
    assert caught.value.message.isprintable()
    assert len(caught.value.message) < 2500
    with pytest.raises(UnsafeContentError):
        check_medium_name(path)
    assert not is_bare_name(path)


@pytest.mark.parametrize(
    "path",
    [
        "a", "models/tiny/original/model-00001-of-00004.safetensors", "a b/c d", "a..b", "a/b.c.d",
        "模型/说明\uff1a使用\uff1f.md", "Größe", "console", "com10", "model™",
        "x" * MAX_COMPONENT_BYTES,
        "/".join(["a"] * MAX_COMPONENTS), "tokenizer.model", "#1", "a=b", "a$b", "a~", "_x",
    ],
)  # fmt: skip
def test_a_plain_path_is_returned_as_it_is(path: str) -> None:
    assert check_relpath(path) == path


@given(st.text(max_size=40) | st.text("./\\-:a .\0Cconu~\u2025\uff0f", max_size=12))
@example("a" * MAX_PATH_BYTES)
def test_any_text_is_a_path_that_stays_inside_or_is_refused(text: str) -> None:
    try:
        path = check_relpath(text)
    except UnsafeContentError:
        return
    assert path == text
    for form in (path, unicodedata.normalize("NFC", path), unicodedata.normalize("NFKD", path)):
        joined = os.path.normpath(Path("/srv/store") / form)
        assert joined.startswith("/srv/store/")
        assert PurePosixPath(joined).name == PurePosixPath(form).name
        windows = PureWindowsPath("D:/store") / form
        assert windows.drive == "D:"
        assert ".." not in windows.parts
        assert len(windows.parts) == 2 + len(form.split("/"))
    assert len(os.fsencode(path)) <= MAX_PATH_BYTES


@given(st.text(max_size=20))
def test_a_path_that_is_accepted_can_be_made_a_file(
    tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    try:
        path = check_relpath(text)
    except UnsafeContentError:
        return
    file = tmp_path_factory.mktemp("x") / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(b"")
    assert file.is_file()


SAME = [
    pytest.param("a", "a", id="30-twice"),
    pytest.param("model.gguf", "MODEL.gguf", id="43-case"),
    pytest.param("dir/a", "DIR/b", id="43-case-of-a-directory"),
    pytest.param("straße", "STRASSE", id="43-case-folding"),
    pytest.param("é", "e\u0301", id="44-composed-and-not"),
    pytest.param("É", "e\u0301", id="44-and-case"),
    pytest.param("\u01f0", "J\u030c", id="44-no-capital-composed"),
    pytest.param("\u212b", "\u00e5", id="44-angstrom"),
    pytest.param("\u0386\u0345\u0301", "\u03ac\u0345\u0301", id="44-marks-and-case"),
    pytest.param("ß\u0301", "SS\u0301", id="44-mark-on-a-folded-letter"),
    pytest.param("\u1fb4", "\u03b1\u0345\u0301", id="44-order-of-marks"),
    pytest.param("ﬁle", "file", id="44-ligature"),
    pytest.param("a", "a/b", id="46-file-and-directory"),
    pytest.param("A", "a/b", id="46-but-for-case"),
    pytest.param("x/y", "x/y/z/w", id="46-deeper"),
]


@pytest.mark.parametrize(("one", "other"), SAME)
def test_30_43_44_46_paths_that_some_host_takes_for_the_same_are_refused(
    one: str, other: str
) -> None:
    for paths in ((one, other), (other, one), ("first", one, "between", other)):
        with pytest.raises(UnsafeContentError) as caught:
            check_distinct(paths)
        assert (
            ascii(one) in caught.value.message or ascii(one.split("/")[0]) in caught.value.message
        )


@given(st.text(max_size=6), st.sampled_from(["NFC", "NFD", "NFKC", "NFKD"]))
def test_44_no_normal_form_or_case_of_a_name_stands_beside_it(name: str, form: str) -> None:
    plain = name.replace("/", "")
    for other in {unicodedata.normalize(form, plain), plain.casefold()} - {plain}:
        if "/" not in other:
            with pytest.raises(UnsafeContentError):
                check_distinct([plain, other])


def test_many_files_of_one_directory_are_distinct() -> None:
    check_distinct(f"models/tiny/part-{number:05d}" for number in range(3000))
    check_distinct(["a/b", "a/c", "a.b", "ab", "b/a"])


@pytest.mark.parametrize("name", ["a b", "é", "a/b", "a$", "n" * 121, "a\n"])
def test_a_name_on_the_medium_fits_every_medium(name: str) -> None:
    assert check_medium_name("n" * 120) == "n" * 120
    with pytest.raises(UnsafeContentError):
        check_medium_name(name)


@pytest.mark.parametrize("name", ["A", "-a", ".a", "a.", "nul", "a b", "a" * 64, "a/b", "", "a\n"])
def test_a_bare_name_is_lower_case_and_needs_no_quotes(name: str) -> None:
    assert is_bare_name("q4_k_m")
    assert is_bare_name("1.0.0-rc.1")
    assert not is_bare_name(name)
