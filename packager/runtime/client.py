"""What the worker says to llama.cpp's server, over loopback, inside its own namespace.

Imported by the worker alone: the isolated side's commands load no HTTP client.
"""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from packager.errors import EngineError

# llama.cpp's greedy choice: the likeliest token, whatever the other samplers are set to.
_GREEDY: dict[str, object] = {"temperature": 0, "samplers": ["temperature"], "seed": 0}


class EngineClient:
    """A speaker to one server. Token ids are those of the model's vocabulary."""

    def __init__(self, address: str) -> None:
        place = urlsplit(address)
        self._host, self._port = place.hostname or "127.0.0.1", place.port

    def tokenize(self, text: str) -> list[int]:
        """The tokens of ``text``, behind the model's begin token if it has one."""
        answer = self._post("/tokenize", {"content": text, "add_special": True})
        return [int(token) for token in answer["tokens"]]

    def greedy(self, tokens: list[int], count: int, alternatives: int) -> dict[str, Any]:
        """At most ``count`` likeliest tokens behind ``tokens``, with log-probabilities."""
        return self._completion(tokens, count, alternatives, {})

    def forced(self, tokens: list[int], following: int) -> dict[str, Any]:
        """The position behind ``tokens``, with ``following`` made the one that is taken.

        The bias decides what is sampled; the log-probabilities reported are the model's own.
        """
        return self._completion(tokens, 1, 1, {"logit_bias": [[following, 1e6]]})

    def complete(self, prompt: str, count: int) -> Iterator[str]:
        """A greedy continuation of ``prompt``, piece by piece."""
        request = {"prompt": prompt, "n_predict": count, "stream": True, **_GREEDY}
        for event in self._stream("/completion", request):
            if event.get("content"):
                yield str(event["content"])

    def chat(self, messages: list[dict[str, str]], count: int) -> Iterator[str]:
        """An answer in a conversation, by the model's own chat template, piece by piece."""
        request = {"messages": messages, "max_tokens": count, "stream": True}
        for event in self._stream("/v1/chat/completions", request):
            for choice in event.get("choices", ()):
                if content := choice.get("delta", {}).get("content"):
                    yield str(content)

    def _completion(
        self, tokens: list[int], count: int, alternatives: int, more: dict[str, object]
    ) -> dict[str, Any]:
        request = {
            "prompt": tokens,
            "n_predict": count,
            "n_probs": alternatives,
            "return_tokens": True,
            "cache_prompt": True,
            **_GREEDY,
            **more,
        }
        return self._post("/completion", request)

    def _post(self, path: str, document: dict[str, Any]) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(self._open(path, document).read())
        return answer

    def _stream(self, path: str, document: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """The events of a server-sent stream (HTML Living Standard, s.9.2)."""
        response = self._open(path, document)
        try:
            for line in response:
                data = line.removeprefix(b"data: ").strip()
                if data == b"[DONE]":
                    return
                if data and line.startswith(b"data: "):
                    yield json.loads(data)
        finally:
            response.close()

    def _open(self, path: str, document: dict[str, Any]) -> http.client.HTTPResponse:
        connection = http.client.HTTPConnection(self._host, self._port)
        headers = {"Content-Type": "application/json", "Connection": "close"}
        connection.request("POST", path, json.dumps(document), headers)
        response = connection.getresponse()
        if response.status != http.client.OK:
            raise EngineError(f"the engine refuses {path}: {response.read(500).decode()}")
        return response
