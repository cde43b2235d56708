from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from support.terminals import PATIENCE, Terminal
from support.terminals import terminal as a_terminal

from .conftest import AIRPACK, Host

PROMPT = "In the beginning"
ANSWER = " of the word of the LORD"


def terminal(host: Host, *words: str) -> AbstractContextManager[Terminal]:
    return a_terminal([*AIRPACK, *words], host.environment)


def test_a_prompt_is_answered_and_piped_the_same(installed: Host) -> None:
    argument = installed.airpack("run", "demo", PROMPT, "--max-tokens", "24")
    piped = installed.airpack("run", "demo", "--max-tokens", "24", stdin=f"{PROMPT}\n")
    assert argument.code == piped.code == 0
    assert argument.out == piped.out
    assert argument.out.startswith(ANSWER)
    assert argument.err == ""


def test_an_answer_as_json(installed: Host) -> None:
    document = installed.airpack("run", "demo", PROMPT, "--max-tokens", "8", "--json").document
    assert document["answer"].startswith(ANSWER[:10])
    assert {key: document[key] for key in ("ok", "name", "variant", "prompt")} == {
        "ok": True, "name": "demo", "variant": "q4_k_m", "prompt": PROMPT,
    }  # fmt: skip


def test_a_conversation_outlives_ctrl_c_and_ends_with_ctrl_d(installed: Host) -> None:
    with terminal(installed, "run", "demo", "--max-tokens", "3000") as person:
        person.wait_for("> ")
        person.press(f"{PROMPT}\n")
        person.wait_for(f"{PROMPT}\r\n")
        person.wait_for(" ")  # between two words of the answer
        os.write(person.screen, b"\x03")
        person.wait_for("> ")
        person.press("And it came to pass\n")
        person.wait_for("pass\r\n")
        person.wait_for("> ")
        person.press("\x04")
        assert person.end() == 0
    assert "Traceback" not in person.seen


def test_ctrl_c_at_the_prompt_ends_the_conversation_when_it_is_meant(installed: Host) -> None:
    with terminal(installed, "run", "demo") as person:
        person.wait_for("> ")
        person.press("\x03")
        person.wait_for("Ctrl-C once more")
        person.wait_for("> ")
        person.press("\x03")
        assert person.end() == 130
    assert person.seen.endswith("cancelled\r\n")


@pytest.mark.parametrize(("answer", "code", "left"), [("y\n", 0, 0), ("n\n", 130, 2)])
def test_uninstall_asks_a_person(installed: Host, answer: str, code: int, left: int) -> None:
    with terminal(installed, "uninstall", "demo") as person:
        person.wait_for("Take away every generation of demo? [y/N]")
        person.press(answer)
        assert person.end() == code
    assert len(installed.airpack("list", "--json").document) == left


@pytest.mark.parametrize(("extra", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False)])
def test_errors_are_coloured_on_a_terminal_unless_no_color(
    tmp_path: Path, extra: dict[str, str], coloured: bool
) -> None:
    with terminal(Host(tmp_path, extra), "nonsense") as person:
        assert person.end() == 2
    assert ("\x1b[" in person.seen) is coloured


def test_the_service_prints_its_url_answers_and_ends_on_sigterm(installed: Host) -> None:
    command = [*AIRPACK, "serve", "demo", "--port", "0", "--json"]
    with subprocess.Popen(
        command, env=installed.environment, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        lines = []
        while lines[-1:] != ["}\n"]:
            lines.append(process.stdout.readline())
        url = json.loads("".join(lines))["url"]
        connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=PATIENCE)
        body = json.dumps({"prompt": PROMPT, "max_tokens": 8, "temperature": 0})
        connection.request("POST", "/v1/completions", body, {"Content-Type": "application/json"})
        answer = json.loads(connection.getresponse().read())
        connection.close()
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=PATIENCE) == 0
    assert answer["choices"][0]["text"].startswith(ANSWER[:10])
    assert answer["model"] == "demo"


def test_a_port_in_use_is_one_error(installed: Host) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = installed.airpack("serve", "demo", "--port", str(port))
    assert done.code == 1
    assert done.out == ""
    assert f"error: cannot listen on 127.0.0.1 port {port}: address already in use\n" in done.err
