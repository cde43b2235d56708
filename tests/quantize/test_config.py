"""What can be converted is known from config.json alone."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.checkpoints import LLAMA_CONFIG, REFERENCES

from packager.errors import AirpackError, MalformedError, UsageError
from packager.quantize.architectures import ARCHITECTURES, check_supported
from packager.quantize.config import ModelConfig, parse_config
from packager.quantize.rope import rope_tensors


def parse(**changes: object) -> ModelConfig:
    return parse_config({**LLAMA_CONFIG, **changes}, ARCHITECTURES["LlamaForCausalLM"].dialect)


@pytest.mark.parametrize(
    ("family", "expected"),
    [
        ("llama2", "llama"),
        ("llama3", "llama"),
        ("mistral", "llama"),
        ("qwen2", "qwen2"),
        ("qwen3", "qwen3"),
    ],
)
def test_the_supported_families_are_taken(family: str, expected: str) -> None:
    config = json.loads((REFERENCES / family / "config.json").read_text())

    assert check_supported(config) == expected


def test_an_unsupported_architecture_is_named_with_those_supported_and_the_way_out() -> None:
    with pytest.raises(UsageError, match="MambaForCausalLM") as caught:
        check_supported({**LLAMA_CONFIG, "architectures": ["MambaForCausalLM"]})
    assert all(name in caught.value.message for name in ARCHITECTURES)
    assert "format: gguf" in str(caught.value.hint)
    assert "format: safetensors" in str(caught.value.hint)


@pytest.mark.parametrize("names", [None, [], ["A", "B"], "LlamaForCausalLM", [1]])
def test_a_model_that_does_not_say_what_it_is_is_refused(names: object) -> None:
    with pytest.raises(UsageError, match="architecture"):
        check_supported({**LLAMA_CONFIG, "architectures": names})


def test_weights_quantized_already_are_refused() -> None:
    with pytest.raises(UsageError, match="quantized already"):
        check_supported({**LLAMA_CONFIG, "quantization_config": {"quant_method": "gptq"}})


@pytest.mark.parametrize("kind", ["dynamic", "longrope", "mrope"])
def test_rope_scaling_that_is_not_converted_is_refused(kind: str) -> None:
    with pytest.raises(UsageError, match=kind):
        parse(rope_scaling={"type": kind, "factor": 2.0})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("hidden_size", 0),
        ("hidden_size", -256),
        ("hidden_size", 2**40),
        ("hidden_size", 256.0),
        ("hidden_size", True),
        ("hidden_size", "256"),
        ("num_hidden_layers", 10**6),
        ("num_attention_heads", 3),
        ("num_key_value_heads", 3),
        ("num_key_value_heads", 8),
        ("head_dim", 7),
        ("vocab_size", 2**31),
        ("rms_norm_eps", 0),
        ("rms_norm_eps", "1e-5"),
        ("rope_theta", 1e300),
        ("rope_theta", -1.0),
        ("rope_scaling", [1]),
        ("rope_scaling", {"type": "linear", "factor": 0}),
        ("tie_word_embeddings", 1),
    ],
)
def test_values_that_make_no_sense_are_refused_with_their_place(key: str, value: object) -> None:
    with pytest.raises(MalformedError, match=r"config\.json"):
        parse(**{key: value})


def test_an_activation_that_llama_cpp_does_not_compute_here_is_refused() -> None:
    with pytest.raises(UsageError, match="gelu"):
        parse(hidden_act="gelu")


def test_rope_parameters_of_transformers_4_and_5_mean_the_same() -> None:
    scaling = {
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "rope_type": "llama3",
    }
    old = parse(
        rope_theta=500000.0, rope_scaling={**scaling, "original_max_position_embeddings": 64}
    )
    new = parse(
        rope_theta=None,
        rope_parameters={
            **scaling,
            "rope_theta": 500000.0,
            "original_max_position_embeddings": 64,
        },
    )

    assert old == new
    assert old.rope is not None
    assert old.rope.base == 500000.0


def test_llama_3_1_gets_the_rotary_factors_of_its_published_file() -> None:
    """rope_freqs.weight of Llama 3.1 8B: ones, a blend, then eights."""
    config = parse(
        hidden_size=4096,
        num_attention_heads=32,
        rope_theta=500000.0,
        rope_scaling={
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192,
            "rope_type": "llama3",
        },
    )

    assert config.rope is not None
    factors = rope_tensors(config.rope)["rope_freqs.weight"]

    assert len(factors) == 64
    assert factors[:29] == (1.0,) * 29
    assert factors[35:] == (8.0,) * 29
    assert all(1.0 < factor < 8.0 for factor in factors[29:35])
    assert list(factors) == sorted(factors)


def test_llama3_rope_scaling_of_another_family_is_refused() -> None:
    config = {
        **LLAMA_CONFIG,
        "architectures": ["Qwen2ForCausalLM"],
        "rope_scaling": {"rope_type": "llama3", "factor": 8.0},
    }

    with pytest.raises(UsageError, match="llama3"):
        check_supported(config)


def test_a_sliding_window_that_is_switched_off_does_not_count() -> None:
    assert parse(sliding_window=64, use_sliding_window=False).sliding_window is None
    assert parse(sliding_window=64).sliding_window == 64


@given(
    st.dictionaries(
        st.sampled_from([*LLAMA_CONFIG, "rope_scaling", "rope_parameters", "head_dim"]),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
            lambda inner: (
                st.lists(inner, max_size=2)
                | st.dictionaries(
                    st.sampled_from(["type", "rope_type", "factor"]), inner, max_size=3
                )
            ),
            max_leaves=4,
        ),
        max_size=4,
    )
)
def test_any_value_anywhere_is_taken_or_refused_by_an_error_of_ours(
    changes: dict[str, object],
) -> None:
    try:
        name = check_supported({**LLAMA_CONFIG, **changes})
    except AirpackError:
        return
    assert name == "llama"


def test_the_types_and_the_check_are_had_without_numpy() -> None:
    code = (
        "import sys; import packager.quantize, packager.quantize.types,"
        "packager.quantize.architectures as a;"
        "assert packager.quantize.VERSION and 'Q4_K_M' in packager.quantize.types.TYPE_NAMES;"
        "sys.exit(bool({'numpy', 'gguf', 'xllamacpp'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    "scaling",
    [
        {"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 1e20},
        {"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 2**32},
        {"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 0.5},
        {"rope_type": "llama3", "low_freq_factor": 1.0, "high_freq_factor": 1.0},
        {"rope_type": "llama3", "low_freq_factor": 5.0},
        {"rope_type": "llama3", "factor": 5e-324},
    ],
)
def test_rope_scaling_that_no_model_has_is_refused(scaling: dict[str, object]) -> None:
    with pytest.raises(MalformedError, match=r"config\.json: rope_scaling\."):
        parse(rope_scaling=scaling)
