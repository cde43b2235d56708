"""``--executor``: what is one, and what it needs."""

from __future__ import annotations

import sys

import pytest

from packager.errors import HostError, UsageError
from packager.quantize.executors.choice import find_executor


@pytest.mark.parametrize(
    "text",
    [
        "dask",
        "dask:",
        "spark:tcp://localhost:1",
        "dask:nowhere",
        "dask:tcp://localhost:port",
        "dask:tcp://localhost:0",
        "dask:tcp://localhost:65536",
        "dask:pigeon://localhost:8786",
        "dask:inproc://10.0.0.1/1/1",
        "dask:[::1",
    ],
)
def test_what_is_no_executor_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        find_executor(text)
    assert caught.value.hint == "--executor dask:tcp://HOST:8786"


def test_without_dask_it_is_said_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(HostError) as caught:
        find_executor("dask:tcp://localhost:8786")
    assert caught.value.hint == "pip install 'airpack[cluster]'"
