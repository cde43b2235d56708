from __future__ import annotations

from pathlib import Path

from packager.runtime.environment import worker_environment

SHELL = {
    "PATH": "/usr/bin",
    "HOME": "/home/someone",
    "LANG": "de_DE.UTF-8",
    "HF_TOKEN": "hf_secret",
    "HF_ENDPOINT": "https://hub.example",
    "HTTPS_PROXY": "http://proxy.example:3128",
    "https_proxy": "http://proxy.example:3128",
    "LLAMA_ARG_MODEL_URL": "https://hub.example/model.gguf",
    "LD_PRELOAD": "/tmp/hook.so",
    "PYTHONPATH": "/tmp/modules",
}


def test_nothing_of_the_callers_shell_reaches_the_engine_but_its_language(tmp_path: Path) -> None:
    environment = worker_environment(SHELL, prefix=tmp_path, libraries=None)
    assert {key: environment[key] for key in SHELL if key in environment} == {"LANG": "de_DE.UTF-8"}


def test_every_library_is_told_to_stay_offline(tmp_path: Path) -> None:
    environment = worker_environment({}, prefix=tmp_path, libraries=None)
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE"):
        assert environment[name] == "1"


def test_the_library_that_setup_put_beside_python_is_searched_first(tmp_path: Path) -> None:
    carried = tmp_path / "lib" / "airpack"
    carried.mkdir(parents=True)
    environment = worker_environment(
        {"LD_LIBRARY_PATH": "/opt/cuda/lib"}, prefix=tmp_path, libraries=None
    )
    assert environment["LD_LIBRARY_PATH"] == f"{carried}:/opt/cuda/lib"


def test_a_named_directory_of_libraries_wins(tmp_path: Path) -> None:
    (tmp_path / "lib" / "airpack").mkdir(parents=True)
    named = tmp_path / "named"
    named.mkdir()
    environment = worker_environment({}, prefix=tmp_path, libraries=named)
    assert environment["LD_LIBRARY_PATH"] == str(named)


def test_without_a_carried_library_the_system_is_left_to_find_its_own(tmp_path: Path) -> None:
    assert "LD_LIBRARY_PATH" not in worker_environment({}, prefix=tmp_path, libraries=None)


def test_a_failing_engine_starts_no_debugger(tmp_path: Path) -> None:
    environment = worker_environment({}, prefix=tmp_path, libraries=None)
    assert environment["GGML_NO_BACKTRACE"] == "1"
