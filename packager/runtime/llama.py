"""llama.cpp through xllamacpp. Used in the worker's process alone, and imported nowhere else.

``Server`` opens the routes of llama-server on loopback and takes completions directly. Only
its plain parameters and its JSON are used: they are documented and stay.
"""

from __future__ import annotations

import errno
import hashlib
import http.client
import json
import math
import secrets
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from packager.format.golden import LEAST_LOGPROB, MICRONATS
from packager.runtime.environment import ENGINE

_ROUTE_TIMEOUT = 24 * 3600.0  # the parent keeps the time
_READ_SIZE = 1 << 20
# Enough to outweigh any logit, so that the engine "chooses" the token whose logprob is wanted.
_CERTAIN = 1000
# The likeliest token, whatever samplers the model's own metadata asks for.
_GREEDY = {
    "temperature": 0,
    "top_k": 1,
    "repeat_penalty": 1,
    "presence_penalty": 0,
    "frequency_penalty": 0,
    "dry_multiplier": 0,
    "xtc_probability": 0,
    "mirostat": 0,
    "seed": 0,
}


class RefusedError(Exception):
    """The engine said no, in a sentence. ``kind`` is its own word for why, if it has one."""

    def __init__(self, message: str, kind: str = "") -> None:
        super().__init__(message)
        self.kind = kind


@dataclass(frozen=True)
class Opening:
    """How to open a model. ``context`` in tokens, shared by ``slots`` requests at once.

    ``measuring`` gives up speed for answers that are the same each time. ``host`` and ``port``
    are where the HTTP routes listen; port 0 is any free one, and a host that ends in ``.sock``
    the path of a Unix socket. ``private`` keeps other users of the host off them; ``name`` is
    what they call the model. ``embedding`` opens it for vectors alone, made as the file says, or
    as ``pooling`` does: "mean", or ``None``. ``adapter`` is the
    file of a LoRA adapter that is applied to it.
    """

    model: str
    name: str
    context: int
    threads: int
    measuring: bool
    private: bool
    host: str
    port: int
    slots: int
    embedding: bool = False
    pooling: str | None = None
    adapter: str | None = None


class Llama:
    """An open model."""

    def __init__(self, opening: Opening) -> None:
        """Load it; raises ``RefusedError`` where the engine or the model cannot be loaded."""
        self._key = secrets.token_hex(16) if opening.private else ""
        try:
            import xllamacpp

            self._server = xllamacpp.Server(engine_parameters(xllamacpp, opening, self._key))
        except ImportError as error:
            raise RefusedError(f"the engine cannot be loaded: {error}", "import") from error
        except RuntimeError as error:
            raise RefusedError(f"{opening.model}: the engine cannot open it", "open") from error
        self.library = Path(xllamacpp.xllamacpp.__file__)
        self.url = str(self._server.listening_address)
        self._route("GET", "/health")

    def identity(self) -> dict[str, str]:
        """Name, version, and the digest of the shared object that does the arithmetic."""
        digest = hashlib.sha256()
        with self.library.open("rb") as file:
            while block := file.read(_READ_SIZE):
                digest.update(block)
        return {"engine": ENGINE, "version": version(ENGINE), "digest": digest.hexdigest()}

    def tokenize(self, text: str, *, special: bool) -> list[int]:
        """The ids of ``text``; ``special`` adds what the model wants at the beginning."""
        body = {"content": text, "add_special": special, "parse_special": False}
        tokens: list[int] = self._route("POST", "/tokenize", body)["tokens"]
        return tokens

    def embed(self, tokens: list[int]) -> list[float]:
        """The vector of ``tokens``, all of which the model reads at once; of length 1."""
        answer: Any = self._route("POST", "/embeddings", {"content": tokens})
        [vector, *others] = answer[0]["embedding"]
        if others:
            raise RefusedError(
                "the model makes a vector of each token, and does not say how to pool"
            )
        if not all(isinstance(part, float | int) for part in vector):  # JSON has no NaN
            raise RefusedError("the model makes a vector of what are no numbers")
        return [float(part) for part in vector]

    def generate(self, prompt: list[int], max_tokens: int) -> dict[str, Any]:
        """Continue ``prompt`` greedily: tokens, their text, and milliseconds after the first."""
        body = {"prompt": prompt, "n_predict": max_tokens, "return_tokens": True}
        answer = self._route("POST", "/completion", body | _GREEDY | {"cache_prompt": False})
        return {
            "tokens": answer["tokens"],
            "text": answer["content"],
            "milliseconds": answer["timings"]["predicted_ms"],
        }

    def follow(
        self, prompt: list[int], continuation: list[int], count: int
    ) -> Iterator[list[list[int]]]:
        """At each token of ``continuation``, the ``count`` likeliest: [id, micronats]."""
        # The engine holds probabilities back while a character is incomplete: whatever stands
        # there, let it choose an "a". The probabilities are those before that choice.
        [*_, complete] = self.tokenize("a", special=False)
        for end in range(len(continuation)):
            choice = self._choose(prompt + continuation[:end], complete, count, cached=end > 0)
            if choice is None:
                raise RefusedError(f"the engine gives no probabilities at token {end}")
            yield [[item["id"], _micronats(item["logprob"])] for item in choice["top_logprobs"]]

    def losses(self, tokens: list[int]) -> Iterator[int | None]:
        """For each token but the first, its logprob in micronats given those before it.

        ``None`` where the engine does not say, which is within a character of several tokens.
        """
        for end in range(1, len(tokens)):
            choice = self._choose(tokens[:end], tokens[end], 1, cached=end > 1)
            yield _micronats(choice["logprob"]) if choice else None

    def stream(self, body: dict[str, Any], on_piece: Callable[[str], bool]) -> str:
        """Answer ``messages`` or continue ``prompt``, piece by piece; returns why it ended.

        ``on_piece`` says whether to stop.
        """
        reason = ""
        refusal: RefusedError | None = None

        def on_chunk(chunk: dict[str, Any]) -> bool:
            nonlocal reason, refusal  # an exception raised here would be lost
            if "error" in chunk:
                refusal = _refusal(chunk)
                return True
            for choice in chunk.get("choices", ()):
                reason = choice.get("finish_reason") or reason
                piece = choice.get("text") or choice.get("delta", {}).get("content")
                if piece and on_piece(piece):
                    reason = "cancelled"
                    return True
            return False

        chat = "messages" in body
        handle = self._server.handle_chat_completions if chat else self._server.handle_completions
        try:
            handle(body | {"stream": True}, on_chunk)
        except (RuntimeError, ValueError) as error:
            raise RefusedError(str(error)) from error
        if refusal:
            raise refusal
        return reason

    def _choose(
        self, prompt: list[int], token: int, count: int, *, cached: bool
    ) -> dict[str, Any] | None:
        """Make the engine choose ``token`` after ``prompt``, and take what it says of that."""
        answer = self._server.handle_completions(
            _GREEDY
            | {
                "prompt": prompt,
                "n_predict": 1,
                "n_probs": count,
                "cache_prompt": cached,
                "logit_bias": [[token, _CERTAIN]],
            }
        )
        if "error" in answer:
            raise _refusal(answer)
        logprobs = answer["choices"][0]["logprobs"]
        choice: dict[str, Any] | None = logprobs["content"][0] if logprobs else None
        return choice

    def _route(self, method: str, route: str, body: object = None) -> dict[str, Any]:
        connection = _Connection(self.url)
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {self._key}"}
        try:
            connection.request(method, route, json.dumps(body), headers)
            answer: dict[str, Any] = json.loads(connection.getresponse().read())
        except (OSError, http.client.HTTPException, ValueError) as error:
            down = isinstance(error, OSError) and error.errno == errno.ENETUNREACH
            raise RefusedError(
                f"the engine does not answer on {self.url}: {error}", "loopback" if down else ""
            ) from error
        finally:
            connection.close()
        if "error" in answer:
            raise _refusal(answer)
        return answer


class _Connection(http.client.HTTPConnection):
    """To where the engine listens: ``http://HOST:PORT``, or ``unix://PATH``."""

    def __init__(self, url: str) -> None:
        scheme, _, self._place = url.partition("://")
        self._is_path = scheme == "unix"
        super().__init__("localhost" if self._is_path else self._place, timeout=_ROUTE_TIMEOUT)

    def connect(self) -> None:
        if not self._is_path:
            super().connect()
            return
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(_ROUTE_TIMEOUT)
        self.sock.connect(self._place)


def engine_parameters(xllamacpp: Any, opening: Opening, key: str) -> Any:
    """The engine's own parameters for ``opening``; ``key`` is asked of every request, if any."""
    params = xllamacpp.CommonParams()
    params.model.path = opening.model
    params.model_alias = {opening.name}
    if opening.adapter is not None:
        params.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(opening.adapter, 1.0)]
    params.offline = True
    params.n_ctx = opening.context
    params.n_parallel = opening.slots
    params.kv_unified = opening.slots > 1
    params.cpuparams.n_threads = opening.threads
    params.cpuparams_batch.n_threads = opening.threads
    params.hostnames = [opening.host]
    params.port = opening.port
    params.api_keys = [key] if key else []
    params.ui = False
    params.endpoint_slots = False
    params.cors_origins = ""  # no page of another origin may ask
    params.verbosity = 1  # errors
    params.warmup = False
    if opening.private:
        params.reasoning_format = xllamacpp.common_reasoning_format.COMMON_REASONING_FORMAT_NONE
    if opening.measuring:
        _measure_exactly(xllamacpp, params)
    if opening.embedding:
        _make_vectors(xllamacpp, params, opening)
    return params


def _measure_exactly(xllamacpp: Any, params: Any) -> None:
    """Leave out whatever makes an answer depend on memory, devices or earlier requests."""
    off = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    params.flash_attn_type = off
    params.fit_params = False
    params.n_gpu_layers = 0
    params.no_op_offload = True
    params.no_kv_offload = True
    params.cont_batching = False
    params.cache_ram_mib = 0
    params.cache_idle_slots = False
    params.n_ctx_checkpoints = 0


def _make_vectors(xllamacpp: Any, params: Any, opening: Opening) -> None:
    params.embedding = True
    # One vector comes of all that is read, so it must be read in one batch.
    params.n_batch = params.n_ubatch = opening.context
    if opening.pooling == "mean":
        params.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN


def _micronats(logprob: float | None) -> int:
    if logprob is None or not math.isfinite(logprob):  # what damaged weights lead to
        return LEAST_LOGPROB
    return min(0, max(LEAST_LOGPROB, round(logprob * MICRONATS)))


def _refusal(answer: dict[str, Any]) -> RefusedError:
    error = answer["error"]
    if not isinstance(error, dict):
        return RefusedError(str(error))
    return RefusedError(str(error.get("message", error)), str(error.get("type", "")))
