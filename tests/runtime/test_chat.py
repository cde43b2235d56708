from __future__ import annotations

from pathlib import Path

import pytest

from packager.errors import EngineError
from packager.runtime.chat import Conversation, generate
from packager.runtime.engine import GREEDY, ChatMessage, Engine, EngineOptions


def test_a_prompt_is_answered_the_same_each_time(random_model: Path) -> None:
    answers = {"".join(generate(random_model, "the", max_tokens=8)) for _ in range(2)}
    assert len(answers) == 1


def test_a_model_with_a_template_is_asked_through_it(chat_model: Path) -> None:
    with Engine(chat_model) as engine:
        as_text = "".join(engine.complete("<user>the<assistant>", max_tokens=8))
        plain = "".join(engine.complete("the", max_tokens=8))
    assert "".join(generate(chat_model, "the", max_tokens=8)) == as_text != plain


def test_a_model_without_a_template_continues_the_text(random_model: Path) -> None:
    with Engine(random_model) as engine:
        plain = "".join(engine.complete("the", max_tokens=8))
    assert "".join(generate(random_model, "the", max_tokens=8)) == plain


def test_a_conversation_remembers_its_turns(chat_model: Path) -> None:
    with Engine(chat_model) as engine:
        conversation = Conversation(engine, max_tokens=4, sampling=GREEDY)
        first = "".join(conversation.say("in"))
        second = "".join(conversation.say("and"))
        alone = "".join(generate(chat_model, "and", max_tokens=4))
    assert conversation.messages == (
        ChatMessage("user", "in"),
        ChatMessage("assistant", first),
        ChatMessage("user", "and"),
        ChatMessage("assistant", second),
    )
    assert second != alone


def test_an_answer_that_was_cut_off_is_remembered_as_far_as_it_came(chat_model: Path) -> None:
    with Engine(chat_model) as engine:
        conversation = Conversation(engine, max_tokens=200, sampling=GREEDY)
        answer = conversation.say("in")
        begun = next(answer) + next(answer)
        answer.close()
        assert conversation.messages[-1] == ChatMessage("assistant", begun)
        assert "".join(conversation.say("and"))


def test_a_turn_that_is_refused_is_not_remembered(chat_model: Path) -> None:
    with Engine(chat_model, EngineOptions(context=256)) as engine:
        conversation = Conversation(engine, max_tokens=4)
        with pytest.raises(EngineError):
            list(conversation.say("and " * 400))
        assert conversation.messages == ()
        assert "".join(conversation.say("and"))
