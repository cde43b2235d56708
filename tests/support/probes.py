"""llama.cpp itself, asked for its numbers by a script in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from packager.runtime.environment import worker_environment


def ask_probe(name: str, request: Mapping[str, object]) -> Any:
    """What the script ``name`` beside this one answers to ``request``."""
    answer = subprocess.run(
        [sys.executable, str(Path(__file__).with_name(name))],
        input=json.dumps(request).encode(),
        stdout=subprocess.PIPE,
        env=worker_environment(os.environ, prefix=Path(sys.prefix), libraries=None),
        check=True,
        timeout=120,
    )
    return json.loads(answer.stdout)


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Log-probabilities of (rows, vocabulary)."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
