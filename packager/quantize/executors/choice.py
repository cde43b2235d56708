"""Executors by the names that a person gives them."""

from __future__ import annotations

from importlib.util import find_spec

from packager.errors import HostError, UsageError
from packager.quantize.executors.job import Executor

DASK = "dask:"


def find_executor(text: str) -> Executor:
    """The executor that ``text`` names, ``dask:ADDRESS``, which answers.

    Raises ``UsageError`` for what names none, ``HostError`` where it cannot be reached or dask is
    not installed.
    """
    if not text.startswith(DASK) or text == DASK:
        raise UsageError(f"{text!a} is no executor", hint="--executor dask:tcp://HOST:8786")
    if find_spec("distributed") is None:
        raise HostError("dask is not installed here", hint="pip install 'airpack[cluster]'")
    # Only here: it takes a second, and most builds do without.
    from packager.quantize.executors.dask import Dask

    executor = Dask(text.removeprefix(DASK))
    executor.check()
    return executor
