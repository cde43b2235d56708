"""Tokens, keys and what tells of the build host stay at home; a find never shows what it found."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import pytest
from support.gguf_files import rewrite_gguf
from support.workplace import Workplace

from packager.connected.build import build
from packager.connected.inside.secrets import Secrets, check_documents, check_members
from packager.connected.lock import lock_recipe, read_recipe
from packager.connected.packing.layout import Member
from packager.connected.provisions.carried import Provisions
from packager.errors import UnsafeContentError
from packager.format.digest import Digest
from packager.progress import Silent
from packager.quantize.gguf_writer import text

# Put together here, so that no scanner of repositories takes this file for a leak.
LETTERS = "Ab1Cd2Ef3Gh4Ij5Kl6Mn7Op8Qr9St0Uv1Wx2Yz3"
HUGGING_FACE = "hf_" + LETTERS[:34]
GITHUB = "ghp_" + LETTERS[:36]
KEY = "-----BEGIN " + "PRIVATE KEY-----\n" + LETTERS * 4 + "\n-----END " + "PRIVATE KEY-----\n"
NONE = Secrets({}, {}, {})


def member(path: str, file: Path) -> Member:
    return Member(path, file, file.stat().st_size, Digest.of(file.read_bytes()))


def refusal(tmp_path: Path, content: bytes, secrets: Secrets = NONE) -> UnsafeContentError:
    file = tmp_path / "file"
    file.write_bytes(content)
    with pytest.raises(UnsafeContentError) as refused:
        check_members([member("models/m/original/README.md", file)], secrets)
    assert refused.value.exit_code == 17
    return refused.value


@pytest.mark.parametrize(
    ("secret", "kind"),
    [
        (HUGGING_FACE, "a Hugging Face token"),
        (GITHUB, "a GitHub token"),
        ("github_pat_" + LETTERS + LETTERS, "a fine-grained GitHub token"),
        ("glpat-" + LETTERS[:20], "a GitLab token"),
        ("AKIA" + "QX7PW3ZK9LMN2BVC", "an AWS access key"),
        ("sk-ant-" + "api03-" + LETTERS, "a key of OpenAI or Anthropic"),
        ("AIza" + LETTERS[:35], "a Google API key"),
        ("xoxb-" + "123456789012-" + LETTERS[:20], "a Slack token"),
        (f'{{"text": "log in with:\\n{HUGGING_FACE}"}}', "a Hugging Face token"),
        (f"https://me%3A{GITHUB}@example.org/", "a GitHub token"),
        (KEY, "a private key"),
        (KEY.replace("\n", "\\n"), "a private key"),
        (KEY.replace("BEGIN ", "BEGIN OPENSSH "), "a private key"),
        (KEY.replace("KEY-----\n", "KEY-----\nProc-Type: 4,ENCRYPTED\n\n", 1), "a private key"),
    ],
)
def test_what_is_shaped_as_a_secret_is_refused_by_its_kind_and_not_shown(
    tmp_path: Path, secret: str, kind: str
) -> None:
    error = refusal(tmp_path, f'see "{secret}" there'.encode())
    assert error.message == f"models/m/original/README.md: holds {kind}, which must not travel"
    assert secret[:12] not in f"{error.message} {error.hint}" or secret.startswith("-----")


@pytest.mark.parametrize(
    "text_of",
    [
        "token = hf_xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
        "export HF_TOKEN=hf_...",
        "AKIAIOSFODNN7EXAMPLE",
        "it begins with -----BEGIN " + "PRIVATE KEY----- and so on",
        "huggingface/tokenizers, ghp_short",
    ],
)
def test_what_documentation_shows_in_its_place_travels(tmp_path: Path, text_of: str) -> None:
    file = tmp_path / "README.md"
    file.write_text(text_of)
    check_members([member("models/m/original/README.md", file)], NONE)


def test_the_metadata_of_a_model_are_looked_into(tmp_path: Path, demo_model: Path) -> None:
    told = rewrite_gguf(demo_model, tmp_path / "m.gguf", [text("general.description", GITHUB)])
    with pytest.raises(UnsafeContentError, match=r"m\.gguf: holds a GitHub token"):
        check_members([member("models/m/q8_0/m.gguf", told)], NONE)
    check_members([member("models/m/q8_0/m.gguf", demo_model)], NONE)


def test_airpack_s_own_wheel_is_looked_into(tmp_path: Path) -> None:
    wheel = tmp_path / "airpack-1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("packager/leak.py", f"token = {HUGGING_FACE!r}")
    with pytest.raises(UnsafeContentError, match=r"leak\.py: holds a Hugging Face token"):
        check_members([member("setup/airpack-1-py3-none-any.whl", wheel)], NONE)


def environment(monkeypatch: pytest.MonkeyPatch, said: str, **variables: str) -> Secrets:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return Secrets.of_environment({}, said)


@pytest.mark.parametrize(
    ("variables", "leak", "kind"),
    [
        ({"HF_TOKEN": "marker-of-a-token"}, "marker-of-a-token", "the value of HF_TOKEN"),
        ({"HOME": "/home/ada"}, "at /home/ada/models/x", "the home directory of the build host"),
        ({"HOME": "/root"}, '"/root/models"', "the home directory of the build host"),
        ({"LOGNAME": "lovelace"}, "built by lovelace", "the user name of the build host"),
    ],
)
def test_what_tells_of_the_build_host_is_refused_in_a_document(
    monkeypatch: pytest.MonkeyPatch, variables: Mapping[str, str], leak: str, kind: str
) -> None:
    secrets = environment(monkeypatch, "", **variables)
    with pytest.raises(UnsafeContentError, match=f"index: holds {kind}"):
        check_documents({"index": leak.encode()}, secrets)
    check_documents({"index": b"nothing of it"}, secrets)


def test_what_stands_in_texts_of_others_by_chance_travels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secrets = environment(monkeypatch, "by lovelace", HOME="/root", LOGNAME="lovelace")
    file = tmp_path / "README.md"
    file.write_text("docker run -v /root/models:/models; lovelace wrote it")
    check_members([member("models/m/original/README.md", file)], secrets)
    check_documents({"index": b"accepted by lovelace"}, secrets)  # who wrote it there meant it


def test_the_path_of_a_home_in_a_config_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """transformers writes ``_name_or_path`` into what it saves."""
    secrets = environment(monkeypatch, "", HOME="/home/ada")
    error = refusal(tmp_path, b'{"_name_or_path": "/home/ada/tuned"}', secrets)
    assert "the home directory of the build host" in error.message
    assert "ada" not in error.message


def test_no_byte_of_a_bundle_tells_the_token_or_the_home_of_its_build_host(
    tmp_path: Path,
    workplace: Workplace,
    provisions: Provisions,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf-token-marker-9d1f")
    monkeypatch.setenv("HOME", str(tmp_path / "home-marker-7c2e"))
    made = build(workplace.request(tmp_path / "out"), workplace.cache, Silent())
    for file in made.iterdir():
        data = file.read_bytes()
        assert b"hf-token-marker-9d1f" not in data
        assert b"home-marker-7c2e" not in data
        assert str(workplace.cache.root).encode() not in data


def test_a_build_with_a_secret_in_the_source_writes_nothing(
    tmp_path: Path, workplace: Workplace, provisions: Provisions
) -> None:
    shutil.copytree(files("packager") / "demo" / "tiny-kjv", tmp_path / "model")  # type: ignore[arg-type]
    with (tmp_path / "model" / "README.md").open("a") as card:
        card.write(f"\n{HUGGING_FACE}\n")
    recipe = tmp_path / "demo.yaml"
    lines = workplace.recipe.read_text().splitlines(keepends=True)
    lines = [line for line in lines if "q4_k_m" not in line]
    recipe.write_text("".join(lines).replace(str(files("packager") / "demo" / "tiny-kjv"), "model"))
    request = replace(
        workplace.request(tmp_path / "out"),
        recipe=read_recipe(recipe),
        recipe_folder=tmp_path,
        lock=lock_recipe(recipe, Silent()),
    )
    with pytest.raises(UnsafeContentError, match=r"README\.md: holds a Hugging Face token"):
        build(request, workplace.cache, Silent())
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("account", ["build", "llama", "click", "setup", "bundle", "server"])
def test_an_account_called_as_a_word_of_every_bundle_builds(
    monkeypatch: pytest.MonkeyPatch, account: str
) -> None:
    secrets = environment(monkeypatch, "", LOGNAME=account, HOME=f"/home/{account}")
    check_documents({"index": b"airpack build, llama.cpp, pkg:pypi/click, setup.sh"}, secrets)
