"""WordPiece and Unigram: carried over exactly, or refused."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.checkpoints import REFERENCES, files_of

from packager.errors import AirpackError, MalformedError, UsageError
from packager.quantize.source import Documents, read_documents
from packager.quantize.tokenizer.entries import TokenizerEntries, tokenizer_entries
from packager.quantize.tokenizer.stripping import find_stripping
from packager.quantize.tokenizer.vocabulary import AddedToken

SIZES = {"bert": 480, "xlm-roberta": 160}


def documents(family: str, **changes: object) -> Documents:
    """The documents of a reference, with other values in ``tokenizer.json``."""
    found = read_documents(files_of(REFERENCES / family))
    tokenizer = {**(found.tokenizer or {}), **changes}
    return Documents(found.config, tokenizer, found.tokenizer_config, {}, None, None, found.modules)


def entries(family: str, **changes: object) -> TokenizerEntries:
    return tokenizer_entries(documents(family, **changes), SIZES[family])


def model(family: str, **changes: object) -> dict[str, object]:
    found = documents(family).tokenizer
    assert found is not None
    assert isinstance(found["model"], dict)
    return {**found["model"], **changes}


BERT_NORMALIZER = {
    "type": "BertNormalizer",
    "clean_text": True,
    "handle_chinese_chars": True,
    "strip_accents": None,
    "lowercase": True,
}


@pytest.mark.parametrize(
    "changes",
    [
        {"normalizer": {**BERT_NORMALIZER, "clean_text": False}},
        {"normalizer": {**BERT_NORMALIZER, "handle_chinese_chars": False}},
        {"normalizer": {"type": "Lowercase"}},
        {"pre_tokenizer": {"type": "Whitespace"}},
        {"pre_tokenizer": None},
        {"model": model("bert", continuing_subword_prefix="@@")},
    ],
)
def test_wordpiece_that_cleans_or_cuts_otherwise_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(UsageError, match=r"tokenizer\.json"):
        entries("bert", **changes)


def test_pieces_that_begin_a_word_are_marked_and_others_lose_their_mark() -> None:
    vocab = {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "[MASK]": 4, "in": 5, "##s": 6}

    found = entries("bert", model=model("bert", vocab=vocab))

    tokens = next(entry for entry in found.entries if entry.key == "tokenizer.ggml.tokens")
    assert b"[CLS]" in tokens.payload
    assert "\u2581in".encode() in tokens.payload
    assert b"##" not in tokens.payload


@pytest.mark.parametrize(("lowercase", "strips"), [(True, None), (False, None), (False, True)])
def test_what_a_normalizer_does_to_letters_is_written(lowercase: bool, strips: bool | None) -> None:
    normalizer = {**BERT_NORMALIZER, "lowercase": lowercase, "strip_accents": strips}

    found = {entry.key: entry.payload for entry in entries("bert", normalizer=normalizer).entries}

    assert found["tokenizer.ggml.normalizer.lowercase"] == bytes([lowercase])
    expected = lowercase if strips is None else strips
    assert found["tokenizer.ggml.normalizer.strip_accents"] == bytes([expected])


def test_a_bert_without_its_ends_is_refused_since_the_engine_would_abort() -> None:
    given = documents("bert", post_processor=None)
    without = Documents(given.config, given.tokenizer, {}, {}, None, None)

    with pytest.raises(UsageError, match="cls_token and sep_token"):
        tokenizer_entries(without, 480)


def test_the_ends_of_a_bert_are_taken_from_an_old_post_processor_too() -> None:
    old = {"type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2]}

    assert entries("bert", post_processor=old) == entries("bert")


@pytest.mark.parametrize(
    "changes",
    [
        {"normalizer": {"type": "NFKC"}},
        {"normalizer": {"type": "Sequence", "normalizers": [{"type": "Lowercase"}]}},
        {"pre_tokenizer": {"type": "Metaspace", "replacement": "_"}},
        {"pre_tokenizer": {"type": "ByteLevel"}},
        {"model": model("xlm-roberta", byte_fallback=True)},
    ],
)
def test_unigram_that_treats_text_otherwise_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(UsageError, match=r"tokenizer\.json"):
        entries("xlm-roberta", **changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"model": model("xlm-roberta", vocab=[["a", 0.0], ["b", "x"]])},
        {"model": model("xlm-roberta", vocab=[["a", 0.0, 1]])},
        {"model": model("xlm-roberta", vocab=[["a", float("inf")]])},
        {"model": model("xlm-roberta", vocab=[["a", -1.0]] * 9)},
        {"model": model("xlm-roberta", vocab=[[f"p{n}", -1.0] for n in range(161)])},
        {"model": model("xlm-roberta", unk_id="3")},
        {"normalizer": {"type": "Precompiled", "precompiled_charsmap": "%%%"}},
    ],
)
def test_a_broken_unigram_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(MalformedError, match=r"tokenizer\.json"):
        entries("xlm-roberta", **changes)


def test_the_table_of_replacements_is_carried_byte_by_byte() -> None:
    table = bytes(range(256)) * 2
    normalizer = {
        "type": "Precompiled",
        "precompiled_charsmap": base64.b64encode(table).decode(),
    }

    found = entries("xlm-roberta", normalizer=normalizer).entries

    charsmap = next(entry for entry in found if entry.key.endswith("precompiled_charsmap"))
    assert charsmap.payload.endswith(table)


@given(st.sampled_from(sorted(SIZES)), st.data())
def test_any_part_replaced_by_anything_is_taken_or_refused_by_an_error_of_ours(
    family: str, data: st.DataObject
) -> None:
    tokenizer = json.loads((REFERENCES / family / "tokenizer.json").read_text(encoding="utf-8"))
    place = data.draw(st.sampled_from(["normalizer", "pre_tokenizer", "post_processor", "model"]))
    part = tokenizer[place]
    key = data.draw(st.sampled_from(sorted(part)))
    part[key] = data.draw(
        st.none() | st.booleans() | st.integers() | st.text(max_size=4) | st.just([]) | st.just({})
    )
    try:
        found = entries(family, **{place: part})
    except AirpackError:
        return
    assert found.entries


class TestWhiteSpaceBesideSpecialTokens:
    def test_all_but_three_taking_it_after_them_is_as_phi3(self) -> None:
        added = [
            AddedToken(0, "<unk>", special=True),
            AddedToken(2, "</s>", special=True, strips=(False, True)),
            AddedToken(3, "<|user|>", special=True, strips=(False, True)),
        ]

        assert find_stripping(added).is_as_phi3
        assert find_stripping(added).notes == ()

    def test_anything_else_is_told(self) -> None:
        added = [
            AddedToken(0, "<|plain|>", special=True),
            AddedToken(1, "<|start|>", special=True, strips=(True, True)),
        ]

        stripping = find_stripping(added)

        assert not stripping.is_as_phi3
        assert "<|start|>" in stripping.notes[0]

    def test_a_mask_is_never_in_a_text(self) -> None:
        added = [AddedToken(0, "<mask>", special=True, strips=(True, False))]

        assert find_stripping(added).notes == ()
