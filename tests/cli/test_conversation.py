from __future__ import annotations

import json
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from support.terminals import Terminal, terminal

from .conftest import AIRPACK, Host

UP = "\x1b[A"
BLANK_LINE = "\x15"  # Ctrl-U


def history(host: Host) -> Path:
    return host.state / "airpack" / "history"


def kept(host: Host) -> list[str]:
    file = history(host)
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


@contextmanager
def talk(host: Host, *words: str) -> Iterator[Terminal]:
    command = [*AIRPACK, "run", "demo", "--max-tokens", "4", *words]
    with terminal(command, host.environment, kind="xterm") as talking:
        talking.wait_for("> ")
        yield talking
        talking.press("\x04")
        assert talking.end() == 0


def ask(talking: Terminal, keys: str, last_line: str) -> None:
    talking.press(f"{keys}\r")
    talking.wait_for(last_line)
    talking.wait_for("> ")


def test_a_backslash_and_a_paste_make_one_question_of_several_lines(installed: Host) -> None:
    with talk(installed) as talking:
        talking.press("In the\\\r")
        talking.wait_for("... ")
        ask(talking, "beginning", "beginning")
        ask(talking, "\x1b[200~And it\ncame to\npass\x1b[201~", "pass")
    assert kept(installed) == ["In the\nbeginning", "And it\ncame to\npass"]


def test_the_up_key_brings_back_what_was_asked_in_an_earlier_conversation(installed: Host) -> None:
    with talk(installed) as talking:
        ask(talking, "In the beginning", "beginning")
    with talk(installed) as talking:
        talking.press(UP)
        talking.wait_for("In the beginning")
        ask(talking, "", "\r\n")
    assert kept(installed) == ["In the beginning"] * 2
    assert stat.S_IMODE(history(installed).stat().st_mode) == 0o600


def test_what_begins_with_a_space_or_is_asked_without_history_is_not_kept(installed: Host) -> None:
    with talk(installed) as talking:
        ask(talking, " In secret", "secret")
    with talk(installed, "--no-history") as talking:
        ask(talking, "In the beginning", "beginning")
    assert kept(installed) == []


def test_a_history_that_cannot_be_read_or_written_is_no_matter(installed: Host) -> None:
    history(installed).mkdir(parents=True)
    with talk(installed) as talking:
        ask(talking, "In the beginning", "beginning")
    assert "error" not in talking.seen


def test_help_and_new_are_no_questions_nor_is_a_command_that_is_not_there(installed: Host) -> None:
    with talk(installed) as talking:
        ask(talking, "/help", "Ctrl-D ends")
        ask(talking, "/new", "a new conversation")
        ask(talking, "/nwe", "there is no /nwe")
    assert kept(installed) == []


def test_bye_ends_it(installed: Host) -> None:
    command = [*AIRPACK, "run", "demo"]
    with terminal(command, installed.environment, kind="xterm") as talking:
        talking.wait_for("> ")
        talking.press("/bye\r")
        assert talking.end() == 0
    assert kept(installed) == []


def test_a_question_too_long_for_the_model_does_not_end_the_conversation(installed: Host) -> None:
    with talk(installed) as talking:
        ask(talking, f"\x1b[200~{'x' * 9000}\x1b[201~", "/new begins another")
        ask(talking, "In the beginning", "beginning")
    assert "Traceback" not in talking.seen


def test_an_answer_that_was_cut_short_says_so(installed: Host) -> None:
    with talk(installed) as talking:
        ask(talking, "In the beginning", "cut short: at 4 tokens")


def test_a_question_that_is_dropped_half_way_is_not_asked(installed: Host) -> None:
    with talk(installed) as talking:
        talking.press("In the\\\r")
        talking.wait_for("... ")
        talking.press("\x03")
        talking.wait_for("once more")
        talking.wait_for("> ")
        ask(talking, "And it came", "came")
    assert kept(installed) == ["And it came"]


def test_a_question_in_letters_that_the_locale_lacks_does_not_end_the_conversation(
    installed: Host,
) -> None:
    installed.extra["LC_ALL"] = "C"
    with talk(installed) as talking:
        ask(talking, "Gr\u00fc\u00dfe", "\r\n")
    with talk(installed) as talking:
        ask(talking, "again", "again")
    assert len(kept(installed)) == 2
