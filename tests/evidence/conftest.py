"""One bundle's worth of values, without a build."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from support.bundles import make_bundle, make_key

from packager.evidence.materials import Making, Materials, Package, Part
from packager.format.bundle import INDEX_NAME, parse_bundle
from packager.format.digest import Digest
from packager.format.lock import GIT_BLOB, SHA256, ContentId, HubCommit, Lock, LockedFile
from packager.format.recipe import parse_recipe
from packager.format.statement import FallbackTensor

REVISION = "1f" * 20
FALLEN = (
    FallbackTensor("blk.0.attn_q.weight", "Q4_K", "Q5_0"),
    FallbackTensor("token_embd.weight", "Q6_K", "Q8_0"),
)
RECIPE = """\
name: tiny
source: {hub: org/tiny}
licence: {allow: [apache-2.0]}
variants:
  - {name: original, format: safetensors}
smoke: {prompts: ["Où est la gare ?"], text: /home/somebody/quiet.txt}
"""


@pytest.fixture
def materials(tmp_path: Path) -> Materials:
    """What the documents of a small bundle are made from."""
    directory = make_bundle(tmp_path, [make_key(tmp_path / "team.key")])
    bundle = parse_bundle((directory / INDEX_NAME).read_bytes())
    click = Package("click", "8.5.1", "BSD-3-Clause", ("c/licenses/L",), "pkg:pypi/click@8.5.1")
    lock = Lock(
        recipe=Digest.of(RECIPE.encode()),
        source=HubCommit("org/tiny", REVISION),
        licence="apache-2.0",
        files=(
            LockedFile("README.md", 9, ContentId(GIT_BLOB, "2e" * 20)),
            LockedFile("model.safetensors", 262_144, ContentId(SHA256, "3d" * 32)),
        ),
        texts=(LockedFile("/home/somebody/quiet.txt", 5, ContentId(SHA256, "4c" * 32)),),
    )
    return Materials(
        bundle=replace(bundle, origin=replace(bundle.origin, kind="hub", revision=REVISION)),
        recipe=parse_recipe(RECIPE),
        lock=lock,
        parts=(
            Part("click-8.5.1-py3-none-any.whl", Digest.of(b"click"), click),
            Part("setup.sh", Digest.of(b"setup"), None),
        ),
        makings={"original": Making(Digest.of(b"matrix"), FALLEN, rendered="<user>Où ?")},
        texts={"LICENSE": frozenset({"apache-2.0"})},
        architecture="LlamaForCausalLM",
        family="llama",
        command=("airpack", "build", "RECIPE"),
        accepted_by=None,
    )
