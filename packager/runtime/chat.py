"""Let a model talk: one answer to one prompt, or a conversation that remembers."""

from __future__ import annotations

from pathlib import Path

from packager.runtime.engine import (
    AS_THE_MODEL_ASKS,
    GREEDY,
    ChatMessage,
    Engine,
    EngineOptions,
    Pieces,
    Sampling,
)

DEFAULT_MAX_TOKENS = 512


def generate(
    model: Path,
    prompt: str,
    *,
    max_tokens: int = DEFAULT_MAX_TOKENS,
    sampling: Sampling = GREEDY,
    options: EngineOptions | None = None,
) -> Pieces:
    """Answer ``prompt``, piece by piece; greedily, so each time the same, by default.

    Its value is why the answer ended. Raises what opening an :class:`Engine` and asking it raise.
    """
    with Engine(model, options) as engine:
        conversation = Conversation(engine, max_tokens=max_tokens, sampling=sampling)
        return (yield from conversation.say(prompt))


class Conversation:
    """What was said to a model and what it answered.

    A model without a chat template has not learnt to take turns: it continues each text by
    itself.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        max_tokens: int = DEFAULT_MAX_TOKENS,
        sampling: Sampling = AS_THE_MODEL_ASKS,
    ) -> None:
        """Talk through ``engine``, by default choosing tokens as the model asks for."""
        self._engine = engine
        self._max_tokens = max_tokens
        self._sampling = sampling
        self._messages: tuple[ChatMessage, ...] = ()

    @property
    def messages(self) -> tuple[ChatMessage, ...]:
        """The turns so far, an interrupted answer with as much as came."""
        return self._messages

    def say(self, text: str) -> Pieces:
        """The answer to ``text``, piece by piece; its value is why it ended.

        Leaving the iterator early, by Ctrl-C for one, stops the answer; what came of it is
        remembered. Raises ``RefusedRequestError`` where the engine goes on, as for a
        conversation too long for the model, else ``EngineError``; and then nothing is.
        """
        messages = (*self._messages, ChatMessage("user", text))
        answer: list[str] = []
        try:
            return (yield from _kept(self._pieces(text, messages), answer))
        finally:
            if answer:
                said = ChatMessage("assistant", "".join(answer))
                self._messages = (*messages, said)

    def forget(self) -> None:
        """Begin a new conversation."""
        self._messages = ()

    def _pieces(self, text: str, messages: tuple[ChatMessage, ...]) -> Pieces:
        if self._engine.file.has_chat_template:
            return self._engine.chat(messages, max_tokens=self._max_tokens, sampling=self._sampling)
        return self._engine.complete(text, max_tokens=self._max_tokens, sampling=self._sampling)


def _kept(pieces: Pieces, seen: list[str]) -> Pieces:
    """``pieces``, each noted in ``seen`` as it passes."""
    while True:
        try:
            piece = next(pieces)
        except StopIteration as end:
            return str(end.value)
        seen.append(piece)
        yield piece
