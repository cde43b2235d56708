from __future__ import annotations

import sys
from datetime import datetime, timezone
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.hosts import in_small_disk

from packager.errors import IntegrityError, MalformedError
from packager.format.receipt import LogHead
from packager.store.journal import (
    MAX_LINE_SIZE,
    append_event,
    log_head,
    read_events,
    verify_log,
)

NOW = datetime(2026, 11, 24, tzinfo=timezone.utc)
EVENTS = 4


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "log.jsonl"
    write_log(path)
    return path


def write_log(path: Path) -> None:
    for number in range(EVENTS):
        append_event(path, "install", {"generation": number}, now=NOW)


def generations(log: Path) -> list[object]:
    return [event.details["generation"] for event in read_events(log)]


def test_events_come_back_in_order(log: Path) -> None:
    assert generations(log) == [0, 1, 2, 3]
    assert read_events(log)[0].what == "install"
    assert read_events(log)[0].time == "2026-11-24T00:00:00Z"


def test_no_log_is_no_event(tmp_path: Path) -> None:
    assert read_events(tmp_path / "none") == ()


@pytest.mark.parametrize(
    ("order", "line"),
    [([1, 0, 2, 3], 1), ([0, 2, 3], 2), ([1, 2, 3], 1), ([0, 1, 1, 2, 3], 3), ([0, 1, 3, 2], 3)],
)
def test_cut_and_reordered_lines_are_found(log: Path, order: list[int], line: int) -> None:
    lines = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(b"".join(lines[number] for number in order))
    with pytest.raises(IntegrityError, match=rf"log\.jsonl: line {line}: .*the log was edited"):
        read_events(log)


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_any_edit_of_a_line_before_the_last_is_found(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    log = tmp_path_factory.mktemp("log") / "log.jsonl"
    write_log(log)
    content = bytearray(log.read_bytes())
    last = content[:-1].rindex(b"\n") + 1
    position = data.draw(st.integers(0, last - 1))
    content[position] ^= data.draw(st.integers(1, 255))
    log.write_bytes(content)
    with pytest.raises(IntegrityError, match=r"log\.jsonl: line \d"):
        read_events(log)


@pytest.mark.parametrize("kept", [1, 40, -1])
def test_102_a_last_line_torn_by_a_crash_is_dropped_by_the_next_append(
    log: Path, kept: int
) -> None:
    lines = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(b"".join(lines[:3]) + lines[3][:kept])
    with pytest.raises(IntegrityError, match="line 4: cut short"):
        read_events(log)
    append_event(log, "gc", {"generation": 9}, now=NOW)
    assert generations(log) == [0, 1, 2, 9]


def test_a_log_of_nothing_but_a_torn_line_starts_anew(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    log.write_bytes(b'{"details":')
    append_event(log, "gc", {"generation": 1}, now=NOW)
    assert generations(log) == [1]


def test_what_no_crash_leaves_is_not_cut_away(log: Path) -> None:
    log.write_bytes(log.read_bytes() + bytes(MAX_LINE_SIZE + 1))
    before = log.read_bytes()
    with pytest.raises(IntegrityError, match=r"log\.jsonl: .*the log was edited"):
        append_event(log, "gc", {}, now=NOW)
    assert log.read_bytes() == before


def test_an_event_too_large_to_be_read_back_is_not_written(log: Path) -> None:
    before = log.read_bytes()
    with pytest.raises(MalformedError, match="the record of gc"):
        append_event(log, "gc", {"text": "x" * MAX_LINE_SIZE}, now=NOW)
    assert log.read_bytes() == before


def test_the_largest_event_is_read_back_and_followed(log: Path) -> None:
    append_event(log, "gc", {"generation": "x" * (MAX_LINE_SIZE - 200)}, now=NOW)
    append_event(log, "gc", {"generation": 5}, now=NOW)
    assert generations(log)[5:] == [5]


def test_99_a_full_disk_leaves_the_log_as_it_was(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from packager.errors import NoSpaceError; "
        "from packager.store.journal import *; from datetime import *; log = Path(sys.argv[1]); "
        "add = lambda: append_event(log, 'e', {'text': 'x' * 5000}, now=datetime.now(timezone.utc))"
        "\ntry:\n while True: add()\nexcept NoSpaceError as e: print(e.message)\n"
        "print(len(read_events(log)) >= 10, log.read_bytes().endswith(b'}\\n'))"
    )
    done = in_small_disk(tmp_path, "64k", f'{sys.executable} - "$PLACE/log" <<"END"\n{code}\nEND\n')
    first, second = done.stdout.splitlines()
    assert first.endswith("log: no space left"), done.stderr
    assert second == "True True"


@pytest.mark.parametrize("left", [0, 1, 3])
def test_a_cut_end_is_found_by_what_stands_beside_the_log(log: Path, left: int) -> None:
    lines = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(b"".join(lines[:left]))
    with pytest.raises(IntegrityError, match=f"cut: {left} events, and log.jsonl.head has seen 4"):
        verify_log(log, {})


def test_an_end_that_was_cut_and_grew_again_is_found(log: Path) -> None:
    lines = log.read_bytes().splitlines(keepends=True)
    head = log.with_name("log.jsonl.head").read_bytes()
    log.write_bytes(b"".join(lines[:3]))
    append_event(log, "gc", {"freed": 1}, now=NOW)
    log.with_name("log.jsonl.head").write_bytes(head)
    with pytest.raises(IntegrityError, match="line 4 is not the one"):
        verify_log(log, {})


def test_a_receipt_remembers_where_the_log_stood(log: Path) -> None:
    head = log_head(log)
    append_event(log, "rollback", {}, now=NOW)
    assert len(verify_log(log, {"the receipt": head})) == 5

    other = LogHead(4, log_head(log).digest)
    with pytest.raises(IntegrityError, match="not the one that the receipt has seen"):
        verify_log(log, {"the receipt": other})


def test_102_a_crash_between_the_line_and_its_head_is_no_fault(log: Path) -> None:
    head = log.with_name("log.jsonl.head").read_bytes()
    append_event(log, "rollback", {}, now=NOW)
    log.with_name("log.jsonl.head").write_bytes(head)
    assert len(verify_log(log, {})) == 5


def test_a_log_without_its_head_is_not_vouched_for(log: Path) -> None:
    log.with_name("log.jsonl.head").unlink()
    with pytest.raises(IntegrityError, match="missing"):
        verify_log(log, {})
