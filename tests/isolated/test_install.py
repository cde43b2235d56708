from __future__ import annotations

import json
import os
import random
import resource
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from support.bundles import CHUNK_SIZE, flip_bit, keyring_of, make_bundle, make_key, resign
from support.hosts import Host
from support.tiny_source import weights
from support.watching import Watching

from packager.connected.signing.keys import SigningKey
from packager.errors import AirpackError, HostError, UsageError
from packager.format.receipt import RECEIPT_NAME, parse_receipt
from packager.isolated.lifecycle import find_variant
from packager.isolated.trust_store import read_sequences
from packager.store.generations import installed_names
from packager.store.home import Home

WEIGHTS = weights(random.Random(1).randbytes(300_000))
FILES: Mapping[str, bytes] = {
    "model.safetensors": WEIGHTS,
    "nested/config.json": b"{}\n",
    "same.safetensors": WEIGHTS,
    "empty": b"",
}
FIRST, SECOND = "payload.00001", "payload.00002"


@pytest.fixture
def bundle(tmp_path: Path, key: SigningKey) -> Path:
    """A newer release, in several volumes."""
    return make_bundle(
        tmp_path / "stick", [key], sequence=2, files=FILES, volume_size=4 * CHUNK_SIZE
    )


def refused(host: Host, *media: Path, code: int, **options: bool | str | None) -> str:
    """What the refusal says; asserts that nothing changed and that the log says the same."""
    before, events = host.state(), len(host.events())
    with pytest.raises(AirpackError) as caught:
        host.install(*media, **options)  # type: ignore[arg-type]
    assert caught.value.exit_code == code
    assert host.state() == before
    assert code == 10 or host.partials() == {}
    assert len(host.events()) == events + 1
    assert host.last_refusal() == caught.value.message
    assert host.events()[-1].details["exit_code"] == code
    return caught.value.message


def installed_files(path: Path) -> dict[str, bytes]:
    return {
        file.relative_to(path / "original").as_posix(): file.read_bytes()
        for file in (path / "original").rglob("*")
        if file.is_file() and file.name != "model.sig"
    }


def test_an_install_makes_the_files_current_and_leaves_a_receipt_and_a_line(
    running: Host, bundle: Path, key: SigningKey
) -> None:
    done = running.install(bundle)
    assert running.current() == 2
    assert done.path == running.home.models / "tiny" / "2"
    assert installed_files(done.path) == FILES
    receipt = parse_receipt((done.path / RECEIPT_NAME).read_bytes())
    assert receipt == done.receipt
    assert (receipt.version, receipt.sequence, receipt.generation) == ("1.0.0", 2, 2)
    assert receipt.signers == (key.public.key_id,)
    assert [medium.path for medium in receipt.media] == [str(bundle)]
    event = running.events()[-1]
    assert (event.what, event.details["generation"], event.details["smoke"]) == (
        "install", 2, "not run",
    )  # fmt: skip
    mark = read_sequences(running.home).find("tiny")
    assert mark is not None
    assert (mark.sequence, mark.bundle) == (2, receipt.bundle)


def test_the_evidence_of_the_decision_stays_with_the_generation(
    running: Host, bundle: Path, key: SigningKey
) -> None:
    path = running.install(bundle).path
    for name in ("bundle.json", "SHA256SUMS", f"SHA256SUMS.{key.public.key_id}.sig"):
        assert (path / name).read_bytes() == (bundle / name).read_bytes()


def test_files_with_the_same_content_are_stored_once(
    tmp_path: Path, running: Host, bundle: Path, key: SigningKey
) -> None:
    first = running.install(bundle).path
    other = make_bundle(tmp_path / "b", [key], name="other", files={"w.safetensors": WEIGHTS})
    watching = Watching()
    second = running.install(other, progress=watching).path
    paths = [first / "original/model.safetensors", first / "original/same.safetensors",
             second / "original/w.safetensors"]  # fmt: skip
    assert len({path.stat().st_ino for path in paths}) == 1
    assert paths[0].stat().st_nlink == 4  # the store's own, and these
    assert [task.label for task in watching.tasks] == ["checking the store"]


def test_the_same_bundle_again_is_a_new_generation_of_the_same_files(
    running: Host, bundle: Path
) -> None:
    first = running.install(bundle).path
    watching = Watching()
    second = running.install(bundle, progress=watching).path
    assert (first.name, second.name, running.current()) == ("2", "3", 3)
    (task,) = watching.tasks
    assert (task.label, task.done) == ("checking the store", task.total)
    model = "original/model.safetensors"
    assert (first / model).samefile(second / model)


def test_only_the_chunks_of_what_is_missing_are_read(
    tmp_path: Path, running: Host, bundle: Path, key: SigningKey
) -> None:
    running.install(bundle)
    files = {**FILES, "new": b"n" * 10}
    later = make_bundle(tmp_path / "later", [key], sequence=3, version="1.1", files=files)
    watching = Watching()
    running.install(later, progress=watching)
    assert [task.label for task in watching.tasks] == ["checking the store", "installing"]
    assert all(task.done == task.total for task in watching.tasks)
    assert watching.tasks[1].total <= CHUNK_SIZE


@pytest.mark.parametrize("variant", ["q4_k_m", "original"])
def test_one_variant_alone_is_installed(
    running: Host, tmp_path: Path, key: SigningKey, demo_variant: object, variant: str
) -> None:
    bundle = make_bundle(tmp_path / "b", [key], sequence=2, engine_variants=[demo_variant])  # type: ignore[list-item]
    done = running.install(bundle, variant=variant)
    assert done.receipt.variants == (variant,)
    names = sorted(path.name for path in done.path.iterdir() if path.is_dir())
    assert names == [variant]


def test_a_variant_that_the_bundle_lacks_is_refused(running: Host, bundle: Path) -> None:
    message = refused(running, bundle, code=2, variant="q2_k")
    assert message == "tiny-1.0.0 has no variant 'q2_k'; it has original"


def test_more_files_than_may_be_open_are_installed(
    tmp_path: Path, host: Host, key: SigningKey
) -> None:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, limits[1]))
    try:
        files = {f"part-{number}": b"%d" % number for number in range(400)}
        path = host.install(make_bundle(tmp_path / "b", [key], files=files)).path
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert installed_files(path) == files


def test_16_a_lower_sequence_is_refused_and_with_the_flag_taken_and_logged(
    tmp_path: Path, running: Host, bundle: Path
) -> None:
    running.install(bundle)
    old = tmp_path / "first" / "tiny-0.9.0"
    message = refused(running, old, code=18)
    assert message == "tiny-0.9.0 has sequence 1; this host has had 2"
    assert running.current() == 2
    running.install(old, allow_downgrade=True)
    assert running.current() == 3
    assert running.events()[-1].details["downgrade_allowed"] is True
    mark = read_sequences(running.home).find("tiny")
    assert mark is not None
    assert mark.sequence == 2  # the mark does not go down with it


def test_17_the_same_sequence_with_other_content_is_refused(
    tmp_path: Path, running: Host, bundle: Path, key: SigningKey
) -> None:
    running.install(bundle)
    other = make_bundle(tmp_path / "b", [key], sequence=2, files={"model.safetensors": b"x"})
    assert "as another bundle here had" in refused(running, other, code=18)


def test_18_an_expired_bundle_is_refused(tmp_path: Path, running: Host, key: SigningKey) -> None:
    old = make_bundle(tmp_path / "b", [key], sequence=2, expires="2026-11-24T11:59:59Z")
    assert "expired on 2026-11-24" in refused(running, old, code=18)


def test_04_an_unknown_signer_is_refused_and_logged(tmp_path: Path, running: Host) -> None:
    stranger = make_key(tmp_path / "stranger")
    bundle = make_bundle(tmp_path / "b", [stranger], sequence=2)
    assert "none of which this host trusts" in refused(running, bundle, code=11)


def test_48_a_missing_volume_is_refused(running: Host, bundle: Path) -> None:
    (bundle / SECOND).unlink()
    assert refused(running, bundle, code=12) == f"{SECOND}: missing from {bundle}"
    assert running.current() == 1


def test_49_swapped_volumes_are_refused(running: Host, bundle: Path) -> None:
    (bundle / FIRST).rename(bundle.parent / "x")
    (bundle / SECOND).rename(bundle / FIRST)
    (bundle.parent / "x").rename(bundle / SECOND)
    assert refused(running, bundle, code=10).startswith(f"{bundle / FIRST}: ")


def test_52_a_volume_cut_at_a_chunk_is_refused(running: Host, bundle: Path) -> None:
    os.truncate(bundle / FIRST, 3 * CHUNK_SIZE)
    message = refused(running, bundle, code=10)
    assert message.startswith(
        f"{bundle / FIRST}: chunk 3 (bytes {3 * CHUNK_SIZE} to {4 * CHUNK_SIZE}) is damaged; "
        "it touches models/tiny/original/model.safetensors"
    )


@pytest.mark.parametrize("position", [700, CHUNK_SIZE, -1])
def test_53_a_flipped_bit_in_what_is_installed_is_refused(
    running: Host, bundle: Path, position: int
) -> None:
    flip_bit(bundle / FIRST, position)
    message = refused(running, bundle, code=10)
    assert message.startswith(f"{bundle / FIRST}: chunk ")
    assert "models/tiny/original/model.safetensors" in message
    assert running.current() == 1


def test_54_an_extra_file_is_refused(running: Host, bundle: Path) -> None:
    (bundle / "autorun.inf").write_text("[autorun]")
    message = refused(running, bundle, code=10)
    assert message == f"{bundle / 'autorun.inf'}: not part of the signed bundle"


@pytest.mark.parametrize("kind", ["symlink", "fifo"])
def test_55_56_a_volume_that_is_no_file_is_refused(running: Host, bundle: Path, kind: str) -> None:
    (bundle / SECOND).rename(bundle.parent / "moved")
    if kind == "symlink":
        (bundle / SECOND).symlink_to(bundle.parent / "moved")
    else:
        os.mkfifo(bundle / SECOND)
    assert refused(running, bundle, code=10) == f"{bundle / SECOND}: not a regular file"


def test_57_a_longer_volume_is_refused(running: Host, bundle: Path) -> None:
    os.truncate(bundle / FIRST, 1 << 40)
    message = refused(running, bundle, code=10)
    assert message == f"{bundle / FIRST}: {1 << 40} bytes, not {4 * CHUNK_SIZE}"


def test_no_name_is_left_of_a_model_whose_first_install_was_refused(
    host: Host, bundle: Path
) -> None:
    flip_bit(bundle / FIRST, 700)
    refused(host, bundle, code=10)
    assert installed_names(host.home) == ()
    assert [path for path in host.home.blobs.rglob("*") if path.is_file()] == []


def test_a_key_for_one_run_installs_and_is_not_kept(
    tmp_path: Path, bundle: Path, key: SigningKey
) -> None:
    host = Host(Home(tmp_path / "other"), keyring_of(key))
    host.install(bundle)
    assert not (host.home.trust / "keyring.json").exists()


def test_several_media_in_any_order(tmp_path: Path, running: Host, bundle: Path) -> None:
    other = tmp_path / "stick 2"
    other.mkdir()
    for path in bundle.iterdir():
        if not path.name.startswith("payload."):
            (other / path.name).write_bytes(path.read_bytes())
    (bundle / FIRST).rename(other / FIRST)
    done = running.install(bundle, other)
    assert installed_files(done.path) == FILES
    assert [medium.path for medium in done.receipt.media] == [str(bundle), str(other)]


def test_a_medium_whose_path_is_no_text_is_installed(
    tmp_path: Path, running: Host, bundle: Path
) -> None:
    place = Path(os.fsdecode(os.fsencode(tmp_path) + b"/d\xe9p\xf4t"))
    bundle.rename(place)
    [medium] = running.install(place).receipt.media
    assert medium.path == f"{tmp_path}/d\\udce9p\\udcf4t"
    flip_bit(place / FIRST, 0)
    (place / "extra").touch()
    with pytest.raises(AirpackError):
        running.install(place)
    assert "\\udce9" in running.last_refusal()


def test_58_a_volume_that_changes_after_it_was_opened_is_never_written_unchecked(
    running: Host, bundle: Path
) -> None:
    path = bundle / FIRST

    class Changing(Watching):
        def task(self, label: str, total: int, **_options: object) -> object:  # type: ignore[override]
            if label == "installing":  # the sizes were checked, the bytes not yet
                flip_bit(path, 2 * CHUNK_SIZE)
            return super().task(label, total)

    before = running.state()
    with pytest.raises(AirpackError, match=f"{FIRST}: chunk 2 "):
        running.install(bundle, progress=Changing())
    assert running.state() == before


def test_103_an_install_while_another_changes_the_place_is_refused(
    running: Host, bundle: Path
) -> None:
    before = (running.state(), running.events())
    with (
        Home(running.home.root).changing(),
        pytest.raises(HostError, match=f"lock: another airpack, process {os.getpid()}, is"),
    ):
        running.install(bundle)
    assert (running.state(), running.events()) == before


def test_a_damaged_record_of_sequences_is_refused(running: Host, bundle: Path) -> None:
    path = running.home.trust / "sequences.json"
    path.write_bytes(path.read_bytes()[:-1])
    assert f"{path}" in refused(running, bundle, code=11)


def test_the_log_is_no_reason_to_lose_the_error(running: Host, bundle: Path) -> None:
    running.home.log.write_bytes(b"x" * 200_000)
    flip_bit(bundle / FIRST, 700)
    before = running.state()
    with pytest.raises(AirpackError, match=r"chunk 0 .* is damaged"):
        running.install(bundle)
    assert running.state() == before


def test_an_install_that_cannot_be_logged_does_not_happen(running: Host, bundle: Path) -> None:
    running.home.log.write_bytes(b"x" * 200_000)
    before = running.state()
    with pytest.raises(AirpackError, match="the log was edited"):
        running.install(bundle)
    assert running.state() == before


def test_an_insiders_index_with_a_name_that_collides_is_refused_whole(
    tmp_path: Path, running: Host, key: SigningKey
) -> None:
    bundle = make_bundle(tmp_path / "b", [key], sequence=2)
    index = bundle / "bundle.json"
    document = json.loads(index.read_bytes())
    document["name"] = "../../etc"
    index.write_text(json.dumps(document, sort_keys=True, separators=(",", ":")))
    resign(bundle, [key])
    assert "is not a plain name" in refused(running, bundle, code=10)


def test_a_variant_that_no_engine_opens_is_installed_untested_and_said_so(
    running: Host, bundle: Path
) -> None:
    watching = Watching()
    done = running.install(bundle, smoke=True, progress=watching)
    assert done.smoke == ()
    assert watching.notes == ["original: carried as it is; no engine here runs it, not tested"]
    with pytest.raises(UsageError, match="tiny has no variant that the engine opens installed"):
        find_variant(running.home, "tiny", None)


def test_more_signers_than_signed_are_refused(
    tmp_path: Path, running: Host, key: SigningKey
) -> None:
    ring = keyring_of(key, make_key(tmp_path / "second"), threshold=2)
    bundle = make_bundle(tmp_path / "b", [key], sequence=2)
    assert "1 of the 2" in refused(replace(running, keyring=ring), bundle, code=11)
