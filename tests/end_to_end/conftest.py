"""The trip, made once: a hub, a connected host, a medium, an isolated host with nothing on it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from support.hub_server import HubServer
from support.sandbox import no_network

from packager.format.bundle import INDEX_NAME, Bundle, parse_bundle

REPOSITORY = "org/tiny-kjv"
DEMO = Path(__file__).parents[2] / "packager" / "demo"
RECIPE = """\
name: tiny-kjv
version: {version}
sequence: {sequence}
source: {{hub: {repository}, revision: main}}
licence: {{allow: [cc0-1.0]}}
variants:
  - {{name: q4_k_m, format: gguf, type: Q4_K_M}}
  - {{name: original, format: safetensors}}
smoke:
  prompts: [{prompts}]
  max_tokens: 16
  text: held-out.txt
targets:
  - {{platform: linux_x86_64, python: ["{python}"], glibc: "2.28"}}
"""


# Serve, and ask over the loopback, which a new network namespace has but down (netdevice(7)).
SERVE_AND_ASK = """
import fcntl, json, socket, struct, subprocess, sys, urllib.request
route, body, *command = sys.argv[1:]
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
    try:
        fcntl.ioctl(probe, 0x8914, struct.pack("16sH14x", b"lo", 1))
    except PermissionError:
        pass  # nobody took the network away: then it is up
with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as service:
    said = ""
    while not said.endswith("}\\n"):
        said += service.stdout.readline()
    header = {"Content-Type": "application/json"}
    url = json.loads(said)["url"] + route
    request = urllib.request.Request(url, body.encode(), header)
    print(urllib.request.urlopen(request, timeout=60).read().decode())
    service.terminate()
"""


@dataclass(frozen=True)
class Host:
    """A machine: how a command is run there."""

    airpack: tuple[str, ...]
    environment: Mapping[str, str]
    folder: Path
    prefix: tuple[str, ...] = ()

    def run(self, *words: str | Path, code: int = 0) -> subprocess.CompletedProcess[str]:
        """Run any command; it must end with ``code``."""
        done = subprocess.run(
            [*self.prefix, *map(str, words)],
            cwd=self.folder,
            env=dict(self.environment),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == code, done.stderr + done.stdout
        return done

    def say(self, *words: str | Path, code: int = 0) -> str:
        """Run ``airpack`` with ``words``; what it gives as result."""
        return self.run(*self.airpack, *words, code=code).stdout

    def ask(self, *words: str | Path, code: int = 0) -> Any:
        """Run ``airpack`` with ``words`` and ``--json``; the document."""
        return json.loads(self.say(*words, "--json", code=code))

    def serve_and_ask(self, name: str, route: str, body: object, *words: str) -> Any:
        """What an installed model answers to ``body`` on ``route``, served with ``words``."""
        python = Path(self.airpack[0]).with_name("python")
        serve = (*self.airpack, "serve", name, "--port", "0", "--json", *words)
        return json.loads(
            self.run(python, "-c", SERVE_AND_ASK, route, json.dumps(body), *serve).stdout
        )


@dataclass(frozen=True)
class Carried:
    """What a person brings: a bundle on a medium, and the public key in another pocket."""

    medium: Path
    key: Path

    @property
    def index(self) -> Bundle:
        return parse_bundle((self.medium / INDEX_NAME).read_bytes())


@pytest.fixture(scope="session")
def hub() -> Iterator[HubServer]:
    with HubServer({REPOSITORY: DEMO / "tiny-kjv"}) as server:
        yield server


@pytest.fixture(scope="session")
def connected(hub: HubServer, tmp_path_factory: pytest.TempPathFactory) -> Host:
    """A host that reaches the hub, with a signing key."""
    folder = tmp_path_factory.mktemp("connected")
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith("HF_")},
        "HF_ENDPOINT": hub.endpoint,
        "AIRPACK_CACHE": str(folder / "cache"),
    }
    host = Host((sys.executable, "-m", "packager"), environment, folder)
    host.say("keys", "generate", "team.key", "--no-passphrase")
    shutil.copy(DEMO / "held-out.txt", folder)
    return host


def build(connected: Host, *more: str | Path, version: str, sequence: int, prompts: str) -> Carried:
    """Lock and build a release there, with ``more`` words, and carry it away."""
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    recipe = connected.folder / f"release-{version}.yaml"
    recipe.write_text(
        RECIPE.format(
            repository=REPOSITORY,
            version=version,
            sequence=sequence,
            prompts=prompts,
            python=python,
        )
    )
    connected.say("lock", recipe)
    made = connected.ask("build", recipe, "--locked", "-o", "out", "--key", "team.key", *more)
    medium = connected.folder.with_name(f"{connected.folder.name}-medium") / Path(made["path"]).name
    medium.parent.mkdir(exist_ok=True)
    shutil.move(connected.folder / made["path"], medium)
    return Carried(medium, connected.folder / "team.key.pub")


@pytest.fixture(scope="session")
def carried(connected: Host) -> Carried:
    return build(connected, version="1.0.0", sequence=1, prompts='"In the beginning"')


@pytest.fixture(scope="session")
def carried_later(connected: Host, carried: Carried) -> Carried:
    """A later release of the same weights, asked other questions."""
    return build(connected, version="1.1.0", sequence=2, prompts='"Blessed are", "And"')


@pytest.fixture(scope="session")
def airpack_from_the_medium(carried: Carried, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What ``setup.sh`` makes on a host that has Python and no network."""
    folder = tmp_path_factory.mktemp("isolated")
    bare = bare_environment(folder)
    host = Host((), bare, carried.medium, no_network())
    host.run("sh", "setup.sh", folder / "airpack")
    return folder / "airpack" / "bin" / "airpack"


@pytest.fixture
def isolated(airpack_from_the_medium: Path, tmp_path: Path) -> Host:
    """A host without a network, and with a fresh home."""
    return Host((str(airpack_from_the_medium),), bare_environment(tmp_path), tmp_path, no_network())


def bare_environment(folder: Path) -> dict[str, str]:
    """Nothing of this session's but the way to Python and the system's programs."""
    path = os.pathsep.join([str(Path(sys.base_prefix) / "bin"), "/usr/bin", "/bin"])
    return {
        "PATH": path,
        "HOME": str(folder),
        "LANG": "C.UTF-8",
        "AIRPACK_HOME": str(folder / "home"),
    }
