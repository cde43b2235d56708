from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from packager.runtime.engine import Engine, EngineOptions
from packager.runtime.sandbox import is_cut_off

ENTER = """
import json, os, sys
from packager.runtime.sandbox import enter_namespace, is_cut_off
before = os.geteuid(), os.getegid()
entered = enter_namespace()
interfaces = sorted(l.split(":")[0].strip() for l in open("/proc/self/net/dev").readlines()[2:])
print(json.dumps({"entered": entered, "cut_off": is_cut_off(), "interfaces": interfaces,
                  "same_user": before == (os.geteuid(), os.getegid())}))
"""
OPEN = """
import json, sys
from pathlib import Path
from packager.runtime.engine import Engine
with Engine(Path(sys.argv[1])) as engine:
    answer = "".join(engine.complete("In the", max_tokens=4))
    print(json.dumps({"namespace": engine.egress.namespace, "answer": answer}))
"""
AS_ANOTHER_USER = ("unshare", "--user", "--map-user=1000", "--map-group=1000")
WITHOUT_NETWORK = ("unshare", "-rn")
NO_MORE_NAMESPACES = (
    "unshare", "-Ur", "sh", "-c", 'echo 0 >/proc/sys/user/max_net_namespaces; exec "$@"', "sh",
)  # fmt: skip


def allows_namespaces(*prefix: str) -> bool:
    """What this host's own tools say of it."""
    return subprocess.run([*prefix, "unshare", "-rn", "true"], capture_output=True).returncode == 0


def run(script: str, *arguments: str, prefix: tuple[str, ...] = ()) -> dict[str, object]:
    command = [*prefix, sys.executable, "-c", script, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    result: dict[str, object] = json.loads(done.stdout)
    return result


def test_a_process_that_entered_has_nothing_but_loopback_and_is_the_same_user() -> None:
    seen = run(ENTER)
    assert seen["entered"] == allows_namespaces()
    assert seen["cut_off"] == seen["entered"] or not seen["entered"]
    assert seen["interfaces"] == ["lo"] or not seen["entered"]
    assert seen["same_user"]


def test_an_ordinary_process_does_not_claim_to_be_cut_off() -> None:
    interfaces = Path("/proc/self/net/dev").read_text().splitlines()[2:]
    if len(interfaces) > 1:
        assert not is_cut_off()
    else:
        assert interfaces[0].strip().startswith("lo:")


def test_the_engine_answers_inside_a_namespace_and_says_so(random_model: Path) -> None:
    with Engine(random_model) as engine:
        assert engine.egress.namespace == allows_namespaces()
        assert engine.egress.attempts == ()
        engine_network = Path(f"/proc/{engine.pid}/ns/net").readlink()
        assert (engine_network != Path("/proc/self/ns/net").readlink()) == allows_namespaces()
        assert engine.tokenize("the")


def test_an_engine_that_was_not_isolated_does_not_claim_it(random_model: Path) -> None:
    with Engine(random_model, EngineOptions(isolate=False)) as engine:
        assert not engine.egress.namespace


@pytest.mark.parametrize("prefix", [WITHOUT_NETWORK, AS_ANOTHER_USER])
def test_the_engine_isolates_itself_from_other_starting_points(
    random_model: Path, prefix: tuple[str, ...]
) -> None:
    if subprocess.run([*prefix, "true"], capture_output=True).returncode:
        prefix = ()  # this host does not let its users make namespaces
    seen = run(OPEN, str(random_model), prefix=prefix)
    assert seen["namespace"] == allows_namespaces(*prefix)
    assert seen["answer"] == run(OPEN, str(random_model))["answer"]


def test_where_the_kernel_refuses_the_engine_answers_and_says_that_it_was_not_cut_off(
    random_model: Path,
) -> None:
    prefix = NO_MORE_NAMESPACES if allows_namespaces() else ()
    seen = run(OPEN, str(random_model), prefix=prefix)
    assert seen["namespace"] is False
    assert seen["answer"]
