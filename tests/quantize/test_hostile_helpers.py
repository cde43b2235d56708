"""Compilers, workers and adapters that are not what they seem."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

import pytest
from support.adapters import QUERY, half, query_adapter, write_adapter_folder
from support.checkpoints import LLAMA_CONFIG, files_of

from packager.errors import HostError, IntegrityError, UsageError
from packager.progress import Silent
from packager.quantize.executors.dask import Dask
from packager.quantize.executors.errand import digests_in, refusal
from packager.quantize.kernels import load_kernels
from packager.quantize.lora.config import parse_adapter_config
from packager.quantize.lora.convert import read_adapter, write_adapter
from packager.quantize.simd.compiled import load_compiled

WIDTH = 256  # of LLAMA_CONFIG
LIBRARIES = [
    Path(folder) / "libm.so.6" for folder in ("/lib/x86_64-linux-gnu", "/lib64", "/usr/lib")
]


@pytest.mark.parametrize(
    ("does", "summary"),
    [
        ("printf 'error: \\377\\376' >&2; exit 1", "cc failed: error: "),
        ("[ $1 = --version ] || exit 0", "no such file or directory"),
        (
            '[ $1 = --version ] && exit; while [ "$1" != -o ]; do shift; done; echo junk > "$2"',
            "cannot be loaded",
        ),
        ("kill -9 $$", "cc failed: "),
    ],
    ids=["no UTF-8", "makes nothing", "makes junk", "is killed"],
)
def test_a_compiler_that_is_none_leaves_the_work_to_ggml(
    does: str, summary: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = load_kernels().library
    put_compiler(does, tmp_path, monkeypatch)

    found = load_compiled(library)

    assert found.functions == {}
    assert found.summary.startswith("ggml's own: ")
    assert summary in found.summary


def test_a_library_without_the_kernels_leaves_the_work_to_ggml(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernels = load_kernels()
    small = tmp_path / "small.so"
    small.symlink_to(next(path for path in LIBRARIES if path.exists()))
    monkeypatch.setattr("packager.quantize.simd.compiled.compile_for", lambda _: small)

    found = load_compiled(kernels.library)

    assert found.functions == {}
    assert found.summary == f"ggml's own: {small} lacks some of the kernels"


def put_compiler(does: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A ``cc`` of our own, and nothing in the cache."""
    script = folder / "cc"
    script.write_text(f"#!/bin/sh\n{does}\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    monkeypatch.setenv("AIRPACK_CACHE", str(folder / "cache"))


@pytest.mark.skipif(not shutil.which("cc"), reason="no C compiler, and so no kernels to load")
def test_no_kernels_are_loaded_from_below_a_folder_that_anybody_may_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = load_kernels().library
    common = tmp_path / "common"
    common.mkdir()
    common.chmod(0o777)
    monkeypatch.setenv("AIRPACK_CACHE", str(common / "cache"))

    found = load_compiled(library)

    assert found.functions == {}
    assert found.summary == f"ggml's own: {common}: anybody can put another folder there"
    assert not list((common / "cache" / "kernels").iterdir())


@pytest.mark.parametrize("name", ["ErrorOfTomorrow", "annotations", "ClassVar", "__name__"])
def test_an_error_of_another_version_is_still_one_of_ours(name: str) -> None:
    with pytest.raises(HostError, match="what it said"):
        digests_in(refusal(name, "what it said", None))


@pytest.mark.parametrize(
    "address",
    ["tcp://", "tcp://h:99999999999", "inproc://", "foo://h:1", "\0", f"tcp://{'a' * 300}:1"],
)
def test_what_is_no_address_is_refused_at_once(address: str) -> None:
    with pytest.raises(UsageError, match="no address of a scheduler"):
        Dask(address).check()


def test_tls_without_certificates_is_refused_at_once() -> None:
    with pytest.raises(UsageError, match="no certificates"):
        Dask("tls://127.0.0.1:1").check()


def test_alphas_that_multiply_beyond_single_precision_are_refused(tmp_path: Path) -> None:
    key = "model.layers.0.self_attn.v_proj"
    shapes = {
        half(QUERY, "A"): (2, WIDTH),
        half(QUERY, "B"): (WIDTH, 2),
        half(key, "A"): (2, WIDTH),
        half(key, "B"): (WIDTH // 2, 2),
    }
    folder = write_adapter_folder(
        tmp_path / "a", shapes, lora_alpha=1e-29, alpha_pattern={"v_proj": 1e29}
    )
    adapter = read_adapter(files_of(folder), LLAMA_CONFIG)

    with pytest.raises(IntegrityError, match=r"v_proj.lora_B.weight holds what is infinite"):
        write_adapter(adapter, tmp_path / "out.gguf", name="a", progress=Silent())


def test_forty_thousand_patterns_of_an_adapter_take_no_time() -> None:
    patterns = {f"no.such.module.{number}": 1.0 for number in range(40_000)}
    config = parse_adapter_config(
        {"peft_type": "LORA", "r": 2, "lora_alpha": 2, "alpha_pattern": patterns}
    )
    begin = time.process_time()

    assert config.alpha_of(QUERY) == 2
    assert time.process_time() - begin < 1


def test_a_pattern_means_the_end_of_a_name_and_its_dots_any_character() -> None:
    patterns = {"layers.1.self_attn.q_proj": 3.0, "v.proj": 5.0, "k_proj": 7.0, "proj": 9.0}
    config = parse_adapter_config(
        {"peft_type": "LORA", "r": 2, "lora_alpha": 2, "alpha_pattern": patterns}
    )
    names = ("model.layers.1.self_attn.q_proj", "x.v_proj", "xk_proj", "k_proj", "a.proj", "roj")

    assert [config.alpha_of(name) for name in names] == [3.0, 5.0, 2.0, 7.0, 9.0, 2.0]


def test_a_rank_of_zero_and_a_remote_base_change_nothing(tmp_path: Path) -> None:
    folder = query_adapter(tmp_path / "a", width=WIDTH, r=0)

    with pytest.raises(IntegrityError, match=r"adapter_config\.json: r: 0 is not between"):
        read_adapter(files_of(folder), LLAMA_CONFIG)
    document = json.loads((folder / "adapter_config.json").read_text())
    assert parse_adapter_config({**document, "r": 1}).base_name == "org/base"


def test_what_a_worker_raises_that_is_not_ours_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from packager.quantize.executors import dask

    class Failed:
        def result(self, timeout: float) -> str:
            assert timeout
            raise MemoryError("out of it")

    monkeypatch.setattr(dask._Round, "__init__", lambda self: setattr(self, "_address", "tcp://h"))
    with pytest.raises(HostError, match=r"a worker .* failed: MemoryError: out of it"):
        dask._Round()._digests(Failed())  # type: ignore[call-arg, arg-type]
