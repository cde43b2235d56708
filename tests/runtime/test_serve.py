from __future__ import annotations

import http.client
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from packager.errors import EngineError, HostError
from packager.runtime.serve import serve

SERVE = """
import sys
from pathlib import Path
from packager.runtime.serve import serve
with serve(Path(sys.argv[1]), port=0) as service:
    print(service.url, flush=True)
    service.wait()
print("stopped", flush=True)
"""


def ask(url: str, route: str, body: object = None) -> tuple[int, dict[str, object]]:
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=30)
    connection.request(
        "GET" if body is None else "POST",
        route,
        None if body is None else json.dumps(body),
        {"Content-Type": "application/json", "Origin": "http://elsewhere.example"},
    )
    response = connection.getresponse()
    assert not response.headers["Access-Control-Allow-Origin"]
    answer: dict[str, object] = json.loads(response.read())
    connection.close()
    return response.status, answer


def test_the_openai_routes_answer(chat_model: Path) -> None:
    with serve(chat_model, port=0, name="chat") as service:
        assert service.url.startswith("http://127.0.0.1:")
        _, models = ask(service.url, "/v1/models")
        _, completion = ask(service.url, "/v1/completions", {"prompt": "the", "max_tokens": 4})
        messages = [{"role": "user", "content": "the"}]
        _, chat = ask(service.url, "/v1/chat/completions", {"messages": messages, "max_tokens": 4})
        status, _ = ask(service.url, "/")
    assert [model["id"] for model in models["data"]] == ["chat"]  # type: ignore[index, attr-defined]
    assert completion["object"] == "text_completion"
    assert chat["object"] == "chat.completion"
    assert chat["choices"][0]["message"]["content"]  # type: ignore[index]
    assert status == 404


def test_the_example_is_a_command_that_works(random_model: Path) -> None:
    with serve(random_model, port=0) as service:
        curl, url, *_, data = shlex.split(service.example)
        status, answer = ask(service.url, url.removeprefix(service.url), json.loads(data))
    assert curl == "curl"
    assert status == 200
    assert answer["choices"]


def test_a_port_in_use_is_named(random_model: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with (
            pytest.raises(HostError, match=f"port {port}: address already in use") as refused,
            serve(random_model, port=port),
        ):
            pass
    assert refused.value.hint


def test_an_address_of_another_host_is_refused(random_model: Path) -> None:
    with pytest.raises(HostError, match=r"192\.0\.2\.1"), serve(random_model, host="192.0.2.1"):
        pass


def test_the_address_is_free_again_afterwards(random_model: Path) -> None:
    with serve(random_model, port=0) as service:
        port = int(service.url.rpartition(":")[2])
    with serve(random_model, port=port) as again:
        assert again.url.endswith(f":{port}")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_the_service_cleanly(random_model: Path, number: int) -> None:
    command = [sys.executable, "-c", SERVE, str(random_model)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        assert ask(url, "/health")[0] == 200
        process.send_signal(number)
        assert process.communicate(timeout=20)[0] == "stopped\n"
    assert process.returncode == 0
    with pytest.raises(ConnectionRefusedError):
        ask(url, "/health")


def test_a_server_that_dies_ends_the_wait_with_an_error(random_model: Path) -> None:
    with serve(random_model, port=0) as service:
        pid = service._engine.pid
        killer = threading.Timer(0.2, os.kill, (pid, signal.SIGKILL))
        killer.start()
        with pytest.raises(EngineError, match="stopped by signal 9"):
            service.wait()
        killer.join()
