"""Make the small random checkpoints, and transformers' answers to them, in tests/references/.

    pip install torch transformers tokenizers sentencepiece
    python scripts/make_reference_checkpoints.py tests/references

Not run by CI: what it wrote is committed, and is a contract. Each folder is a hub-shaped
checkpoint with random weights (bfloat16, large enough that attention, norms and rotary positions
all matter), a tokenizer trained on the text below, and ``reference.json`` with the numbers of the
tokens that transformers makes of a text, and ``reference.npy`` with its logits, float32
(positions, vocabulary), computed in float32.
"""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import numpy as np
import sentencepiece
import tokenizers
import torch
import transformers
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
LLAMA3_CHAT = (
    "{{ bos_token }}{% for message in messages %}<|start|>{{ message['role'] }}\n"
    "{{ message['content'] }}<|eot_id|>{% endfor %}"
)
SHAPE = {
    "hidden_size": 96,
    "intermediate_size": 192,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "initializer_range": 0.15,
}


def byte_level(
    cut: str | None, special: list[str], *, size: int, ignore_merges: bool, nfc: bool = False
) -> Tokenizer:
    """A byte-level BPE tokenizer trained on the corpus; ``cut`` None is GPT-2's own."""
    tokenizer = Tokenizer(models.BPE(ignore_merges=ignore_merges))
    if nfc:
        tokenizer.normalizer = normalizers.NFC()
    byte_step = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=cut is None)
    tokenizer.pre_tokenizer = (
        byte_step
        if cut is None
        else pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(cut), "isolated"), byte_step])
    )
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


def sentencepiece_model(size: int) -> bytes:
    """A SentencePiece BPE model, set up as Llama 2's."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(line for line in CORPUS.splitlines() if line.strip()),
        model_writer=model,
        model_type="bpe",
        vocab_size=size,
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        allow_whitespace_only_pieces=True,
        split_digits=True,
        character_coverage=0.99,
        pad_id=-1,
        minloglevel=2,
    )
    return model.getvalue()


def sentencepiece_tokenizer(model: bytes) -> Tokenizer:
    """What transformers' converter makes of a Llama 2 ``tokenizer.model``: every merge there is."""
    processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    vocab = {processor.id_to_piece(i): i for i in range(processor.vocab_size())}
    merges = []
    for piece, number in vocab.items():
        cuts = [(piece[:i], piece[i:]) for i in range(1, len(piece))]
        known = [(left, right) for left, right in cuts if left in vocab and right in vocab]
        known.sort(key=lambda pair: (vocab[pair[0]], vocab[pair[1]]))
        merges += [(processor.get_score(number), pair) for pair in known]
    merges.sort(key=lambda item: item[0], reverse=True)
    tokenizer = Tokenizer(
        models.BPE(
            vocab,
            [pair for _, pair in merges],
            unk_token="<unk>",
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]
    )
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("\u2581", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    special = [AddedToken(text, normalized=False) for text in ("<unk>", "<s>", "</s>")]
    tokenizer.add_special_tokens(special)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)]
    )
    return tokenizer


def randomize(model: torch.nn.Module, generator: torch.Generator) -> None:
    """Give biases and norms values too: transformers leaves them at 0 and 1."""
    for name, parameter in model.named_parameters():
        if parameter.dim() == 1:
            center = 0.0 if name.endswith("bias") else 1.0
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.data.copy_(center + 0.25 * noise)
        parameter.data.copy_(parameter.data.to(torch.bfloat16).to(torch.float32))


def write_checkpoint(
    folder: Path,
    config: transformers.PretrainedConfig,
    tokenizer: Tokenizer,
    tokenizer_config: dict[str, object],
    special: str,
    *,
    shard_size: str = "1GB",
) -> None:
    """Write one checkpoint, and transformers' answers to it."""
    torch.manual_seed(20261)
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    randomize(model, torch.Generator().manual_seed(20262))
    model.eval()
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    write_json(folder / "tokenizer_config.json", tokenizer_config)

    text = TEXT.format(special=special)
    tokens = tokenizer.encode(text).ids
    with torch.no_grad():
        logits = model(torch.tensor([tokens])).logits[0].float().numpy()
    positions = [0, 1, 2, 7, 20, 41, len(tokens) // 2, len(tokens) - 1]
    np.save(folder / "reference.npy", logits[positions])
    write_json(
        folder / "reference.json",
        {
            "text": text,
            "tokens": tokens,
            "positions": positions,
            "made_with": {
                "torch": torch.__version__,
                "transformers": transformers.__version__,
                "tokenizers": tokenizers.__version__,
            },
        },
    )
    model.to(torch.bfloat16).save_pretrained(folder, max_shard_size=shard_size)
    (folder / "generation_config.json").unlink(missing_ok=True)
    for path in folder.iterdir():
        path.chmod(0o644)
    size = sum(path.stat().st_size for path in folder.iterdir())
    print(f"{folder.name}: {len(tokens)} tokens, {size} bytes")


def write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def make_llama3(folder: Path) -> None:
    special = ["<|begin_of_text|>", "<|end_of_text|>", "<|start|>", "<|eot_id|>"]
    tokenizer = byte_level(LLAMA3_CUT, special, size=640, ignore_merges=True)
    begin_with(tokenizer, special[0])
    config = transformers.LlamaConfig(
        **SHAPE,
        vocab_size=640,
        bos_token_id=tokenizer.token_to_id(special[0]),
        eos_token_id=tokenizer.token_to_id(special[1]),
        tie_word_embeddings=False,
        rope_parameters={
            "rope_type": "llama3",
            "rope_theta": 500000.0,
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 64,
        },
    )
    settings = {"bos_token": special[0], "eos_token": special[1], "chat_template": LLAMA3_CHAT}
    write_checkpoint(folder, config, tokenizer, settings, "<|eot_id|>")


def make_llama2(folder: Path) -> None:
    model = sentencepiece_model(640)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.model").write_bytes(model)
    # One more embedding than tokens, as padded checkpoints have.
    config = transformers.LlamaConfig(
        **{**SHAPE, "num_key_value_heads": 4},
        vocab_size=641,
        bos_token_id=1,
        eos_token_id=2,
        tie_word_embeddings=False,
        attention_bias=True,
        mlp_bias=True,
    )
    settings = {
        "add_bos_token": True,
        "add_eos_token": False,
        "bos_token": {"content": "<s>", "normalized": False},
        "eos_token": {"content": "</s>", "normalized": False},
        "unk_token": {"content": "<unk>", "normalized": False},
        "tokenizer_class": "LlamaTokenizer",
    }
    write_checkpoint(folder, config, sentencepiece_tokenizer(model), settings, "</s>")


def make_mistral(folder: Path) -> None:
    special = ["<unk>", "<s>", "</s>", "[INST]", "[/INST]"]
    tokenizer = byte_level(TEKKEN_CUT, special, size=640, ignore_merges=True)
    begin_with(tokenizer, "<s>")
    config = transformers.MistralConfig(
        **SHAPE,
        head_dim=32,
        vocab_size=640,
        bos_token_id=tokenizer.token_to_id("<s>"),
        eos_token_id=tokenizer.token_to_id("</s>"),
        rope_parameters={"rope_type": "default", "rope_theta": 1000000.0},
        sliding_window=None,
        tie_word_embeddings=False,
    )
    settings = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    write_checkpoint(folder, config, tokenizer, settings, "[INST]")


def make_qwen2(folder: Path) -> None:
    special = [GPT2_END, "<|im_start|>", "<|im_end|>"]
    tokenizer = byte_level(QWEN2_CUT, special, size=640, ignore_merges=False, nfc=True)
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    config = transformers.Qwen2Config(
        **SHAPE,
        vocab_size=656,
        bos_token_id=tokenizer.token_to_id(GPT2_END),
        eos_token_id=tokenizer.token_to_id("<|im_end|>"),
        rope_parameters={"rope_type": "default", "rope_theta": 1000000.0},
        tie_word_embeddings=True,
    )
    settings = {"bos_token": None, "eos_token": "<|im_end|>", "pad_token": GPT2_END}
    write_checkpoint(folder, config, tokenizer, settings, "<|im_end|>")


def make_qwen3(folder: Path) -> None:
    special = [GPT2_END, "<|im_start|>", "<|im_end|>"]
    tokenizer = byte_level(QWEN2_CUT, special, size=640, ignore_merges=False, nfc=True)
    config = transformers.Qwen3Config(
        **SHAPE,
        head_dim=48,
        vocab_size=640,
        bos_token_id=tokenizer.token_to_id(GPT2_END),
        eos_token_id=tokenizer.token_to_id("<|im_end|>"),
        rope_parameters={
            "rope_type": "yarn",
            "rope_theta": 1000000.0,
            "factor": 4.0,
            "original_max_position_embeddings": 128,
        },
        tie_word_embeddings=False,
    )
    settings = {"eos_token": "<|im_end|>", "pad_token": GPT2_END}
    write_checkpoint(folder, config, tokenizer, settings, "<|im_start|>", shard_size="200KB")


def make_gpt2_llama(folder: Path) -> None:
    tokenizer = byte_level(None, [GPT2_END], size=512, ignore_merges=False)
    config = transformers.LlamaConfig(
        **SHAPE,
        vocab_size=512,
        bos_token_id=tokenizer.token_to_id(GPT2_END),
        eos_token_id=tokenizer.token_to_id(GPT2_END),
        tie_word_embeddings=True,
        rope_parameters={"rope_type": "linear", "rope_theta": 10000.0, "factor": 2.0},
    )
    settings = {"bos_token": GPT2_END, "eos_token": GPT2_END}
    write_checkpoint(folder, config, tokenizer, settings, GPT2_END)


def main() -> None:
    root = Path(sys.argv[1])
    make_llama3(root / "llama3")
    make_llama2(root / "llama2")
    make_mistral(root / "mistral")
    make_qwen2(root / "qwen2")
    make_qwen3(root / "qwen3")
    make_gpt2_llama(root / "llama-gpt2")


if __name__ == "__main__":
    main()
