"""The package ``airgap-bundle`` on the same file: what it takes to pack it, verify it, install it.

It carries a Python project, and the model as one of its files, in one ``.tar.zst``. Here the
project is a file and one empty wheel, which its install needs, zstd works at its fastest, and
nothing is signed: it leaves that to ``cosign``, which is not measured.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_PROJECT = """\
[bundle]
name = "bench"
version = "1.0.0"
[platform]
targets = ["linux/amd64"]
python = "3.11"
[python]
requirements = "requirements.txt"
[[models]]
name = "model"
uri = "file://{model}"
sha256 = "{digest}"
dest = "models/{model.name}"
"""
_WHEEL = {
    "METADATA": "Metadata-Version: 2.1\nName: empty\nVersion: 1.0\n",
    "WHEEL": "Wheel-Version: 1.0\nGenerator: bench\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    "RECORD": "",
}


@dataclass(frozen=True)
class AirgapBundle:
    """The command ``program``, beside which ``uv`` lies, and a project of its own in ``place``."""

    program: Path
    place: Path

    def prepare(self, model: Path, digest: str) -> None:
        """Write the project that has ``model``, with ``digest``."""
        self.place.mkdir()
        (self.place / "airgap.toml").write_text(_PROJECT.format(model=model, digest=digest))
        (self.place / "requirements.txt").write_text("empty==1.0\n")
        with zipfile.ZipFile(self.place / "empty-1.0-py3-none-any.whl", "w") as wheel:
            for name, text in _WHEEL.items():
                wheel.writestr(f"empty-1.0.dist-info/{name}", text)

    @property
    def environment(self) -> Mapping[str, str]:
        """Its programs, the one wheel there is, and room for what it unpacks."""
        return {
            "PATH": f"{self.program.parent}{os.pathsep}{os.environ['PATH']}",
            "UV_NO_INDEX": "1",
            "UV_FIND_LINKS": str(self.place),
            "PIP_NO_INDEX": "1",
            "PIP_FIND_LINKS": str(self.place),
            "TMPDIR": str(self.place),
        }

    @property
    def archive(self) -> Path:
        """What it makes."""
        return self.place / "bench.tar.zst"

    @property
    def build(self) -> list[object]:
        """The command that packs, and does not verify what it packed."""
        options = ("--out", self.archive, "--compression", 1, "--no-verify")
        return [self.program, "build", self.place, *options]

    @property
    def verify(self) -> list[object]:
        """The command that verifies: no signature, since there is none."""
        return [self.program, "verify", self.archive]

    @property
    def install(self) -> list[object]:
        """The command that installs, a virtual environment with it."""
        return [self.program, "install", self.archive, "--prefix", self.place / "installed"]
