"""What the worker measures: greedy answers, forced ones, and how well a text is foretold."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from packager.errors import EngineError
from packager.format.golden import MAX_NEGATIVE_LOG, MICRO
from packager.runtime.client import EngineClient

ALTERNATIVES = 10


def answer(client: EngineClient, prompt: str, max_tokens: int) -> dict[str, object]:
    """Continue ``prompt`` greedily."""
    prompt_tokens = client.tokenize(prompt)
    result = client.greedy(prompt_tokens, max_tokens, ALTERNATIVES)
    return {
        "event": "done",
        "prompt_tokens": prompt_tokens,
        "tokens": result["tokens"],
        "text": result["content"],
        "positions": [_alternatives(p) for p in result.get("completion_probabilities", [])],
        "milliseconds": result["timings"]["predicted_ms"],
    }


def force(
    client: EngineClient, prompt_tokens: list[int], tokens: list[int]
) -> Iterator[dict[str, object]]:
    """What the model holds likely at each position when the answer is given to it."""
    positions = []
    for count in range(len(tokens)):
        result = client.greedy(prompt_tokens + tokens[:count], 1, ALTERNATIVES)
        positions.append(_alternatives(result["completion_probabilities"][0]))
        yield {"event": "progress", "amount": 1}
    yield {"event": "done", "positions": positions}


def score(client: EngineClient, text: str, limit: int) -> Iterator[dict[str, object]]:
    """The negative log-likelihood, in micronats, of the first ``limit`` tokens of ``text``.

    The first token has nothing before it and is not scored.
    """
    tokens = client.tokenize(text)[: limit + 1]
    if len(tokens) < 2:
        raise EngineError("the text to score is shorter than two tokens")
    total = 0
    for count in range(1, len(tokens)):
        result = client.forced(tokens[:count], tokens[count])
        position = result["completion_probabilities"][0]
        if position["id"] != tokens[count]:
            raise EngineError("the engine did not take the token it was given")
        total -= _micronats(position["logprob"])
        yield {"event": "progress", "amount": 1}
    yield {"event": "done", "tokens": len(tokens) - 1, "negative_log": total}


def _alternatives(position: dict[str, Any]) -> list[list[int]]:
    return [[p["id"], _micronats(p["logprob"])] for p in position["top_logprobs"]]


def _micronats(logprob: float | None) -> int:
    """A log-probability as an integer; what is not a number counts as impossible."""
    if logprob is None or logprob != logprob:
        return -MAX_NEGATIVE_LOG
    return max(-MAX_NEGATIVE_LOG, min(0, round(logprob * MICRO)))
