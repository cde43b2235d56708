"""Weights that come in FP8 become what they hold times their scales; others are refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from support.checkpoints import (
    REFERENCES,
    decode,
    encode,
    files_of,
    read_source,
    safetensors_bytes,
    write_llama,
)
from support.compressed import FP8_VALUES
from support.random_checkpoints import write_random
from support.watching import Watching

from packager.errors import AirpackError, IntegrityError, MalformedError, UsageError
from packager.progress import Silent
from packager.quantize.architectures import check_supported
from packager.quantize.pipeline import quantize

Tensors = dict[str, tuple[str, tuple[int, ...], bytes]]


@dataclass(frozen=True)
class Layout:
    """How a model in FP8 is written: what a scale covers, (0, 0) for all, and what it is called."""

    config: dict[str, object]
    suffix: str
    covered: tuple[int, int]
    shape: Callable[[int, int], tuple[int, ...]]
    dtype: str
    beside: tuple[str, ...] = ()


def fp8(**more: object) -> dict[str, object]:
    return {"quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic", **more}


def compressed(
    strategy: str, storage: str = "float-quantized", **more: object
) -> dict[str, object]:
    weights = {"num_bits": 8, "type": "float", "symmetric": True, "strategy": strategy, **more}
    groups = {"group_0": {"targets": ["Linear"], "weights": weights}}
    return {"quant_method": "compressed-tensors", "format": storage, "config_groups": groups}


LAYOUTS = {
    "blocks, as DeepSeek and Qwen have": Layout(
        fp8(weight_block_size=[128, 128]),
        "_scale_inv",
        (128, 128),
        lambda rows, columns: (-(-rows // 128), -(-columns // 128)),
        "F32",
    ),
    "blocks that are not square, in bfloat16": Layout(
        fp8(weight_block_size=[32, 96]),
        "_scale_inv",
        (32, 96),
        lambda rows, columns: (-(-rows // 32), -(-columns // 96)),
        "BF16",
    ),
    "blocks whose scales are powers of two, a byte each": Layout(
        fp8(weight_block_size=[128, 128], scale_fmt="ue8m0"),
        "_scale_inv",
        (128, 128),
        lambda rows, columns: (-(-rows // 128), -(-columns // 128)),
        "F8_E8M0",
    ),
    "whole tensors, as Ministral has": Layout(
        fp8(weight_block_size=None),
        "_scale_inv",
        (0, 0),
        lambda *_: (),
        "BF16",
        ("activation_scale",),
    ),
    "whole tensors, as AutoFP8 wrote": Layout(
        fp8(), "_scale", (0, 0), lambda *_: (1,), "F32", ("input_scale",)
    ),
    "rows, as compressed-tensors": Layout(
        compressed("channel"), "_scale", (1, 0), lambda rows, _: (rows, 1), "BF16"
    ),
    "rows in one dimension, in half precision": Layout(
        compressed("channel"), "_scale", (1, 0), lambda rows, _: (rows,), "F16"
    ),
    "whole tensors, with factors for the memory of attention": Layout(
        compressed("tensor", "naive-quantized"),
        "_scale",
        (0, 0),
        lambda *_: (1,),
        "F32",
        ("input_scale",),
    ),
    "blocks, as compressed-tensors": Layout(
        compressed("block", block_structure=[128, 128]),
        "_scale",
        (128, 128),
        lambda rows, columns: (-(-rows // 128), -(-columns // 128)),
        "F32",
    ),
}


def as_stored(scales: np.ndarray, dtype: str) -> tuple[bytes, np.ndarray]:
    """The bytes of ``scales``, and what these stand for."""
    if dtype == "F8_E8M0":
        exponents = np.floor(np.log2(scales)).astype(int)
        return (exponents + 127).astype(np.uint8).tobytes(), np.ldexp(np.float32(1), exponents)
    stored = encode(scales, dtype)
    return stored, decode(stored, dtype)


def in_fp8(model: Path, layout: Layout) -> tuple[Tensors, Tensors]:
    """``model`` with random FP8 in its linear layers, and with the floats that these are."""
    random = np.random.default_rng(11)
    ours: Tensors = {}
    floats: Tensors = {}
    for name, values in read_source(model).items():
        if "layers." not in name or not name.endswith("_proj.weight"):
            ours[name] = "BF16", values.shape, encode(values, "BF16")
            floats[name] = "F32", values.shape, values.tobytes()
            continue
        rows, columns = values.shape
        codes = random.integers(0, 255, values.shape, np.uint8)
        codes[codes & 127 == 127] = 0
        shape = layout.shape(rows, columns)
        scales = np.exp(random.standard_normal(shape or (1,), np.float32) - 7).astype(np.float32)
        stored, scales = as_stored(scales, layout.dtype)
        ours[name] = "F8_E4M3", values.shape, codes.tobytes()
        ours[name + layout.suffix] = layout.dtype, shape, stored
        for more in layout.beside:
            ours[name.replace("weight", more)] = (
                "BF16",
                (),
                encode(scales[:1].reshape(-1)[:1], "BF16"),
            )
        height, width = layout.covered
        grid = scales.reshape(-1, -(-columns // (width or columns)))
        by_element = np.repeat(np.repeat(grid, height or rows, 0), width or columns, 1)
        product = FP8_VALUES[codes] * by_element[:rows, :columns]
        floats[name] = "F32", values.shape, product.tobytes()
    return ours, floats


def write_both(model: Path, folder: Path, layout: Layout) -> tuple[Path, Path]:
    """The checkpoint in FP8, and the one of floats, made after the shape of ``model``."""
    ours, floats = in_fp8(model, layout)
    for name, tensors in (("fp8", ours), ("floats", floats)):
        shutil.copytree(model, folder / name)
        (folder / name / "model.safetensors").write_bytes(safetensors_bytes(tensors))
    config = json.loads((model / "config.json").read_text())
    config["quantization_config"] = layout.config
    (folder / "fp8" / "config.json").write_text(json.dumps(config))
    return folder / "fp8", folder / "floats"


def gguf(model: Path, type_name: str, progress: Watching | None = None) -> bytes:
    out = model / "m.gguf"
    quantize(files_of(model), type_name, out, name="m", progress=progress or Silent())
    data = out.read_bytes()
    out.unlink()
    return data


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_the_rows_are_those_of_the_definition(tmp_path: Path, layout: Layout) -> None:
    """Rows and columns are no multiples of the blocks; those of q and k change their order."""
    model = write_llama(tmp_path / "m", hidden_size=320, intermediate_size=400)

    ours, floats = write_both(model, tmp_path, layout)

    assert gguf(ours, "F32") == gguf(floats, "F32")


@pytest.mark.parametrize("type_name", ["Q4_K_M", "Q8_0", "BF16"])
@pytest.mark.parametrize("family", ["phi3", "qwen3-moe", "mixtral"])
def test_matrices_fused_or_of_experts_are_too(tmp_path: Path, family: str, type_name: str) -> None:
    names = {"phi3": ["blocks", "rows"], "qwen3-moe": ["blocks"], "mixtral": ["rows"]}[family]
    for number, (name, layout) in enumerate(LAYOUTS.items()):
        if name.split(",")[0] not in names:
            continue
        model = write_random(tmp_path / f"m{number}", family)
        ours, floats = write_both(model, tmp_path / str(number), layout)

        assert gguf(ours, type_name) == gguf(floats, type_name)


def test_slabs_that_begin_within_a_block_have_its_scales(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = write_llama(tmp_path / "m", hidden_size=320, intermediate_size=400)
    ours, floats = write_both(model, tmp_path, LAYOUTS["blocks, as DeepSeek and Qwen have"])
    expected = gguf(floats, "F32")
    monkeypatch.setattr("packager.quantize.slabs._SMALLEST_SLAB", 5000)
    monkeypatch.setattr("packager.quantize.slabs._LARGEST_SLAB", 5000)

    assert gguf(ours, "F32") == expected


def test_it_is_told_that_the_weights_come_in_fp8(tmp_path: Path) -> None:
    model = write_llama(tmp_path / "m")
    ours, _ = write_both(model, tmp_path, LAYOUTS["rows, as compressed-tensors"])
    watching = Watching()

    gguf(ours, "Q8_0", watching)

    assert "the weights come in FP8, and are multiplied by their scales first" in watching.notes


NAME = "model.layers.1.mlp.up_proj.weight"


def refusal(tmp_path: Path, change: Callable[[Tensors], object], **config: object) -> AirpackError:
    """What is said of a model in blocks of FP8 that was changed."""
    layout = LAYOUTS["blocks, as DeepSeek and Qwen have"]
    model = write_llama(tmp_path / "m")
    ours, _ = write_both(model, tmp_path, layout)
    tensors, _ = in_fp8(model, layout)
    change(tensors)
    (ours / "model.safetensors").write_bytes(safetensors_bytes(tensors))
    settings = json.loads((ours / "config.json").read_text())
    (ours / "config.json").write_text(json.dumps({**settings, **config}))
    with pytest.raises(AirpackError) as caught:
        gguf(ours, "Q8_0")
    assert not (ours / "m.gguf").exists()
    return caught.value


def test_scales_that_are_not_there_are_named(tmp_path: Path) -> None:
    error = refusal(tmp_path, lambda tensors: tensors.pop(f"{NAME}_scale_inv"))

    assert isinstance(error, MalformedError)
    assert f"lacks the tensor {NAME}_scale_inv" in error.message


def test_scales_of_another_shape_are_refused(tmp_path: Path) -> None:
    error = refusal(
        tmp_path,
        lambda tensors: tensors.update({f"{NAME}_scale_inv": ("F32", (2, 4), bytes(32))}),
    )

    assert isinstance(error, MalformedError)
    assert f"{NAME}_scale_inv has the shape [2, 4], which does not fit" in error.message


def test_scales_of_another_type_are_refused(tmp_path: Path) -> None:
    error = refusal(
        tmp_path,
        lambda tensors: tensors.update({f"{NAME}_scale_inv": ("I8", (4, 2), bytes(8))}),
    )

    assert isinstance(error, UsageError)
    assert f"{NAME}_scale_inv is I8" in error.message


def test_scales_of_a_tensor_that_is_not_in_fp8_are_refused(tmp_path: Path) -> None:
    error = refusal(
        tmp_path,
        lambda tensors: tensors.update({NAME: ("BF16", (512, 256), bytes(512 * 256 * 2))}),
    )

    assert isinstance(error, UsageError)
    assert f"'{NAME}_scale_inv' is no tensor of" in error.message


def test_fp8_that_is_no_matrix_is_refused(tmp_path: Path) -> None:
    norm = "model.norm.weight"
    error = refusal(
        tmp_path,
        lambda tensors: tensors.update(
            {
                norm: ("F8_E4M3", (256,), bytes(256)),
                f"{norm}_scale_inv": ("F32", (2, 1), bytes(8)),
            }
        ),
    )

    assert isinstance(error, MalformedError)
    assert f"{norm} is in FP8, but no matrix" in error.message


def test_74_not_a_number_in_fp8_is_refused_with_the_tensors_name(tmp_path: Path) -> None:
    def spoil(tensors: Tensors) -> None:
        dtype, shape, data = tensors[NAME]
        tensors[NAME] = dtype, shape, data[:-1] + b"\x7f"

    error = refusal(tmp_path, spoil)

    assert isinstance(error, IntegrityError)
    assert NAME in error.message


def test_fp8_that_config_does_not_tell_of_is_refused(tmp_path: Path) -> None:
    error = refusal(tmp_path, lambda _tensors: None, quantization_config=None)

    assert isinstance(error, UsageError)
    assert "is F8_E4M3; it is converted from BF16, F16, F32" in error.message


@pytest.mark.parametrize(
    "quantization",
    [
        {"quant_method": "gptq", "bits": 4},
        {"quant_method": "awq", "bits": 4},
        {"quant_method": "bitsandbytes"},
        {"quant_method": "modelopt", "quant_algo": "FP8"},
        {"quant_method": "mxfp4"},
        {"quant_method": 7},
        {},
        compressed("channel", "pack-quantized"),
        compressed("channel", "int-quantized"),
        compressed("channel", num_bits=4),
        compressed("channel", type="int"),
        compressed("channel", symmetric=False),
        compressed("group", group_size=128),
        {**compressed("channel"), "config_groups": {}},
        {
            **compressed("channel"),
            "config_groups": {
                "a": compressed("channel")["config_groups"]["group_0"],
                "b": compressed("block", block_structure=[8, 8])["config_groups"]["group_0"],
            },
        },
    ],
)
def test_what_is_quantized_otherwise_is_refused_with_the_ways_out(quantization: object) -> None:
    config = json.loads((REFERENCES / "llama2" / "config.json").read_text())

    with pytest.raises(UsageError, match="weights are quantized already") as caught:
        check_supported({**config, "quantization_config": quantization})

    assert "16-bit weights" in (caught.value.hint or "")
    assert "format: safetensors" in (caught.value.hint or "")


@pytest.mark.parametrize(
    "quantization",
    [
        "fp8",
        fp8(weight_block_size=[128]),
        fp8(weight_block_size=[0, 128]),
        fp8(weight_block_size=[True, 128]),
        fp8(weight_block_size="128"),
        compressed("block"),
        {**compressed("channel"), "config_groups": []},
        {**compressed("channel"), "config_groups": {"a": {"weights": None}}},
    ],
)
def test_a_statement_of_fp8_that_makes_no_sense_is_malformed(quantization: object) -> None:
    config = json.loads((REFERENCES / "llama2" / "config.json").read_text())

    with pytest.raises(MalformedError, match="quantization_config"):
        check_supported({**config, "quantization_config": quantization})
