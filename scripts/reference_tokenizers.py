"""The text and the small tokenizers of the reference checkpoints."""

from __future__ import annotations

import io
import tempfile

import sentencepiece
from sentencepiece import sentencepiece_model_pb2
from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

CORPUS = (
    """
In the beginning was the word, and the word was carried on a small medium through the gap.
def greet(name: str) -> str:
    return f"hello {name}, it's {2026 - 1} again"  # they're here, we'll see
for i in range(100): total += values[i] ** 2; print("total", total)
The quick brown fox jumps over the lazy dog; I'VE SEEN IT, you've seen it, he'd say.
Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich. Café, naïve, façade.
Быстрая коричневая лиса прыгает через ленивую собаку. 東京の空は青い。我想在苹果工作。
a1b2c3 1234567890 3.14159 0xdeadbeef   \t  tabs\tand   spaces\n\n\nand lines
"""
    * 4
)

TEXT = (
    "Hello, wörld! It's 2026 and they'LL say: 東京 is far; быстрая 🦙.\n\n"
    "def f(x):\n\treturn x**2 + 1234567  # ok{special}\n   naïve café,  we've {special}seen it."
)

# What encoders are asked about.
ENCODED = [
    "Where does the quick brown fox JUMP? Über den Zaun, naïve café — très façade!",
    "hello, world",
    (
        "Боксёр Виктор: 東京の空は青い。我想在苹果工作。  "
        "2026\u00a0$5.30 (a+b)*c = ?\n\tunder_score 🦙"
    ),
]

GPT2_END = "<|endoftext|>"
LLAMA3_CUT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN2_CUT = LLAMA3_CUT.replace(r"\p{N}{1,3}", r"\p{N}")
TEKKEN_CUT = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
GPT4O_CUT = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
LLAMA3_CHAT = (
    "{{ bos_token }}{% for message in messages %}<|start|>{{ message['role'] }}\n"
    "{{ message['content'] }}<|eot_id|>{% endfor %}"
)


def byte_level(
    cut: str | None, special: list[str], *, size: int, ignore_merges: bool, nfc: bool = False
) -> Tokenizer:
    """A byte-level BPE tokenizer trained on the corpus.

    ``cut`` None is GPT-2's own, "digits" that after cutting digits apart.
    """
    tokenizer = Tokenizer(models.BPE(ignore_merges=ignore_merges))
    if nfc:
        tokenizer.normalizer = normalizers.NFC()
    gpt2_step = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    byte_step = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    if cut is None:
        tokenizer.pre_tokenizer = gpt2_step
    elif cut == "digits":
        digit_step = pre_tokenizers.Digits(individual_digits=True)
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digit_step, gpt2_step])
    else:
        cut_step = pre_tokenizers.Split(Regex(cut), "isolated")
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([cut_step, byte_step])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size - len(special),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([CORPUS], trainer)
    tokenizer.add_special_tokens([AddedToken(text, normalized=False) for text in special])
    return tokenizer


def begin_with(tokenizer: Tokenizer, bos: str) -> None:
    """Put ``bos`` before every text, as Llama 3 does."""
    tokenizer.post_processor = processors.Sequence(
        [
            processors.ByteLevel(trim_offsets=False),
            processors.TemplateProcessing(
                single=f"{bos} $A",
                pair=f"{bos} $A {bos} $B",
                special_tokens=[(bos, tokenizer.token_to_id(bos))],
            ),
        ]
    )


def sentencepiece_model(size: int, **changes: object) -> bytes:
    """A SentencePiece BPE model, set up as Llama 2's but for ``changes``."""
    model = io.BytesIO()
    settings: dict[str, object] = {
        "model_type": "bpe",
        "vocab_size": size,
        "byte_fallback": True,
        "normalization_rule_name": "identity",
        "remove_extra_whitespaces": False,
        "allow_whitespace_only_pieces": True,
        "split_digits": True,
        "character_coverage": 0.99,
        "pad_id": -1,
        "minloglevel": 2,
    }
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(line for line in CORPUS.splitlines() if line.strip()),
        model_writer=model,
        **{**settings, **changes},
    )
    return model.getvalue()


def merged_tokenizer(model: bytes) -> Tokenizer:
    """What transformers' converter makes of a ``tokenizer.model``: every merge there is."""
    processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    vocab = {processor.id_to_piece(i): i for i in range(processor.vocab_size())}
    merges = []
    for piece, number in vocab.items():
        cuts = [(piece[:i], piece[i:]) for i in range(1, len(piece))]
        known = [(left, right) for left, right in cuts if left in vocab and right in vocab]
        known.sort(key=lambda pair: (vocab[pair[0]], vocab[pair[1]]))
        merges += [(processor.get_score(number), pair) for pair in known]
    merges.sort(key=lambda item: item[0], reverse=True)
    pairs = [pair for _, pair in merges]
    tokenizer = Tokenizer(
        models.BPE(vocab, pairs, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    )
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("\u2581", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    return tokenizer


def sentencepiece_tokenizer(model: bytes) -> Tokenizer:
    """Llama 2's ``tokenizer.json``, made of its ``tokenizer.model``."""
    tokenizer = merged_tokenizer(model)
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]
    )
    special = [AddedToken(text, normalized=False) for text in ("<unk>", "<s>", "</s>")]
    tokenizer.add_special_tokens(special)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)]
    )
    return tokenizer


def gemma_tokenizer(size: int) -> tuple[Tokenizer, bytes]:
    """Gemma's ``tokenizer.json`` and ``tokenizer.model``: no space before a text."""
    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>"]
    written = ["\n", "\n\n", "\u2581\u2581", "\u2581\u2581\u2581"]
    model = sentencepiece_model(
        size,
        add_dummy_prefix=False,
        pad_id=0,
        eos_id=1,
        bos_id=2,
        unk_id=3,
        pad_piece="<pad>",
        eos_piece="<eos>",
        bos_piece="<bos>",
        user_defined_symbols=[*special[4:], *written],
    )
    tokenizer = merged_tokenizer(model)
    tokenizer.normalizer = normalizers.Replace(" ", "\u2581")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer.add_special_tokens([AddedToken(text, normalized=False) for text in special])
    tokenizer.add_tokens([AddedToken(text, normalized=False) for text in written])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A", pair="<bos> $A <bos> $B", special_tokens=[("<bos>", 2)]
    )
    return tokenizer, model


def with_stripping_tokens(tokenizer: Tokenizer, special: list[str]) -> Tokenizer:
    """``tokenizer`` with special tokens as Phi-3 has them: they take the space after them."""
    tokenizer.add_special_tokens(
        [
            AddedToken(text, normalized=False, rstrip=text not in ("<|endoftext|>",))
            for text in special
        ]
    )
    tokenizer.add_special_tokens([AddedToken("</s>", normalized=False, rstrip=True)])
    return tokenizer


def wordpiece(size: int, *, lowercase: bool) -> Tokenizer:
    """A WordPiece tokenizer as BERT's."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    cut = pre_tokenizers.BertPreTokenizer().pre_tokenize_str(normalizer.normalize_str(CORPUS))
    # The library's own trainer gives another vocabulary each time.
    words = sorted({word for word, _ in cut})
    letters = sorted(set("".join(words)))
    ends = sorted({f"##{word[at:]}" for word in words for at in range(1, len(word) - 1)})
    starts = sorted({word[:3] for word in words if len(word) > 3})
    pieces = [*special, *letters, *(f"##{letter}" for letter in letters), *words, *ends, *starts]
    vocab = {piece: number for number, piece in enumerate(list(dict.fromkeys(pieces))[:size])}
    tokenizer = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]"))
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.add_special_tokens(special)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(text, tokenizer.token_to_id(text)) for text in ("[CLS]", "[SEP]")],
    )
    return tokenizer


def unigram(size: int) -> Tokenizer:
    """A Unigram tokenizer as XLM-RoBERTa's, with a small table of replacements."""
    with tempfile.NamedTemporaryFile("w", suffix=".tsv") as rules:
        # Tabs, ends of lines and narrow spaces are spaces; wide letters are letters.
        for before, after in (("9", "20"), ("A", "20"), ("A0", "20"), ("FF21", "41"), ("E9", "65")):
            rules.write(f"{before}\t{after}\n")
        rules.flush()
        model = sentencepiece_model(
            size - 2,
            model_type="unigram",
            byte_fallback=False,
            normalization_rule_name=None,
            normalization_rule_tsv=rules.name,
            remove_extra_whitespaces=True,
            split_digits=False,
            num_threads=1,
        )
    processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    pieces = [
        (processor.id_to_piece(number), processor.get_score(number))
        for number in range(3, processor.vocab_size())
    ]
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    vocab = [*((text, 0.0) for text in special), *pieces, ("<mask>", 0.0)]
    proto = sentencepiece_model_pb2.ModelProto.FromString(model)
    tokenizer = Tokenizer(models.Unigram(vocab, unk_id=3, byte_fallback=False))
    tokenizer.normalizer = normalizers.Precompiled(proto.normalizer_spec.precompiled_charsmap)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()]
    )
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.add_special_tokens([AddedToken(text, normalized=False) for text in special])
    tokenizer.add_special_tokens([AddedToken("<mask>", lstrip=True, normalized=False)])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>",
        pair="<s> $A </s> </s> $B </s>",
        special_tokens=[(text, tokenizer.token_to_id(text)) for text in ("<s>", "</s>")],
    )
    return tokenizer
