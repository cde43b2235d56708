"""Be told of every tensor that the engine computes, through ggml's own callback.

llama.cpp sets the scheduler's evaluation callback before each graph, to none unless its caller
asked for one, and the Python binding cannot ask. So the call itself is redirected, and sets ours.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from packager.connected.variants.observe.elf import find_slot, redirect
from packager.connected.variants.observe.tensors import Tensors

_SETTER = "ggml_backend_sched_set_eval_callback"
_EVALUATE = ctypes.CFUNCTYPE(ctypes.c_bool, ctypes.c_void_p, ctypes.c_bool, ctypes.c_void_p)
_SET = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)

Wants = Callable[[Tensors, int], bool]
Takes = Callable[[Tensors, int], None]


@dataclass
class Watch:
    """What is watched for at the moment, and the first error met while looking.

    ``wants`` says of a tensor about to be computed whether ``takes`` is to see it afterwards.
    """

    wants: Wants | None = None
    takes: Takes | None = None
    error: Exception | None = None


def watch_engine(path: Path) -> Watch:
    """Begin to watch the engine whose shared object, loaded by now, is ``path``.

    To be called once in a process, after the model is open: until then the interpreter's lock
    is held and a callback would wait for it forever. Raises ``EngineError``.
    """
    library = ctypes.CDLL(str(path))
    tensors = Tensors(library)
    tensors.declare()
    watch = Watch()
    original = getattr(library, _SETTER)
    original.argtypes, original.restype = (ctypes.c_void_p,) * 3, None

    def evaluate(tensor: int, ask: bool, _data: int | None) -> bool:
        if watch.error or watch.wants is None or watch.takes is None:
            return not ask
        try:
            if ask:
                return watch.wants(tensors, tensor)
            tensors.check_layout(tensor)
            watch.takes(tensors, tensor)
        except Exception as error:  # noqa: BLE001  # C++ cannot be shown it; the asker will be
            watch.error = error
        return True

    callback = _EVALUATE(evaluate)

    def set_ours(scheduler: int, _theirs: int | None, _data: int | None) -> None:
        original(scheduler, callback, None)

    setter = _SET(set_ours)
    _FOREVER.extend((callback, setter))
    target = ctypes.cast(setter, ctypes.c_void_p).value or 0
    redirect(library, find_slot(path, _SETTER), _SETTER, target)
    return watch


# The engine keeps their addresses, which the collector of garbage does not know of.
_FOREVER: list[object] = []
