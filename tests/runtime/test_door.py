from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from packager.runtime.door import ROUTES, judge_head

TOKENS = st.text("abcXYZ-09", min_size=1, max_size=12)
VALUES = st.text("ab :;,=/é\t", max_size=20)


@given(st.sampled_from(sorted(ROUTES)), st.lists(st.tuples(TOKENS, VALUES), max_size=5))
def test_a_request_that_is_let_in_is_passed_on_as_it_is_but_for_its_connection(
    route: tuple[str, str], fields: list[tuple[str, str]]
) -> None:
    lines = [" ".join([*route, "HTTP/1.1"]), *(f"{name}:{value}" for name, value in fields)]
    persistent = [*lines, "Connection: keep-alive", "cOnNeCtIoN: upgrade"]
    head = "\r\n".join([*lines, "Connection: close", "", ""]).encode("latin-1")
    kept = [f for f in head.split(b"\r\n") if f]
    assert judge_head("\r\n".join([*persistent, "", ""]).encode("latin-1")) == (
        b"\r\n".join([*kept, b"", b""])
    )


@pytest.mark.parametrize(
    "head",
    [
        b"GET /health\r\n\r\n",
        b"get /health HTTP/1.1\r\n\r\n",
        b"GET  /health HTTP/1.1\r\n\r\n",
        b"GET /health HTTP/2.0\r\n\r\n",
        b"GET http://127.0.0.1/health HTTP/1.1\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: a\nConnection: keep-alive\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n",
        b"GET /health HTTP/1.1\r\nTransfer-Encoding : chunked\r\n\r\n",
        b"GET /health HTTP/1.1\r\nno field\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: a\0b\r\n\r\n",
        b"\x16\x03\x01\x02\r\n\r\n",
        b"\r\n\r\n",
    ],
)
def test_what_two_servers_could_read_differently_is_refused(head: bytes) -> None:
    judged = judge_head(head)
    assert isinstance(judged, tuple)
    assert judged[0] == 400


@pytest.mark.parametrize(
    "request_line",
    ["GET /props", "POST /lora-adapters", "POST /health", "GET //health", "GET /v1/../props",
     "GET /%68ealth", "GET /health/", "OPTIONS /v1/models"],
)  # fmt: skip
def test_what_is_not_on_the_list_is_not_there(request_line: str) -> None:
    judged = judge_head(f"{request_line} HTTP/1.1\r\n\r\n".encode())
    assert isinstance(judged, tuple)
    assert judged[0] == 404


def test_a_question_behind_the_path_is_passed_on() -> None:
    assert b"/v1/models?limit=1 " in judge_head(b"GET /v1/models?limit=1 HTTP/1.1\r\n\r\n")
