"""What stands in the way of running models on a host."""

from __future__ import annotations

import pytest

from packager.isolated.doctor import judge_cpu, judge_libc, judge_python


def test_a_cpu_without_the_engines_instructions_is_named_with_what_it_lacks() -> None:
    finding = judge_cpu("x86_64, Some CPU, avx f16c fma")
    assert not finding.ok
    assert finding.hint == "this CPU lacks avx2, bmi2: use another host"


def test_a_cpu_with_all_of_them_is_fit() -> None:
    assert judge_cpu("x86_64, Some CPU, avx avx2 f16c fma bmi2").ok


@pytest.mark.parametrize(
    ("name", "number", "ok"),
    [("glibc", "2.36", True), ("glibc", "2.17", True), ("glibc", "2.5", False), ("", "", False)],
)
def test_the_c_library_must_be_one_that_the_wheels_run_on(name: str, number: str, ok: bool) -> None:
    assert judge_libc(name, number).ok is ok


def test_python_must_be_new_enough() -> None:
    assert judge_python((3, 10)).ok
    assert not judge_python((3, 9)).ok
