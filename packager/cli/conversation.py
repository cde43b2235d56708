"""A conversation on a terminal: questions of several lines, answers that can be stopped."""

from __future__ import annotations

import re
from contextlib import suppress

from packager.cli.history import History
from packager.cli.screen import Screen
from packager.errors import RefusedRequestError
from packager.runtime.chat import Conversation
from packager.runtime.engine import CUT_SHORT, Pieces

_HELP = """\
A line that ends with \\ goes on in the next; what is pasted is one question.
Ctrl-C stops an answer or drops a question, the up key brings back an earlier one.
/new   forget this conversation, and begin another
/help  this
/bye   or Ctrl-D ends"""
_COMMAND = re.compile(r"/[a-z]+")


def converse(screen: Screen, conversation: Conversation, history: History, max_tokens: int) -> None:
    """Take turns until Ctrl-D; Ctrl-C stops the answer, and twice at the prompt, all of it."""
    while (question := _ask(screen)) is not None:
        match question.strip():
            case "":
                pass
            case "/help":
                screen.note(_HELP)
            case "/new":
                conversation.forget()
                screen.note("a new conversation")
            case "/bye" | "/exit" | "/quit":
                return
            case word if _COMMAND.fullmatch(word):
                screen.note(f"there is no {word}; /help says what there is")
            case _:
                with suppress(KeyboardInterrupt):
                    history.add(question)
                    _answer(screen, conversation, question, max_tokens)


def say(screen: Screen, pieces: Pieces) -> str:
    """Give an answer as it comes; returns why it ended."""
    try:
        while True:
            screen.piece(next(pieces))
    except StopIteration as end:
        return str(end.value)
    finally:
        screen.piece("\n")


def _answer(screen: Screen, conversation: Conversation, question: str, max_tokens: int) -> None:
    """Answer ``question``; what the engine refuses is said, and is no end of the conversation."""
    try:
        if say(screen, conversation.say(question)) == CUT_SHORT:
            screen.note(
                f"cut short: at {max_tokens} tokens (--max-tokens allows more), or where the "
                "model can hold no more of the conversation (/new begins another)"
            )
    except RefusedRequestError as error:
        screen.error(error)


def _ask(screen: Screen) -> str | None:
    """The next thing a person asks, or ``None`` when they are done.

    One Ctrl-C may have been meant for an answer that had just ended, so it ends nothing.
    """
    try:
        return _read_question(screen)
    except KeyboardInterrupt:
        screen.note("Ctrl-D ends, as does Ctrl-C once more")
    return _read_question(screen)


def _read_question(screen: Screen) -> str | None:
    """One line, and those behind it while each ends with a backslash."""
    lines: list[str] = []
    while (line := screen.read_turn("... " if lines else "> ")) is not None:
        lines.append(line.removesuffix("\\"))
        if lines[-1] == line:
            break
    # What is no text, as a terminal of another encoding sends it, becomes question marks.
    return "\n".join(lines).encode("utf-8", "replace").decode("utf-8") if lines else None
