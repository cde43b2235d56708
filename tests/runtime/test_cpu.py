from __future__ import annotations

from packager.runtime.cpu import cpu_kind, describe_cpu, libc_kind

X86 = """\
processor\t: 0
model name\t: AMD EPYC   7543
flags\t\t: fpu sse2 avx avx2 f16c fma bmi2 sha_ni
processor\t: 1
model name\t: AMD EPYC   7543
"""
ARM = """\
processor\t: 0
Features\t: fp asimd asimdhp asimddp sve i8mm
CPU implementer\t: 0x41
CPU part\t: 0xd40
"""


def test_an_x86_cpu_is_named_with_the_flags_that_kernels_use() -> None:
    assert describe_cpu(X86, "x86_64") == "x86_64, AMD EPYC 7543, avx avx2 f16c fma bmi2"


def test_an_arm_cpu_is_named_by_implementer_and_part() -> None:
    assert describe_cpu(ARM, "aarch64") == "aarch64, 0x41 0xd40, asimd asimdhp asimddp i8mm sve"


def test_a_host_without_cpuinfo_is_named_by_its_machine() -> None:
    assert describe_cpu("", "riscv64") == "riscv64"


def test_this_host_has_a_name() -> None:
    assert cpu_kind()
    assert libc_kind()
