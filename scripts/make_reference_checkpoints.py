"""Make the small random checkpoints, and transformers' answers to them, in tests/references/.

    pip install torch transformers tokenizers sentencepiece
    python scripts/make_reference_checkpoints.py tests/references [NAME...]

Not run by CI: what it wrote is committed, and is a contract. Each folder is a hub-shaped
checkpoint with random weights (bfloat16, large enough that attention, norms and rotary positions
all matter), a tokenizer trained on the text of reference_tokenizers.py, and ``reference.json``
with the numbers of the tokens that transformers makes of a text, and ``reference.npy`` with its
logits, float32 (positions, vocabulary), computed in float32.
"""

from __future__ import annotations

import sys
from pathlib import Path

import reference_encoders as encoders
import reference_families as families
import reference_gpt_oss as gpt_oss
import reference_llamas as llamas

MAKERS = {
    "llama3": llamas.make_llama3,
    "llama2": llamas.make_llama2,
    "mistral": llamas.make_mistral,
    "qwen2": llamas.make_qwen2,
    "qwen3": llamas.make_qwen3,
    "llama-gpt2": llamas.make_gpt2_llama,
    "mixtral": families.make_mixtral,
    "ministral": families.make_ministral,
    "ministral3": families.make_ministral3,
    "qwen3-moe": families.make_qwen3_moe,
    "gemma2": families.make_gemma2,
    "gemma3": families.make_gemma3,
    "phi3": families.make_phi3,
    "phi4-mini": families.make_phi4_mini,
    "granite": families.make_granite,
    "granite-moe": families.make_granite_moe,
    "granite4": families.make_granite4,
    "smollm3": families.make_smollm3,
    "olmo2": families.make_olmo2,
    "olmo3": families.make_olmo3,
    "gpt-oss": gpt_oss.make_gpt_oss,
    "gpt-oss-bf16": gpt_oss.make_gpt_oss_bf16,
    "bert": encoders.make_bert,
    "bert-cased": encoders.make_bert_cased,
    "xlm-roberta": encoders.make_xlm_roberta,
    "nomic-bert": encoders.make_nomic_bert,
}


def main() -> None:
    root, names = Path(sys.argv[1]), sys.argv[2:] or list(MAKERS)
    for name in names:
        MAKERS[name](root / name)


if __name__ == "__main__":
    main()
