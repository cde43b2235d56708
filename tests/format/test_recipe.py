"""Recipes: what a person may write, and where the error says the mistake is."""

from __future__ import annotations

import textwrap

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from packager.errors import ParseError
from packager.format.digest import Digest
from packager.format.recipe import (
    DEFAULT_INCLUDE,
    Calibration,
    FolderSource,
    HubSource,
    Medium,
    QualityGate,
    Runtime,
    Variant,
    parse_recipe,
)
from packager.format.target import Target

LEAST = """\
name: tiny
source: {hub: org/Tiny}
variants: [{name: q8_0, format: gguf, type: Q8_0}]
"""
CONTRACT = """\
name: qwen2.5-0.5b-instruct
version: 1.0.0
sequence: 7
source:
  hub: Qwen/Qwen2.5-0.5B-Instruct
  revision: main
  include: ["*.safetensors", "*.json", "tokenizer*", "LICENSE*", "README.md"]
licence: {allow: [apache-2.0, MIT]}
variants:
  - {name: q4_k_m, format: gguf, type: Q4_K_M, overrides: {"blk.*.ffn_down.weight": Q6_K}}
  - {name: w4a16, format: compressed-tensors, scheme: W4A16}
  - {name: original, format: safetensors}
calibrate: {text: calibration.txt, imatrix: true}
quality: {text: held-out.txt, max_perplexity_increase: 2.5%}
smoke: {prompts: ["The capital of France is"], max_tokens: 16, text: short.txt}
targets:
  - {platform: linux_x86_64, python: ["3.10", "3.13"], glibc: "2.28"}
runtime: {engine: llama.cpp, extra_wheels: [numpy]}
medium: {volume_size: 4GiB, parity: 1}
signers: 2
expires: 2027-01-31
"""


def refusal(text: str | bytes) -> str:
    with pytest.raises(ParseError) as caught:
        parse_recipe(text)
    assert caught.value.exit_code == 2
    return caught.value.message


def complaint(text: str) -> str:
    """What is wrong with ``text``; just ``recipe:`` and a blank for a good one."""
    try:
        parse_recipe(text)
    except ParseError as error:
        return error.message
    return "recipe: "


def with_line(line: str) -> str:
    """The least recipe, with ``line`` in place of the one for the same field, or added."""
    key = line.partition(":")[0]
    kept = [text for text in LEAST.splitlines() if not text.startswith(f"{key}:")]
    return "\n".join([*kept, line, ""])


def test_least_recipe_has_sane_defaults() -> None:
    recipe = parse_recipe(LEAST)

    assert (recipe.name, recipe.version, recipe.sequence, recipe.signers) == ("tiny", "1.0.0", 1, 1)
    assert recipe.source == HubSource("org/Tiny", "main")
    assert recipe.include == DEFAULT_INCLUDE
    assert recipe.variants == (Variant("q8_0", "gguf", "Q8_0", None),)
    assert recipe.licences == recipe.exclude == recipe.texts == ()
    assert (recipe.calibration, recipe.quality, recipe.expires) == (None, None, None)
    assert recipe.smoke.prompts
    assert recipe.smoke.max_tokens == 32
    assert recipe.targets == (
        Target("linux_x86_64", ("3.10", "3.11", "3.12", "3.13"), "2.28"),
    )  # fmt: skip
    assert recipe.medium == Medium(None, 0)
    assert recipe.digest == Digest.of(LEAST.encode())


def test_every_field_of_the_contract_is_read() -> None:
    recipe = parse_recipe(CONTRACT)

    assert recipe.sequence == 7
    assert recipe.licences == ("apache-2.0", "mit")
    assert [variant.format for variant in recipe.variants] == [
        "gguf", "compressed-tensors", "safetensors",
    ]  # fmt: skip
    assert recipe.variants[0].overrides == (("blk.*.ffn_down.weight", "Q6_K"),)
    assert recipe.variants[1].scheme == "W4A16"
    assert recipe.calibration == Calibration("calibration.txt", imatrix=True)
    assert recipe.quality == QualityGate("held-out.txt", 25_000)
    assert recipe.smoke.max_tokens == 16
    assert recipe.texts == ("short.txt", "calibration.txt", "held-out.txt")
    assert recipe.targets == (Target("linux_x86_64", ("3.10", "3.13"), "2.28"),)
    assert recipe.runtime == Runtime("llama.cpp", ("numpy",))
    assert recipe.medium == Medium(4 << 30, 1)
    assert recipe.expires == "2027-01-31"


def test_a_target_needs_no_more_than_a_platform_and_a_source_may_be_signed() -> None:
    recipe = parse_recipe(with_line("targets: [{platform: linux_aarch64}]"))
    default = parse_recipe(LEAST).targets[0]
    assert recipe.targets == (Target("linux_aarch64", default.python, default.glibc),)
    assert recipe.signed_by is None
    signed = parse_recipe(with_line("source: {hub: org/Tiny, signed_by: publisher.pub}"))
    assert signed.signed_by == "publisher.pub"


def test_a_path_beyond_any_file_system_is_refused() -> None:
    least = with_line("source: {path: " + "a" * 4096 + "}")
    assert parse_recipe(least).source == FolderSource("a" * 4096)
    assert complaint(least.replace("aaaa", "aaaaa", 1)).startswith("recipe: source.path: is too lo")


def test_a_ready_importance_matrix_may_be_named_in_place_of_a_text() -> None:
    recipe = parse_recipe(with_line("calibrate: {imatrix: calibration.gguf}"))

    assert recipe.calibration == Calibration(None, imatrix=False, matrix="calibration.gguf")
    assert recipe.calibration.gives_matrix
    assert recipe.texts == ()


def test_a_text_alone_gives_no_importance_matrix() -> None:
    recipe = parse_recipe(with_line("calibrate: {text: a.txt}"))

    assert recipe.calibration == Calibration("a.txt", imatrix=False)
    assert not recipe.calibration.gives_matrix


def test_single_tensors_may_have_types_of_their_own_in_the_order_written() -> None:
    recipe = parse_recipe(
        """\
name: tiny
source: {hub: org/Tiny}
variants:
  - name: mixed
    format: gguf
    type: IQ4_XS
    output: Q8_0
    token_embedding: Q6_K
    overrides:
      blk.0.*: F16
      "*.ffn_down.weight": Q5_K
"""
    )

    assert recipe.variants == (
        Variant(
            "mixed",
            "gguf",
            "IQ4_XS",
            None,
            overrides=(("blk.0.*", "F16"), ("*.ffn_down.weight", "Q5_K")),
            output="Q8_0",
            token_embedding="Q6_K",
        ),
    )


def test_more_patterns_than_anybody_writes_are_refused() -> None:
    patterns = ", ".join(f"blk.{number}.*: Q8_0" for number in range(257))

    assert "more than 256 patterns" in refusal(
        with_line(f"variants: [{{name: a, format: gguf, type: F16, overrides: {{{patterns}}}}}]")
    )


def test_local_folder_is_a_source() -> None:
    assert parse_recipe(with_line("source: {path: ./dir}")).source == FolderSource("./dir")


def test_default_include_takes_the_model_and_leaves_its_doubles() -> None:
    recipe = parse_recipe(LEAST)

    wanted = [
        "model.safetensors", "model-00001-of-00004.safetensors", "model.safetensors.index.json",
        "config.json", "tokenizer.json", "tokenizer.model", "vocab.json", "merges.txt",
        "chat_template.jinja", "LICENSE", "LICENSE.txt", "NOTICE", "USE_POLICY.md", "README.md",
    ]  # fmt: skip
    unwanted = [
        "consolidated.safetensors", "original/params.json", "original/tokenizer.model",
        "onnx/model.onnx", "pytorch_model.bin", ".gitattributes", "modeling_x.py", "train.txt",
        "model.safetensors/x.json",
    ]  # fmt: skip
    assert [path for path in wanted if not recipe.wants(path)] == []
    assert [path for path in unwanted if recipe.wants(path)] == []


def test_exclude_takes_away_from_include() -> None:
    recipe = parse_recipe(
        with_line('source: {hub: a/b, include: ["**/*.json"], exclude: ["x/*.json"]}')
    )

    assert [p for p in ("a.json", "x/a.json", "y/z/a.json") if recipe.wants(p)] == [
        "a.json",
        "y/z/a.json",
    ]


@pytest.mark.parametrize(
    ("line", "where"),
    [
        ("name: Big Name", "recipe: name: "),
        ("name: ../x", "recipe: name: "),
        ("name: con", "recipe: name: "),
        ("name: 5", "recipe: name: expected text"),
        ("version: 1.0", "recipe: version: expected text, got a fraction"),
        ("sequence: 0", "recipe: sequence: "),
        ("sequence: true", "recipe: sequence: "),
        ("sequnce: 1", "recipe: sequnce: unknown field; known are name"),
        ("source: {}", "recipe: source.hub: name either hub or path"),
        ("source: {hub: a/b, path: c}", "recipe: source.hub: name either hub or path"),
        ("source: {path: c, revision: main}", "recipe: source.revision: "),
        ("source: {hub: https://hub/a}", "recipe: source.hub: "),
        ("source: {hub: a/b/c}", "recipe: source.hub: "),
        ('source: {hub: a/b, include: ["/etc/*"]}', "recipe: source.include[0]: "),
        ('source: {hub: a/b, include: ["a", "../*"]}', "recipe: source.include[1]: "),
        ("licence: {allow: mit}", "recipe: licence.allow: expected a list"),
        ('licence: {allow: [mit, "Apache 2.0"]}', "recipe: licence.allow[1]: "),
        ("licence: apache-2.0", "recipe: licence: expected a mapping"),
        ("variants: []", "recipe: variants: 0 of them"),
        ("variants: [{name: a, format: safetensors}, {name: b, format: exl2}]",
         "recipe: variants[1].format: 'exl2' is not one of gguf, safetensors, compressed-tensors"),
        ("variants: [{name: a, format: gguf}]", "recipe: variants[0].type: missing"),
        ("variants: [{name: a, format: gguf, type: F16, file: a.gguf}]",
         "recipe: variants[0].type: is of what is quantized here"),
        ("variants: [{name: a, format: gguf, output: Q8_0, file: a.gguf}]",
         "recipe: variants[0].output: is of what is quantized here"),
        ("variants: [{name: a, format: safetensors, file: a.gguf}]",
         "recipe: variants[0].file: belongs to the format gguf, not to safetensors"),
        ("variants: [{name: a, format: gguf, file: a.bin}]",
         "recipe: variants[0].file: 'a.bin' is no GGUF file, as model-Q4_K_M.gguf"),
        ("variants: [{name: a, format: gguf, file: ../a.gguf}]",
         "recipe: variants[0].file: is not a pattern relative to the source"),
        ("variants: [{name: a, format: gguf, type: q4_k_m}]", "recipe: variants[0].type: "),
        ("variants: [{name: a, format: safetensors, type: F16}]", "recipe: variants[0].type: "),
        ("variants: [{name: a, format: gguf, type: F16, scheme: W4A16}]",
         "recipe: variants[0].scheme: "),
        ("variants: [{name: a, format: safetensors}, {name: a, format: safetensors}]",
         "recipe: variants[1].name: a second 'a'"),
        ("variants: [{name: a, format: safetensors, overrides: {b: Q8_0}}]",
         "recipe: variants[0].overrides: belongs to the format gguf, not to safetensors"),
        ("variants: [{name: a, format: gguf, type: F16, output: q8_0}]",
         "recipe: variants[0].output: 'q8_0' is not a type in capitals"),
        ("variants: [{name: a, format: gguf, type: F16, token_embedding: 8}]",
         "recipe: variants[0].token_embedding: expected text, got an integer"),
        ("variants: [{name: a, format: gguf, type: F16, overrides: [Q8_0]}]",
         "recipe: variants[0].overrides: expected a mapping, got a list"),
        ("variants: [{name: a, format: gguf, type: F16, overrides: {blk.*: Q-8}}]",
         "recipe: variants[0].overrides.blk.*: 'Q-8' is not a type in capitals"),
        ('variants: [{name: a, format: gguf, type: F16, overrides: {"": Q8_0}}]',
         "recipe: variants[0].overrides.'': is not a pattern of tensor names"),
        ("variants: [{name: a, format: gguf, type: F16, overrides: {5: Q8_0}}]",
         "recipe: variants[0].overrides: key 5 is not text"),
        ("calibrate: {imatrix: true}", "recipe: calibrate.text: missing"),
        ("calibrate: {imatrix: m.gguf, text: a.txt}",
         "recipe: calibrate.text: is not needed where imatrix names a ready matrix"),
        ('calibrate: {imatrix: ""}', "recipe: calibrate.imatrix: is empty"),
        ("calibrate: {text: a.txt, imatrix: 1}",
         "recipe: calibrate.imatrix: expected true or false, got an integer"),
        ("quality: {text: a, max_perplexity_increase: \u0665%}",
         "recipe: quality.max_perplexity_increase: "),
        ("quality: {text: a, max_perplexity_increase: 0.05}",
         "recipe: quality.max_perplexity_increase: expected text"),
        ("smoke: {prompts: []}", "recipe: smoke.prompts: 0 of them"),
        ("smoke: {prompts: [1]}", "recipe: smoke.prompts[0]: expected text"),
        ("smoke: {max_tokens: 0}", "recipe: smoke.max_tokens: "),
        ("targets: []", "recipe: targets: 0 of them"),
        ("targets: [{platform: linux_x86_64, python: [3.10]}]",
         "recipe: targets[0].python[0]: expected text, got a fraction"),
        ("targets: [{platform: linux_x86_64, glibc: '3.1'}]", "recipe: targets[0].glibc: "),
        ("targets: [{platform: linux_x86_64, glibc: '2.\u0662'}]", "recipe: targets[0].glibc: "),
        ("targets: [{platform: linux_x86_64, python: ['3.\u0661']}]",
         "recipe: targets[0].python[0]: "),
        ("runtime: {engine: vllm}", "recipe: runtime.engine: 'vllm' is not one of llama.cpp"),
        ("medium: {volume_size: 4 gigs}", "recipe: medium.volume_size: '4 gigs' is not a size"),
        ("medium: {volume_size: 0}", "recipe: medium.volume_size: "),
        ("medium: {parity: -1}", "recipe: medium.parity: "),
        ("signers: 0", "recipe: signers: "),
        ("signers: 101", "recipe: signers: "),
        ('source: {hub: a/b, revision: "a\\nb"}', "recipe: source.revision: is too long, or"),
        ('source: {path: "a\\tb"}', "recipe: source.path: is too long, or"),
        ('source: {hub: a/b, include: ["\\e"]}', "recipe: source.include[0]: is too long, or"),
        ('runtime: {extra_wheels: [a, "\\e"]}', "recipe: runtime.extra_wheels[1]: is too long, or"),
        ("targets: [{platform: linux x86}]",
         "recipe: targets[0].platform: 'linux x86' is not a platform, as linux_x86_64"),
        ("targets: [{platform: a, python: []}]", "recipe: targets[0].python: 0 of them"),
        ("medium: {parity: 256}", "recipe: medium.parity: "),
        ("smoke: {max_tokens: 4097}", "recipe: smoke.max_tokens: "),
        ("expires: soon", "recipe: expires: 'soon' is not a date"),
        ("expires: 2027-02-30", "recipe: expires: "),
    ],
)  # fmt: skip
def test_mistake_is_refused_where_it_is(line: str, where: str) -> None:
    assert refusal(with_line(line)).startswith(where)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "expected a mapping, got nothing"),
        ("[]", "expected a mapping, got a list"),
        ("name: [", "line 1"),
        (LEAST + "name: other\n", "line 4, column 1: 'name' is said twice"),
        (LEAST + "source: {hub: x/y}\n", "'source' is said twice"),
        ("name: &a x\nversion: *a\n", "anchors and aliases"),
        ("<<: {name: a}\n", "a key that is not plain text"),
        ("name: !!python/object/apply:os.system [id]\n", "the tag"),
        ("? [a]\n: b\n", "a key that is not plain text"),
        ("name: a\n---\nname: b\n", "expected a single document"),
        ("a: " + "[" * 100_000, "nested deeper than 16"),
        ("\x00", "special characters are not allowed"),
        ("name: 9" + "9" * 10_000, "recipe"),
    ],
)
def test_yaml_beyond_the_subset_is_refused(text: str, words: str) -> None:
    assert words in refusal(text)


def test_recipe_that_is_not_text_or_too_large_is_refused() -> None:
    assert "not UTF-8 text, at byte 6" in refusal(b"name: \xff")
    assert "more than the limit" in refusal("#" * (256 << 10) + "\n")


def test_alias_bomb_takes_no_memory() -> None:
    bomb = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"{key}: &{key} [{', '.join([f'*{before}'] * 9)}]\n"
        for before, key in zip("abcdefgh", "bcdefghi", strict=True)
    )

    assert "anchors and aliases" in refusal(bomb)


@given(st.text(max_size=200))
def test_any_text_is_a_recipe_or_a_located_error(text: str) -> None:
    assert complaint(text).startswith("recipe: ")


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["name", "hub", "format", "type", "allow", "text", "x"]), inner
            )
        ),
        max_leaves=8,
    ),
    st.sampled_from(sorted(yaml.safe_load(CONTRACT))),
)
def test_any_value_of_any_field_is_taken_or_refused_with_its_place(value: object, key: str) -> None:
    document = yaml.safe_load(textwrap.dedent(CONTRACT)) | {"expires": "2027-01-31", key: value}

    assert complaint(yaml.safe_dump(document)).startswith("recipe: ")
