"""Tokenizers: carried over exactly, or refused."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.checkpoints import REFERENCES, byte_tokenizer, files_of

from packager.errors import AirpackError, MalformedError, UsageError
from packager.format.fields import Fields
from packager.quantize.source import Documents, read_documents
from packager.quantize.tokenizer.bpe import byte_level_vocabulary
from packager.quantize.tokenizer.entries import tokenizer_entries
from packager.quantize.tokenizer.pretokenizers import pretokenizer_name
from packager.quantize.tokenizer.sentencepiece import parse_model, sentencepiece_vocabulary
from packager.quantize.tokenizer.special import SpecialTokens, special_tokens
from packager.quantize.tokenizer.vocabulary import Kind, Vocabulary

LLAMA2 = REFERENCES / "llama2"


def documents(**changes: object) -> Documents:
    given: dict[str, object] = {
        "config": {},
        "tokenizer": byte_tokenizer(),
        "tokenizer_config": {},
        "added_tokens": {},
        "sentencepiece": None,
        "chat_template": None,
        **changes,
    }
    return Documents(**given)  # type: ignore[arg-type]


def tokenizer(**changes: object) -> dict[str, object]:
    return {**byte_tokenizer(), **changes}


def model(**changes: object) -> dict[str, object]:
    base = byte_tokenizer()["model"]
    assert isinstance(base, dict)
    return {**base, **changes}


def byte_level(document: Mapping[str, object], size: int = 257) -> Vocabulary:
    given = documents(tokenizer=document)
    return byte_level_vocabulary(Fields.of(dict(document), "tokenizer.json"), given, size)


def special(size: int = 257, **changes: object) -> SpecialTokens:
    given = documents(**changes)
    assert given.tokenizer is not None
    return special_tokens(given, byte_level(given.tokenizer, size))


class TestByteLevel:
    def test_slots_beyond_the_tokenizer_are_unused(self) -> None:
        vocabulary = byte_level(byte_tokenizer(), 260)

        assert vocabulary.tokens[256:] == ("<|endoftext|>", "[PAD257]", "[PAD258]", "[PAD259]")
        assert vocabulary.kinds[255:] == (Kind.NORMAL, Kind.CONTROL, *[Kind.UNUSED] * 3)

    def test_a_trained_token_beyond_the_embedding_is_refused(self) -> None:
        with pytest.raises(MalformedError, match="vocab_size"):
            byte_level(byte_tokenizer(), 200)

    def test_an_added_token_beyond_the_embedding_is_left_out_with_a_note(self) -> None:
        vocabulary = byte_level(byte_tokenizer(), 256)

        assert len(vocabulary.tokens) == 256
        assert "<|endoftext|>" in vocabulary.notes[0]

    def test_a_text_with_two_numbers_is_refused(self) -> None:
        twice = [{"id": 256, "content": "a", "special": True}]
        with pytest.raises(MalformedError, match="'a' has the numbers"):
            byte_level(tokenizer(added_tokens=twice))

    def test_two_texts_with_one_number_are_refused(self) -> None:
        with pytest.raises(MalformedError, match="same number"):
            byte_level(tokenizer(model=model(vocab={"a": 1, "b": 1})))

    @pytest.mark.parametrize("merges", [["ab"], [["a"]], [["a", "b", "c"]], [["a", 1]], [5], "a b"])
    def test_broken_merges_are_refused(self, merges: object) -> None:
        with pytest.raises(MalformedError, match="merges"):
            byte_level(tokenizer(model=model(merges=merges)))

    def test_merges_of_both_spellings_are_the_same(self) -> None:
        old = byte_level(tokenizer(model=model(merges=["a b", "ab c"])))
        new = byte_level(tokenizer(model=model(merges=[["a", "b"], ["ab", "c"]])))

        assert old == new
        assert new.merges == ("a b", "ab c")

    @pytest.mark.parametrize("kind", ["NFKC", "Lowercase", "Sequence"])
    def test_a_normalizer_that_llama_cpp_lacks_is_refused(self, kind: str) -> None:
        with pytest.raises(UsageError, match=kind):
            byte_level(tokenizer(normalizer={"type": kind}))

    def test_a_control_token_that_is_not_marked_special_is_one_by_its_looks(self) -> None:
        added = [
            {"id": 256, "content": "<|fim|>", "special": False},
            {"id": 257, "content": "<think>", "special": False},
        ]

        vocabulary = byte_level(tokenizer(added_tokens=added), 258)

        assert vocabulary.kinds[256:] == (Kind.CONTROL, Kind.USER_DEFINED)


GPT2 = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}
BYTES = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False}
DIGITS = {"type": "Digits", "individual_digits": True}
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def split(regex: str, behavior: str = "Isolated", invert: bool = False) -> dict[str, object]:
    return {
        "type": "Split",
        "pattern": {"Regex": regex},
        "behavior": behavior,
        "invert": invert,
    }


def name_of(steps: object, *, ignores_merges: bool = False) -> str:
    fields = Fields.of({"pre_tokenizer": steps}, "tokenizer.json")
    return pretokenizer_name(fields, ignores_merges=ignores_merges)


def sequence(*steps: object) -> dict[str, object]:
    return {"type": "Sequence", "pretokenizers": list(steps)}


class TestPretokenizers:
    def test_known_cuts_have_llama_cpps_names(self) -> None:
        assert name_of(GPT2) == "gpt-2"
        assert name_of(sequence(DIGITS, GPT2)) == "smollm"
        assert name_of(sequence(split(LLAMA3), BYTES), ignores_merges=True) == "llama-bpe"
        assert name_of(sequence(split(LLAMA3), BYTES)) == "smaug-bpe"
        assert name_of(sequence(split(LLAMA3.replace("{1,3}", "")), BYTES)) == "qwen2"

    def test_the_inverted_spelling_and_literal_line_ends_are_the_same_cut(self) -> None:
        literal = LLAMA3.replace(r"\r", "\r").replace(r"\n", "\n")

        assert name_of(sequence(split(LLAMA3, "Removed", invert=True), BYTES)) == "smaug-bpe"
        assert name_of(sequence(split(literal), BYTES)) == "smaug-bpe"

    @pytest.mark.parametrize(
        "steps",
        [
            None,
            split(LLAMA3 + "|x"),
            split(LLAMA3, "MergedWithNext"),
            {"type": "Whitespace"},
            {**GPT2, "add_prefix_space": True},
            sequence(),
            sequence(DIGITS, BYTES),
        ],
    )
    def test_unknown_cuts_are_refused(self, steps: object) -> None:
        with pytest.raises(UsageError, match="pre-tokenizer"):
            name_of(steps)


def piece(text: str, score: float, kind: int) -> bytes:
    data = text.encode()
    inner = b"\x0a" + bytes([len(data)]) + data + b"\x15" + struct.pack("<f", score)
    inner += bytes([0x18, kind])
    return b"\x0a" + bytes([len(inner)]) + inner


BPE_TRAINER = b"\x12\x02\x18\x02"


class TestSentencePiece:
    def test_scores_of_the_merges_order_tokens_as_the_model_does(self) -> None:
        files = files_of(LLAMA2)
        both = sentencepiece_vocabulary(read_documents(files), 641)
        del files["tokenizer.model"]
        merged = sentencepiece_vocabulary(read_documents(files), 641)

        assert merged.tokens == both.tokens
        assert merged.kinds == both.kinds
        assert both.scores is not None
        assert merged.scores is not None
        multiple = [
            number
            for number, (token, kind) in enumerate(zip(both.tokens, both.kinds, strict=True))
            if kind is Kind.NORMAL and len(token) > 1
        ]
        order = sorted(multiple, key=lambda number: -both.scores[number])  # type: ignore[index]
        assert order == sorted(multiple, key=lambda number: -merged.scores[number])  # type: ignore[index]
        assert both.adds_space_prefix is merged.adds_space_prefix is True

    def test_merges_that_leave_one_out_are_refused(self) -> None:
        files = files_of(LLAMA2)
        del files["tokenizer.model"]
        given = read_documents(files)
        assert given.tokenizer is not None
        changed = json.loads(json.dumps(given.tokenizer))
        del changed["model"]["merges"][-1]

        with pytest.raises(UsageError, match="not among them") as caught:
            sentencepiece_vocabulary(documents(tokenizer=changed), 641)
        assert "tokenizer.model" in str(caught.value.hint)

    def test_a_model_is_read_piece_by_piece(self) -> None:
        data = piece("<unk>", 0.0, 2) + piece("\u2581a", -1.5, 1) + piece("<0x0A>", 0.0, 6)

        parsed = parse_model(data + BPE_TRAINER + b"\x1a\x02\x18\x00")

        assert [(p.text, p.score, p.kind) for p in parsed.pieces] == [
            ("<unk>", 0.0, Kind.UNKNOWN),
            ("\u2581a", -1.5, Kind.NORMAL),
            ("<0x0A>", 0.0, Kind.BYTE),
        ]
        assert parsed.adds_space_prefix is False

    def test_a_unigram_model_is_refused(self) -> None:
        with pytest.raises(UsageError, match="not a BPE model"):
            parse_model(piece("a", 0.0, 1))

    def test_a_model_that_normalizes_text_is_refused(self) -> None:
        with pytest.raises(UsageError, match="normalizes"):
            parse_model(BPE_TRAINER + b"\x1a\x03\x12\x01x")

    def test_more_pieces_than_embeddings_are_refused(self) -> None:
        given = documents(tokenizer=None, sentencepiece=(LLAMA2 / "tokenizer.model").read_bytes())

        with pytest.raises(MalformedError, match="vocab_size"):
            sentencepiece_vocabulary(given, 100)

    @given(st.integers(0, 12000), st.binary(max_size=3), st.integers(0, 3))
    def test_a_mutated_model_is_taken_or_refused_by_an_error_of_ours(
        self, at: int, inserted: bytes, removed: int
    ) -> None:
        data = (LLAMA2 / "tokenizer.model").read_bytes()
        try:
            parse_model(data[:at] + inserted + data[at + removed :])
        except AirpackError:
            return

    @pytest.mark.parametrize(
        "data", [b"\xff" * 20, b"\x0a\x7f", b"\x0b", b"\x08\x01\x0a", b"PK\x03\x04"]
    )
    def test_what_is_no_model_is_refused(self, data: bytes) -> None:
        with pytest.raises(AirpackError, match=r"tokenizer\.model"):
            parse_model(data)


class TestSpecialTokens:
    def test_the_post_processor_decides_what_begins_a_text(self) -> None:
        parts = [{"SpecialToken": {"id": "<|endoftext|>"}}, {"Sequence": {"id": "A"}}]
        processor = {"type": "TemplateProcessing", "single": parts}

        found = special(
            tokenizer=tokenizer(post_processor={"type": "Sequence", "processors": [processor]}),
            tokenizer_config={"bos_token": "a", "add_bos_token": False},
        )

        assert found.adds_bos
        assert found.numbers["bos_token_id"] == 256

    def test_a_post_processor_that_adds_nothing_adds_nothing(self) -> None:
        found = special(
            tokenizer=tokenizer(post_processor={"type": "ByteLevel"}),
            tokenizer_config={"bos_token": "<|endoftext|>", "add_bos_token": True},
        )

        assert not found.adds_bos

    def test_texts_count_before_numbers_and_numbers_must_exist(self) -> None:
        found = special(
            tokenizer_config={"eos_token": {"content": "<|endoftext|>"}, "pad_token": "no such"},
            config={"eos_token_id": 3, "pad_token_id": 9999, "bos_token_id": [7, 8]},
        )

        assert found.numbers == {"eos_token_id": 256, "bos_token_id": 7}

    def test_the_end_of_a_turn_is_found(self) -> None:
        added = [{"id": 256, "content": "<|im_end|>", "special": True}]

        assert special(tokenizer=tokenizer(added_tokens=added)).numbers["eot_token_id"] == 256

    def test_a_template_of_its_own_file_counts_before_the_configuration(self) -> None:
        found = special(chat_template="{{ 1 }}", tokenizer_config={"chat_template": "{{ 2 }}"})

        assert found.templates == {"default": "{{ 1 }}"}

    def test_named_templates_are_all_carried_over(self) -> None:
        named = [{"name": "default", "template": "a"}, {"name": "tool_use", "template": "b"}]

        found = special(tokenizer_config={"chat_template": named})

        assert found.templates == {"default": "a", "tool_use": "b"}

    @pytest.mark.parametrize("template", [5, [5], [{"name": "../x", "template": "a"}], {"a": 1}])
    def test_templates_that_are_none_are_refused(self, template: object) -> None:
        with pytest.raises(MalformedError, match="chat_template"):
            special(tokenizer_config={"chat_template": template})


def test_a_model_of_another_kind_is_refused() -> None:
    with pytest.raises(UsageError, match="WordLevel"):
        tokenizer_entries(documents(tokenizer=tokenizer(model=model(type="WordLevel"))), 257)


def test_a_source_without_a_tokenizer_is_refused() -> None:
    with pytest.raises(UsageError, match="neither"):
        tokenizer_entries(documents(tokenizer=None), 257)


def test_the_chat_template_reaches_the_file(tmp_path: Path) -> None:
    entries = {e.key: e for e in tokenizer_entries(documents(chat_template="{{ x }}"), 257).entries}

    assert entries["tokenizer.chat_template"].payload.endswith(b"{{ x }}")
