"""The environment of the engine's process: told to stay offline, given nothing it can use.

It starts from a short list of variables, not from the caller's environment: no proxy, token,
endpoint or engine option of the caller's shell reaches the engine.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path

ENGINE = "xllamacpp"  # the distribution that is llama.cpp, and the module

_KEPT = ("LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES",
         "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES")  # fmt: skip

_OFFLINE = {
    "DO_NOT_TRACK": "1",
    "GGML_NO_BACKTRACE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "HF_EVALUATE_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_OFFLINE": "1",
    "LLAMA_ARG_OFFLINE": "1",
    "LLAMA_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "no_proxy": "*",
}

# Waiting threads sleep instead of spinning: with another program on the same cores, spinning
# was measured to slow a small model from 800 tokens a second to 3.
_THREADS = {"OMP_WAIT_POLICY": "passive"}

_START = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from importlib import import_module; import_module(sys.argv[2]).main()"
)


def worker_command(module: str) -> list[str]:
    """How the engine's process is started: this interpreter, isolated, with this module path.

    It runs ``main`` of ``module``.
    """
    path = [str(Path(entry).absolute()) for entry in sys.path]
    return [sys.executable, "-I", "-c", _START, json.dumps(path), module]


def worker_environment(
    inherited: Mapping[str, str], *, prefix: Path, libraries: Path | None
) -> dict[str, str]:
    """The variables of the engine's process.

    ``libraries`` is a directory with the carried ``libgomp.so.1``, if not
    ``prefix``/lib/airpack; it is searched before the system's own.
    """
    environment = {key: inherited[key] for key in _KEPT if key in inherited}
    environment |= _OFFLINE | _THREADS
    carried = libraries or prefix / "lib" / "airpack"
    if carried.is_dir():
        search = (str(carried.absolute()), environment.get("LD_LIBRARY_PATH", ""))
        environment["LD_LIBRARY_PATH"] = os.pathsep.join(filter(None, search))
    return environment
