"""What does not fit a host is refused before a byte is written, unless a person insists."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

import pytest
from support.bundles import EngineVariant, make_bundle
from support.hosts import Host
from support.tiny_source import weights

from packager.connected.signing.keys import SigningKey
from packager.errors import TargetMismatchError
from packager.format.bundle import INDEX_NAME, Bundle, parse_bundle
from packager.format.memory import MemoryNeed
from packager.format.target import Target
from packager.isolated.preflight import (
    judge_clock,
    judge_filesystem,
    judge_memory,
    judge_python,
    judge_space,
    judge_target,
)
from packager.runtime.host_memory import Gpu, HostMemory, parse_meminfo, parse_nvidia_smi
from packager.store.filesystem import Filesystem

GIB = 1 << 30
HUGE = MemoryNeed(context=4096, cache=1 << 50, buffers=0)


@pytest.fixture
def huge(tmp_path: Path, key: SigningKey, demo_variant: EngineVariant) -> Path:
    """A bundle whose model takes a petabyte at its context."""
    variant = replace(demo_variant, memory=HUGE)
    return make_bundle(tmp_path / "stick", [key], files={}, engine_variants=[variant])


@pytest.fixture(scope="session")
def index(
    tmp_path_factory: pytest.TempPathFactory, key: SigningKey, demo_variant: EngineVariant
) -> Bundle:
    """An index with a model of some 2 MB that takes 3 GiB to run, built on 24 November 2026."""
    variant = replace(demo_variant, memory=MemoryNeed(4096, 2 * GIB, GIB))
    place = tmp_path_factory.mktemp("index")
    directory = make_bundle(place, [key], engine_variants=[variant])
    return parse_bundle((directory / INDEX_NAME).read_bytes())


def test_107_too_little_memory_is_refused_before_a_byte_is_written(host: Host, huge: Path) -> None:
    before = host.state()

    with pytest.raises(TargetMismatchError) as caught:
        host.install(huge)

    assert "memory for q4_k_m" in caught.value.message
    assert "needed: 1024 TiB at 4096 tokens" in caught.value.message
    assert "--force" in str(caught.value.hint)
    assert host.state() == before
    assert host.last_refusal() == caught.value.message


def test_107_who_insists_installs_and_the_log_says_so(host: Host, huge: Path) -> None:
    host.install(huge, force=True)

    assert host.current() == 1
    assert host.events()[-1].details["misfits_forced"] == ["memory for q4_k_m"]


@pytest.mark.parametrize(
    "target",
    [Target("linux_aarch64", ("3.11",), "2.17"), Target("linux_x86_64", ("3.11",), "2.99")],
    ids=["another CPU", "a newer glibc"],
)
def test_108_a_bundle_for_other_hosts_is_refused_before_a_byte_is_written(
    tmp_path: Path, host: Host, key: SigningKey, target: Target
) -> None:
    bundle = make_bundle(tmp_path / "stick", [key], targets=[target])
    before = host.state()

    with pytest.raises(TargetMismatchError, match=f"needed: {target.platform} with glibc"):
        host.install(bundle)

    assert host.state() == before


def test_108_any_of_the_targets_will_do(index: Bundle) -> None:
    arm, intel = Target("linux_aarch64", ("3.10",), "2.17"), Target("linux_x86_64", (), "2.28")
    both = replace(index, targets=(arm, intel))
    assert judge_target(both, "Linux", "x86_64", "2.36").ok
    assert judge_target(both, "Linux", "aarch64", "2.17").ok
    assert not judge_target(both, "Linux", "x86_64", "2.27").ok
    assert not judge_target(both, "Darwin", "arm64", "").ok


def test_108_another_python_than_the_wheels_are_for_is_said_where_airpack_runs_already(
    index: Bundle,
) -> None:
    assert judge_python(index, "3.11").hint is None
    assert judge_python(index, "3.14").ok
    assert "setup.sh" in str(judge_python(index, "3.14").hint)


@pytest.mark.parametrize(
    ("total", "available", "ok", "hint"),
    [
        (8 * GIB, 4 * GIB, True, None),
        (8 * GIB, 2 * GIB, True, "end what holds memory"),
        (3 * GIB, 3 * GIB, False, "smaller variant"),
    ],
)
def test_107_memory_is_judged_by_weights_cache_and_buffers(
    index: Bundle, total: int, available: int, ok: bool, hint: str | None
) -> None:
    variant = next(v for v in index.variants if v.name == "q4_k_m")

    finding = judge_memory(index, variant, HostMemory(total, available))

    assert finding.ok is ok
    assert (hint is None and finding.hint is None) or str(hint) in str(finding.hint)
    assert "cache 2 GiB, buffers 1 GiB" in finding.needed


def test_memory_that_nobody_states_is_no_misfit(index: Bundle) -> None:
    variant = index.variants[0]
    assert judge_memory(index, variant, HostMemory(1, 1)).ok
    assert judge_memory(index, variant, None).ok


@pytest.mark.parametrize(("kind", "ok"), [("vfat", False), ("exfat", False), ("ext4", True)])
def test_105_a_home_without_hard_links_is_a_misfit(kind: str, ok: bool) -> None:
    filesystem = Filesystem(kind, 0, 1 << 40, 4096, read_only=False)
    assert judge_filesystem(filesystem, Path("/home")).ok is ok


def test_19_a_clock_before_the_bundle_was_built_is_said_and_does_not_refuse(index: Bundle) -> None:
    early = judge_clock(index, datetime(1970, 1, 1, tzinfo=timezone.utc))
    assert early.ok
    assert "set the clock" in str(early.hint)
    assert judge_clock(index, datetime(2026, 11, 25, tzinfo=timezone.utc)).hint is None


def test_what_the_store_holds_takes_no_space_again(
    tmp_path: Path, host: Host, key: SigningKey
) -> None:
    bundle = make_bundle(
        tmp_path / "stick", [key], files={"model.safetensors": weights(b"x" * (1 << 20))}
    )
    index = parse_bundle((bundle / INDEX_NAME).read_bytes())
    before = judge_space(index, index.variants, host.home)
    host.install(bundle)
    after = judge_space(index, index.variants, host.home)

    assert before.needed == "9 MiB"
    assert after.needed == "8 MiB (1 MiB are in the store already)"


def test_99_a_disk_too_small_is_said_with_what_frees_some(
    tmp_path: Path, host: Host, key: SigningKey
) -> None:
    directory = make_bundle(tmp_path / "stick", [key])
    index = parse_bundle((directory / INDEX_NAME).read_bytes())
    file = replace(index.files[0], size=1 << 60)
    finding = judge_space(replace(index, files=(file,)), index.variants, host.home)
    assert not finding.ok
    assert "airpack gc" in str(finding.hint)


def test_meminfo_is_read_in_kibibytes() -> None:
    text = "MemTotal:       24576 kB\nMemFree: 1 kB\nMemAvailable:   12288 kB\nHugePages_Total: 0\n"
    assert parse_meminfo(text) == HostMemory(24 << 20, 12 << 20)


@pytest.mark.parametrize("text", ["", "MemTotal: 5 kB\n", "MemTotal: x kB\nMemAvailable: 1 kB\n"])
def test_a_meminfo_that_says_nothing_is_no_figure(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        parse_meminfo(text)


def test_gpus_are_read_as_nvidia_smi_writes_them() -> None:
    assert [*parse_nvidia_smi("NVIDIA H100 80GB HBM3, 81559\n\nno devices\n")] == [
        Gpu("NVIDIA H100 80GB HBM3", 81559 << 20)
    ]
