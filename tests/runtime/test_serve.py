from __future__ import annotations

import http.client
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.sandbox import no_network

from packager.errors import HostError
from packager.runtime import door
from packager.runtime.serve import SLOTS, serve

SERVE = """
import sys
from pathlib import Path
from packager.runtime.serve import serve
with serve(Path(sys.argv[1]), port=0) as service:
    print(service.url, flush=True)
    service.wait(lambda error: print(error, flush=True))
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


@pytest.mark.parametrize(
    ("route", "body"),
    [
        ("/props", None),
        ("/slots", None),
        ("/metrics", None),
        ("/lora-adapters", None),
        ("/lora-adapters", []),
        ("/tokenize", {"content": "the"}),
        ("/health", {}),
        ("/v1/completions", None),
    ],
)
def test_what_no_client_of_openai_asks_for_is_not_there(
    random_model: Path, route: str, body: object
) -> None:
    with serve(random_model, port=0) as service:
        status, answer = ask(service.url, route, body)
    assert status == 404
    assert "is not served here" in answer["error"]["message"]  # type: ignore[index]


def test_a_connection_brings_one_request_so_that_none_is_smuggled_behind_it(
    random_model: Path,
) -> None:
    with serve(random_model, port=0) as service, connected(service.url) as client:
        client.sendall(
            b"GET /health HTTP/1.1\r\nHost: here\r\nConnection: keep-alive\r\n\r\n"
            b"GET /props HTTP/1.1\r\nHost: here\r\n\r\n"
        )
        answer = b"".join(iter(lambda: client.recv(4096), b""))
    assert answer.count(b"HTTP/1.1 ") == 1
    assert b"Connection: close" in answer


def test_the_engine_that_is_served_has_no_network_and_the_door_lets_clients_in(
    random_model: Path,
) -> None:
    with serve(random_model, port=0) as service:
        assert ask(service.url, "/health")[0] == 200
        assert service.egress.namespace == bool(no_network())
        assert service.egress.attempts == ()


def test_the_example_is_a_command_that_works(random_model: Path) -> None:
    with serve(random_model, port=0) as service:
        curl, url, *_, data = shlex.split(service.example)
        status, answer = ask(service.url, url.removeprefix(service.url), json.loads(data))
    assert curl == "curl"
    assert status == 200
    assert answer["choices"]


def test_the_example_for_a_host_without_curl_works_as_it_stands(random_model: Path) -> None:
    with serve(random_model, port=0) as service:
        command = shlex.split(service.example_without_curl)
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["choices"]


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


def test_a_host_whose_loopback_is_down_is_told_so(random_model: Path) -> None:
    command = [*no_network(), sys.executable, "-c", SERVE, str(random_model)]
    if command[0] == sys.executable:
        pytest.skip("this kernel gives no network namespace")
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 1
    assert "HostError: cannot listen on 127.0.0.1 port 0: network is unreachable" in done.stderr


def test_the_address_is_free_again_afterwards(random_model: Path) -> None:
    with serve(random_model, port=0) as service:
        port = int(service.url.rpartition(":")[2])
    with serve(random_model, port=port) as again:
        assert again.url.endswith(f":{port}")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_stops_the_service_cleanly(
    random_model: Path, tmp_path: Path, number: int
) -> None:
    command = [sys.executable, "-c", SERVE, str(random_model)]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        assert ask(url, "/health")[0] == 200
        process.send_signal(number)
        assert process.communicate(timeout=20)[0] == "stopped\n"
    assert process.returncode == 0
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ConnectionRefusedError):
        ask(url, "/health")


def test_a_signal_while_it_loads_leaves_nothing(random_model: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", SERVE, str(random_model)]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        while not any(tmp_path.iterdir()):
            time.sleep(0.01)
        process.terminate()
        assert process.communicate(timeout=20)[1].endswith("_StopRequested\n")
    assert list(tmp_path.iterdir()) == []


def test_under_nohup_it_outlives_the_terminal(random_model: Path) -> None:
    with serving(random_model, "nohup") as (url, _, hang_up):
        hang_up(signal.SIGHUP)
        assert ask(url, "/health")[0] == 200


def test_a_request_that_dribbles_in_is_let_go(
    random_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(door, "_HEAD_SECONDS", 0.5)
    gone = pytest.raises((BrokenPipeError, ConnectionResetError))
    with serve(random_model, port=0) as service, connected(service.url) as client, gone:
        dribble(client)


def test_an_engine_that_a_request_kills_is_replaced(random_model: Path) -> None:
    """By a grammar nested so deeply that llama.cpp's parser runs out of stack."""
    depth = 200_000
    grammar = f'root ::= {"(" * depth}"a"{")" * depth}'
    with serving(random_model) as (url, said, _):
        with pytest.raises(http.client.RemoteDisconnected):
            ask(url, "/v1/completions", {"prompt": "the", "max_tokens": 1, "grammar": grammar})
        assert "stopped by signal 11" in said()
        assert is_soon_there(url)


def test_it_outlives_clients_that_leave_in_mid_answer(random_model: Path) -> None:
    request = {"prompt": "the", "max_tokens": 100_000, "stream": True}
    with serve(random_model, port=0) as service:
        for _ in range(2 * SLOTS):
            leaving = begin(service.url, request)
            assert leaving.recv(64)
            leaving.close()
        status, _ = ask(service.url, "/v1/completions", {"prompt": "the", "max_tokens": 1})
    assert status == 200


def test_twenty_clients_at_once_are_all_answered(random_model: Path) -> None:
    request = {"prompt": "the", "max_tokens": 8}
    with serve(random_model, port=0) as service, ThreadPoolExecutor(20) as clients:
        asking = [clients.submit(ask, service.url, "/v1/completions", request) for _ in range(20)]
        statuses = [answer.result()[0] for answer in asking]
    assert statuses == [200] * 20


@pytest.mark.parametrize(
    "garbage",
    [
        b"\0" * 1000,
        b"A" * 200_000,
        b"POST /v1/completions HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n",
        b"POST /v1/completions HTTP/1.1\r\nContent-Length: 9\r\n\r\n[[[[[[[[[",
    ],
    ids=["zeros", "a line without end", "more than comes", "no JSON"],
)
def test_it_outlives_garbage(random_model: Path, garbage: bytes) -> None:
    with serve(random_model, port=0) as service:
        with connected(service.url) as client:
            client.sendall(garbage)
        assert ask(service.url, "/health")[0] == 200


def connected(url: str) -> socket.socket:
    host, port = url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=30)


def begin(url: str, body: object) -> socket.socket:
    """A client that has asked, and reads no answer yet."""
    data = json.dumps(body).encode()
    head = f"POST /v1/completions HTTP/1.1\r\nHost: here\r\nContent-Length: {len(data)}\r\n\r\n"
    client = connected(url)
    client.sendall(head.encode() + data)
    return client


def dribble(client: socket.socket) -> None:
    """Send a byte of a request now and then, for longer than anybody should have to wait."""
    for _ in range(400):
        client.sendall(b"G")
        time.sleep(0.05)


def is_soon_there(url: str) -> bool:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if ask(url, "/health")[0] == 200:
            return True
        time.sleep(0.05)
    return False


@contextmanager
def serving(
    model: Path, *before: str
) -> Iterator[tuple[str, Callable[[], str], Callable[[int], None]]]:
    """A service in a process of its own: its URL, the next line that it says, how to signal it."""
    command = [*before, sys.executable, "-c", SERVE, str(model)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip(), process.stdout.readline, process.send_signal
        finally:
            process.terminate()
