"""Run in a process of its own: what memory llama.cpp says it takes for a GGUF file.

Arguments: the file, the context in tokens. Standard output gets JSON {"cache", "buffers"}: bytes,
from the engine's own log, which gives MiB with two decimals.
"""

from __future__ import annotations

import json
import os
import re
import sys
import tempfile
import time
from pathlib import Path
from typing import IO

import xllamacpp

from packager.runtime.llama import Opening, engine_parameters
from packager.runtime.model_file import read_model_file

MIB = 1 << 20


def main() -> None:
    model, context = sys.argv[1], int(sys.argv[2])
    answers = os.dup(1)
    with tempfile.TemporaryFile() as log:
        for stream in (1, 2):
            os.dup2(log.fileno(), stream)
        server = open_model(model, context)
        text = read_at_rest(log)
    # The engine looks first without allocating anything, so the last word of each kind counts.
    caches = re.findall(r"llama_kv_cache: size =\s*([\d.]+) MiB", text)
    buffers = re.findall(r"compute buffer size =\s*([\d.]+) MiB", text)
    cache = sum(map(float, caches[len(caches) // 2 :])) if caches else 0.0
    with os.fdopen(answers, "w") as out:
        json.dump({"cache": cache * MIB, "buffers": float(buffers[-1]) * MIB}, out)
        out.flush()
    # The engine's threads end with the process; its own shutdown takes a second.
    assert server
    os._exit(0)


def read_at_rest(log: IO[bytes]) -> str:
    """What is in ``log`` when nothing has come for a while: a thread of the engine writes it."""
    size = -1
    while size < (size := os.fstat(log.fileno()).st_size):
        time.sleep(0.3)
    log.seek(0)
    return log.read().decode("utf-8", "replace")


def open_model(model: str, context: int) -> xllamacpp.Server:
    opening = Opening(
        model=model,
        name="probed",
        context=context,
        threads=1,
        measuring=False,
        private=False,
        host="127.0.0.1",
        port=0,
        slots=1,
        embedding=read_model_file(Path(model)).makes_vectors,
    )
    params = engine_parameters(xllamacpp, opening, "")
    params.verbosity = 10
    return xllamacpp.Server(params)


main()
