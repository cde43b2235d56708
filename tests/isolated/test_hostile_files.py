"""Files that no build lets through, in a bundle that is signed all the same: nobody opens them."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
from support.bundles import EngineVariant, make_bundle
from support.gguf_files import rewrite_gguf
from support.hosts import Host
from support.tiny_source import weights

from packager.connected.signing.keys import SigningKey
from packager.errors import AirpackError
from packager.quantize.gguf_writer import text

PICKLE = pickle.dumps({"weights": print}, protocol=2)


def archive() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as file:
        file.writestr("archive/data.pkl", PICKLE)
    return stream.getvalue()


def refusal(host: Host, bundle: Path) -> AirpackError:
    """Why the bundle is not installed; asserts that nothing of it is there."""
    before = host.state()
    with pytest.raises(AirpackError) as refused:
        host.install(bundle)
    assert host.state() == before
    assert host.current() == 1
    assert host.partials() == {}
    assert host.last_refusal() == refused.value.message
    return refused.value


@pytest.mark.parametrize(
    ("name", "data", "code", "fact"),
    [
        pytest.param(*case[1:], id=case[0])
        for case in (
            ("85-named-safetensors", "model.safetensors", PICKLE, 17, "is a pickle"),
            ("85-named-text", "merges.txt", PICKLE, 17, "is a pickle"),
            ("85-by-name", "model.bin", bytes(100), 17, "is weights as a pickle"),
            ("85-unknown-name", "weights", PICKLE, 17, "is a pickle"),
            ("86-zip", "model.safetensors", archive(), 17, "is a ZIP archive"),
            ("86-zip-inside", "model.safetensors", weights(bytes(5000) + archive()), 17, "ZIP"),
            ("86-7z", "vocab.txt", b"7z\xbc\xaf\x27\x1c" + bytes(30), 17, "is a 7z archive"),
            ("86-hdf5", "weights", b"\x89HDF\r\n\x1a\n" + bytes(30), 17, "is an HDF5 file"),
            ("87-by-name", "modeling_x.py", b"pass\n", 17, "is code"),
            ("87-script", "README", b"#!/bin/sh\n", 17, "is a script"),
            ("88-auto-map", "config.json", b'{"auto_map": {"a": "b"}}', 17, "has 'auto_map'"),
            ("88-trust", "g.json", b'{"x":[{"trust_remote_code":true}]}', 17, "trust_remote_code"),
            ("89-dunder", "chat_template.jinja", b"{{ x.__class__ }}", 17, "'__class__'"),
            ("90-adapter", "adapter_config.json", b"{}", 17, "is an adapter"),
            ("91-program", "tool", b"\x7fELF" + bytes(60), 17, "is a program (ELF)"),
            ("91-requirements", "requirements.txt", b"evil\n", 17, "names packages to install"),
            ("62-to-67-header", "model.safetensors", bytes(100), 10, "model.safetensors"),
        )
    ],
)
def test_85_to_91_what_no_build_lets_through_is_refused_whoever_signed_it(
    tmp_path: Path, running: Host, key: SigningKey, name: str, data: bytes, code: int, fact: str
) -> None:
    bundle = make_bundle(tmp_path / "b", [key], sequence=2, files={name: data})
    error = refusal(running, bundle)
    assert error.exit_code == code
    assert error.message.startswith(f"models/tiny/original/{name}: ")
    assert fact in error.message
    assert code == 10 or "ask the sender" in str(error.hint)


def test_89_a_template_in_a_model_that_reaches_into_python_is_refused_before_it_is_opened(
    tmp_path: Path, running: Host, key: SigningKey, demo_variant: EngineVariant
) -> None:
    template = [text("tokenizer.chat_template", "{{ cycler.__init__.__globals__ }}")]
    model = rewrite_gguf(demo_variant.model, tmp_path / "demo.gguf", template)
    hostile = replace(demo_variant, model=model)
    bundle = make_bundle(tmp_path / "b", [key], sequence=2, files={}, engine_variants=[hostile])
    error = refusal(running, bundle)
    assert error.exit_code == 17
    assert "demo.gguf: its chat template holds '__init__'" in error.message


def test_87_a_file_that_the_host_holds_already_is_looked_into_too(
    tmp_path: Path, running: Host, key: SigningKey
) -> None:
    """A delta may give a file of an earlier bundle a name that means something else."""
    notes = json.dumps({"notes": "harmless there"}).encode()
    first = {"notes.json": notes}
    running.install(make_bundle(tmp_path / "a", [key], version="1.5", sequence=2, files=first))
    held = {"run.py": "tiny-1.5"}
    delta = make_bundle(
        tmp_path / "b", [key], version="2", sequence=3, files={"run.py": notes}, held=held
    )
    before = running.state()
    with pytest.raises(AirpackError, match=r"run\.py: is code"):
        running.install(delta)
    assert running.state() == before
