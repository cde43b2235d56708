"""Which wheels are asked for, and what is said when pip cannot have them."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from importlib.metadata import requires, version
from pathlib import Path

import pytest
from support.watching import Watching
from support.workplace import PLATFORM, PYTHON

from packager.connected.provisions.carried import Provisions
from packager.connected.provisions.pip_download import Question, download, platform_tags
from packager.connected.provisions.wheels import (
    Wheel,
    collect_wheels,
    requirement_name,
    requirements_text,
    transitive_pins,
    wheel_pins,
)
from packager.errors import AirpackError, UsageError
from packager.format.digest import Digest
from packager.format.target import Target
from packager.progress import Silent

TARGET = Target(PLATFORM, (PYTHON,), "2.28")


@pytest.fixture
def no_index(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An index address at which nobody listens, whatever this host is configured with."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
        monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{port}/simple")
        monkeypatch.setenv("PIP_RETRIES", "1")
        for name in ("PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS"):
            monkeypatch.delenv(name, raising=False)
        yield


@pytest.fixture
def shelf(no_index: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is all of pip's index."""
    folder = tmp_path / "shelf"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def put(shelf: Path, name: str, number: str, *needs: str, python: str = ">=3.8") -> None:
    """A wheel without content on the shelf."""
    info = f"{name}-{number}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {number}\n"
    metadata += f"Requires-Python: {python}\n"
    metadata += "".join(f"Requires-Dist: {need}\n" for need in needs)
    with zipfile.ZipFile(shelf / f"{name}-{number}-py3-none-any.whl", "w") as archive:
        archive.writestr(f"{info}/METADATA", metadata)
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")


def names(paths: list[Path]) -> list[str]:
    return ["-".join(path.name.split("-")[:2]) for path in paths]


@pytest.mark.parametrize(
    ("requirement", "name"),
    [
        ("click>=8.1", "click"),
        ("Zope.Interface ~= 5", "zope-interface"),
        ("a__b.-c; python_version < '3.11'", "a-b-c"),
        ("requests[socks] (>=2)", "requests"),
        ("tool @ https://example.org/tool.whl", "tool"),
        ("  spaced  ", "spaced"),
    ],
)
def test_the_name_of_a_requirement_is_normalised(requirement: str, name: str) -> None:
    assert requirement_name(requirement) == name


@pytest.mark.parametrize(
    ("platform", "glibc", "first", "last", "count"),
    [
        ("linux_x86_64", "2.28", "manylinux_2_28_x86_64", "manylinux1_x86_64", 27),
        ("linux_aarch64", "2.17", "manylinux_2_17_aarch64", "manylinux1_aarch64", 16),
        ("linux_x86_64", "2.5", "manylinux_2_5_x86_64", "manylinux1_x86_64", 2),
    ],
)
def test_platforms_are_those_of_the_glibc_and_older(
    platform: str, glibc: str, first: str, last: str, count: int
) -> None:
    tags = platform_tags(Target(platform, (PYTHON,), glibc))
    assert (tags[0], tags[-1], len(tags)) == (first, last, count)
    assert len(set(tags)) == count


@pytest.mark.parametrize(
    ("platform", "glibc"), [("win_amd64", "2.28"), ("linux_x86_64", "3.0"), ("linux_x86_64", "x")]
)
def test_108_a_target_nobody_makes_wheels_for_is_named(platform: str, glibc: str) -> None:
    with pytest.raises(UsageError, match=f"{platform} with glibc {glibc}"):
        platform_tags(Target(platform, (PYTHON,), glibc))


def test_requirements_name_every_wheel_by_digest_but_pip() -> None:
    digest = Digest.of(b"")
    text = requirements_text([Wheel(Path("w"), name, "1", digest) for name in ("b", "pip", "a")])
    assert text == f"a==1 --hash=sha256:{digest}\nb==1 --hash=sha256:{digest}\n"


def test_pins_are_what_runs_here_and_a_pip_of_its_own() -> None:
    pins = dict(pin.split("==") for pin in wheel_pins())
    direct = {requirement_name(r) for r in requires("airpack") or () if "extra ==" not in r}
    assert pins.keys() == {*direct, "xllamacpp", "pip"}
    assert all(pins[name] == version(name) for name in pins.keys() - {"pip"})


def test_what_the_dependencies_need_is_pinned_too() -> None:
    pins = dict(pin.split("==") for pin in transitive_pins())
    assert pins["cffi"] == version("cffi")
    assert pins["pycparser"] == version("pycparser")
    assert not pins.keys() & {pin.split("==")[0] for pin in wheel_pins()}


def test_index_that_does_not_answer_is_one_sentence(no_index: None, tmp_path: Path) -> None:
    place = tmp_path / "place"
    with pytest.raises(AirpackError) as caught:
        download(Question(TARGET, PYTHON, ("click==8.1.8",), ("x==1",)), place, Silent())

    assert caught.value.exit_code == 1
    assert caught.value.message == (
        f"pip cannot get the wheels for Python {PYTHON}: No matching distribution found for "
        "click==8.1.8; the package index does not answer"
    )
    assert "PIP_INDEX_URL" in (caught.value.hint or "")
    assert list(tmp_path.iterdir()) == []


def test_wheel_that_is_not_on_the_index_is_named(shelf: Path, tmp_path: Path) -> None:
    put(shelf, "tool", "1")
    with pytest.raises(AirpackError, match=r"No matching distribution found for tool==2$"):
        download(Question(TARGET, PYTHON, ("tool==2",)), tmp_path / "place", Silent())
    assert [path.name for path in tmp_path.iterdir()] == ["shelf"]


def test_108_wheel_for_a_newer_python_only_is_refused(shelf: Path, tmp_path: Path) -> None:
    put(shelf, "tool", "1", python=">=3.13")
    with pytest.raises(AirpackError, match=r"Python 3\.10: .*tool"):
        download(Question(TARGET, "3.10", ("tool==1",)), tmp_path / "place", Silent())


def test_python_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"'2\.7'"):
        download(Question(TARGET, "2.7", ("tool",)), tmp_path / "place", Silent())
    assert list(tmp_path.iterdir()) == []


def test_newer_dependency_on_the_index_is_not_taken(shelf: Path, tmp_path: Path) -> None:
    put(shelf, "tool", "1", "part")
    put(shelf, "part", "1")
    question = Question(TARGET, PYTHON, ("tool==1",), ("part==1",))
    download(question, tmp_path / "monday", Silent())
    put(shelf, "part", "2")

    assert names(download(question, tmp_path / "tuesday", Silent())) == ["part-1", "tool-1"]


def test_dependency_that_an_older_python_cannot_have_is_taken_as_it_fits(
    shelf: Path, tmp_path: Path
) -> None:
    put(shelf, "tool", "1", "part")
    put(shelf, "part", "1")
    put(shelf, "part", "2", python=">=3.11")
    watching = Watching()

    question = Question(TARGET, "3.10", ("tool==1",), ("part==2",))
    assert names(download(question, tmp_path / "place", watching)) == ["part-1", "tool-1"]

    assert any("the newest that fit" in note for note in watching.notes)
    watching.notes.clear()
    assert names(download(question, tmp_path / "place", watching)) == ["part-1", "tool-1"]
    assert watching.notes == []


def test_dependency_that_only_the_other_python_has_comes_along(shelf: Path, tmp_path: Path) -> None:
    other = "3.10" if PYTHON != "3.10" else "3.13"
    put(shelf, "tool", "1", f"part; python_version == '{other}'")
    put(shelf, "part", "1", f"piece; python_version == '{other}'")
    put(shelf, "piece", "1")

    found = download(Question(TARGET, other, ("tool==1",)), tmp_path / "place", Silent())
    assert names(found) == ["part-1", "piece-1", "tool-1"]


def test_what_was_downloaded_is_not_asked_for_again(shelf: Path, tmp_path: Path) -> None:
    put(shelf, "tool", "1")
    question = Question(TARGET, PYTHON, ("tool==1",))
    first = download(question, tmp_path / "place", Silent())
    shutil.rmtree(shelf)

    assert download(question, tmp_path / "place", Silent()) == first


@pytest.mark.parametrize("damage", [b"PK damaged", None])
def test_53_wheel_damaged_in_the_cache_is_fetched_again(
    shelf: Path, tmp_path: Path, damage: bytes | None
) -> None:
    put(shelf, "tool", "1")
    question = Question(TARGET, PYTHON, ("tool==1",))
    (wheel,) = download(question, tmp_path / "place", Silent())
    whole = wheel.read_bytes()
    if damage is None:
        wheel.unlink()
    else:
        wheel.write_bytes(damage)
    watching = Watching()

    assert download(question, tmp_path / "place", watching) == [wheel]

    assert wheel.read_bytes() == whole
    assert any("damaged wheels" in note for note in watching.notes)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["place", "shelf"]


def test_one_python_of_several_targets_gets_what_the_oldest_glibc_takes(
    provisions: Provisions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = {path.parent for _, path in provisions.files if path.name.startswith("xllamacpp")}
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder.pop()))
    targets = [Target(PLATFORM, (PYTHON,), glibc) for glibc in ("2.36", "2.28", "2.31")]

    found = collect_wheels(targets, [], tmp_path, Silent())

    assert [python for python, _ in found.requirements] == [PYTHON]
    question = (tmp_path / f"{PLATFORM}-{PYTHON}" / "question.txt").read_text()
    assert question.startswith(f"{PLATFORM} 2.28 {PYTHON}")


def test_109_no_pip_is_said_so(tmp_path: Path) -> None:
    script = (
        "import sys; sys.modules['pip'] = None\n"
        "from pathlib import Path\n"
        "from packager.connected.provisions.pip_download import Question, download\n"
        "from packager.format.target import Target\n"
        "from packager.progress import Silent\n"
        "question = Question(Target('linux_x86_64', ('3.11',), '2.28'), '3.11', ('x',))\n"
        f"download(question, Path({str(tmp_path / 'place')!r}), Silent())\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert "HostError: pip is not installed here" in done.stderr
    assert list(tmp_path.iterdir()) == []
