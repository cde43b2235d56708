"""The reference checkpoints of encoders: models that make one vector of a text."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import transformers
from reference_tokenizers import ENCODED, unigram, wordpiece
from reference_writer import made_with, randomize, write_json
from tokenizers import Tokenizer

SMALL = {
    "vocab_size": 480,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 96,
    "max_position_embeddings": 160,
    "initializer_range": 0.15,
}
# Of one kind of segment.
SMALLER = {
    "hidden_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 80,
    "initializer_range": 0.15,
    "type_vocab_size": 1,
}
BERT_SETTINGS: dict[str, object] = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
    "tokenizer_class": "BertTokenizer",
}


def write_encoder(
    folder: Path,
    config: transformers.PretrainedConfig,
    tokenizer: Tokenizer,
    pooling: str,
    settings: dict[str, object] = BERT_SETTINGS,
) -> None:
    """Write one checkpoint, and the vectors of unit length that it makes of a few texts.

    ``pooling`` is "mean" or "cls", written as sentence-transformers has it.
    """
    torch.manual_seed(20261)
    model = transformers.AutoModel.from_config(config, dtype=torch.float32)
    randomize(model, torch.Generator().manual_seed(20262))
    model.eval()
    (folder / "1_Pooling").mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    write_json(folder / "tokenizer_config.json", settings)
    kind = "sentence_transformers.models"
    write_json(
        folder / "modules.json",
        [
            {"idx": 0, "name": "0", "path": "", "type": f"{kind}.Transformer"},
            {"idx": 1, "name": "1", "path": "1_Pooling", "type": f"{kind}.Pooling"},
            {"idx": 2, "name": "2", "path": "2_Normalize", "type": f"{kind}.Normalize"},
        ],
    )
    write_json(
        folder / "1_Pooling" / "config.json",
        {
            "word_embedding_dimension": config.hidden_size,
            "pooling_mode_cls_token": pooling == "cls",
            "pooling_mode_mean_tokens": pooling == "mean",
        },
    )
    tokens = [tokenizer.encode(text).ids for text in ENCODED]
    np.save(folder / "reference.npy", np.stack([vector(model, ids, pooling) for ids in tokens]))
    write_json(
        folder / "reference.json", {"texts": ENCODED, "tokens": tokens, "made_with": made_with()}
    )
    model.to(torch.bfloat16).save_pretrained(folder)
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    print(f"{folder.name}: {[len(ids) for ids in tokens]} tokens, {size} bytes")


def vector(model: torch.nn.Module, tokens: list[int], pooling: str) -> np.ndarray:
    """The vector of unit length of one text, float32 (width,)."""
    with torch.no_grad():
        states = model(torch.tensor([tokens])).last_hidden_state[0]
    pooled = states[0] if pooling == "cls" else states.mean(dim=0)
    return (pooled / pooled.norm()).numpy()


def make_bert(folder: Path) -> None:
    config = transformers.BertConfig(**SMALL)
    write_encoder(folder, config, wordpiece(470, lowercase=True), "mean")


def make_bert_cased(folder: Path) -> None:
    config = transformers.BertConfig(
        **SMALLER,
        max_position_embeddings=160,
        vocab_size=480,
    )
    write_encoder(folder, config, wordpiece(480, lowercase=False), "cls")


def make_nomic_bert(folder: Path) -> None:
    config = transformers.NomicBertConfig(**SMALL)
    write_encoder(folder, config, wordpiece(470, lowercase=True), "mean")
    # As it stands on the hub, in the words of GPT-2.
    hub_config = {
        "architectures": ["NomicBertModel"],
        "activation_function": "swiglu",
        "causal": False,
        "layer_norm_epsilon": config.layer_norm_eps,
        "max_trained_positions": 2048,
        "mlp_fc1_bias": False,
        "mlp_fc2_bias": False,
        "model_type": "nomic_bert",
        "n_embd": config.hidden_size,
        "n_head": config.num_attention_heads,
        "n_inner": config.intermediate_size,
        "n_layer": config.num_hidden_layers,
        "n_positions": 8192,
        "prenorm": False,
        "qkv_proj_bias": False,
        "rotary_emb_base": 1000,
        "rotary_emb_fraction": 1.0,
        "rotary_emb_interleaved": False,
        "rotary_emb_scale_base": None,
        "rotary_scaling_factor": None,
        "type_vocab_size": 2,
        "use_rms_norm": False,
        "vocab_size": 480,
    }
    write_json(folder / "config.json", hub_config)


def make_xlm_roberta(folder: Path) -> None:
    config = transformers.XLMRobertaConfig(
        **SMALLER,
        max_position_embeddings=130,
        vocab_size=160,
        pad_token_id=1,
        bos_token_id=0,
        eos_token_id=2,
    )
    tokenizer = unigram(152)
    roles = {
        "bos_token": "<s>",
        "eos_token": "</s>",
        "cls_token": "<s>",
        "sep_token": "</s>",
        "unk_token": "<unk>",
        "pad_token": "<pad>",
        "mask_token": "<mask>",
    }
    settings = {**roles, "tokenizer_class": "XLMRobertaTokenizer"}
    write_encoder(folder, config, tokenizer, "cls", settings)
