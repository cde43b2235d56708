"""Private keys: how they are made, kept and opened, and that a stock openssl agrees."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from support.hosts import in_small_disk

from packager.connected.signing import keys
from packager.connected.signing.keys import (
    MAX_PASSPHRASE_SIZE,
    generate_key,
    is_encrypted,
    open_key,
    public_path_of,
    read_passphrase,
)
from packager.errors import AirpackError, HostError, TrustError, UsageError
from packager.trust.keys import ML_DSA_87, P256, parse_public_key

PHRASE = "correct horse — Größe".encode()
DATA = b"what is signed"


def openssl(*arguments: str | Path, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(["openssl", *arguments], input=stdin, capture_output=True, check=False)


@pytest.fixture
def key(tmp_path: Path) -> Path:
    generate_key(tmp_path / "team.key", P256, None)
    return tmp_path / "team.key"


@pytest.mark.parametrize("algorithm", [P256, ML_DSA_87])
@pytest.mark.parametrize("passphrase", [None, PHRASE])
def test_a_pair_is_made_and_its_halves_fit(
    tmp_path: Path, algorithm: str, passphrase: bytes | None
) -> None:
    path = tmp_path / "team.key"
    public = generate_key(path, algorithm, passphrase)

    opened = open_key(path, passphrase)
    assert public == opened.public == parse_public_key(public_path_of(path).read_bytes(), "pub")
    assert public.algorithm == algorithm
    assert public.verifies(opened.sign(DATA), DATA)
    assert not public.verifies(opened.sign(DATA), DATA + b".")
    assert is_encrypted(path) == (passphrase is not None)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert sorted(p.name for p in tmp_path.iterdir()) == ["team.key", "team.key.pub"]


def test_private_key_is_0600_under_any_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        generate_key(tmp_path / "k", P256, None)
    finally:
        os.umask(before)

    assert stat.S_IMODE((tmp_path / "k").stat().st_mode) == 0o600


@pytest.mark.parametrize("there", ["k", "k.pub"])
@pytest.mark.parametrize("as_link", [False, True])
def test_nothing_that_is_there_is_overwritten(tmp_path: Path, there: str, as_link: bool) -> None:
    path = tmp_path / there
    if as_link:
        path.symlink_to("nowhere")
    else:
        path.write_text("precious")

    with pytest.raises(UsageError, match=f"{path}: exists"):
        generate_key(tmp_path / "k", P256, None)

    assert [p.name for p in tmp_path.iterdir()] == [there]
    assert path.is_symlink() == as_link
    assert as_link or path.read_text() == "precious"


def test_103_of_many_at_once_one_wins_and_its_halves_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, refused = [], []
    barrier, make = threading.Barrier(8), keys._generate

    def all_together(algorithm: str) -> object:
        barrier.wait(30)  # each has seen by now that there is no such key
        return make(algorithm)

    monkeypatch.setattr(keys, "_generate", all_together)

    def generate() -> None:
        try:
            made.append(generate_key(tmp_path / "k", P256, None))
        except UsageError as error:
            refused.append(error)

    threads = [threading.Thread(target=generate) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert (len(made), len(refused)) == (1, 7)
    assert open_key(tmp_path / "k", None).public == made[0]
    assert parse_public_key((tmp_path / "k.pub").read_bytes(), "pub") == made[0]


def test_public_half_that_cannot_be_written_takes_the_private_one_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = keys._generate

    def meanwhile(algorithm: str) -> object:
        (tmp_path / "k.pub").write_text("precious")
        return make(algorithm)

    monkeypatch.setattr(keys, "_generate", meanwhile)

    with pytest.raises(UsageError, match=f"{tmp_path / 'k.pub'}: exists"):
        generate_key(tmp_path / "k", P256, None)
    assert [p.name for p in tmp_path.iterdir()] == ["k.pub"]
    assert (tmp_path / "k.pub").read_text() == "precious"


def test_99_full_disk_leaves_no_half_of_a_pair(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    fill = f"head -c 1m /dev/zero > '{disk}/filler' 2>/dev/null"
    make = (
        "from pathlib import Path\nfrom packager.connected.signing.keys import generate_key\n"
        f'generate_key(Path("{disk}/k"), "p256", None)'
    )

    done = in_small_disk(disk, "64k", f"{fill}; '{sys.executable}' -c '{make}'; ls -A '{disk}'")

    assert f"NoSpaceError: {disk}/k: no space left" in done.stderr
    assert done.stdout.split() == ["filler"]


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(HostError, match=rf"{tmp_path}/no/k: no such file"):
        generate_key(tmp_path / "no" / "k", P256, None)


def test_an_unknown_algorithm_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="rsa"):
        generate_key(tmp_path / "k", "rsa", None)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("passphrase", [b"", b"x" * (MAX_PASSPHRASE_SIZE + 1)])
def test_an_empty_or_endless_passphrase_makes_no_key(tmp_path: Path, passphrase: bytes) -> None:
    with pytest.raises(UsageError, match="passphrase"):
        generate_key(tmp_path / "k", P256, passphrase)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o601])
def test_13_private_key_open_to_others_is_refused(key: Path, mode: int) -> None:
    key.chmod(mode)

    with pytest.raises(TrustError, match=f"{key}: .*read by others.*{mode:03o}") as caught:
        open_key(key, None)
    assert f"chmod 600 {key}" in (caught.value.hint or "")


def test_14_wrong_passphrase_is_said_so(tmp_path: Path) -> None:
    path = tmp_path / "k"
    generate_key(path, P256, PHRASE)

    for wrong, fact in ((b"wrong", "wrong passphrase"), (None, "needs a passphrase")):
        with pytest.raises(TrustError, match=f"{path}: .*{fact}"):
            open_key(path, wrong)


def test_a_passphrase_for_a_key_that_has_none_is_said_so(key: Path) -> None:
    with pytest.raises(TrustError, match="has no passphrase"):
        open_key(key, PHRASE)


@pytest.mark.parametrize("passphrase", [None, PHRASE])
@pytest.mark.parametrize("data", [b"", b"garbage", b"\xff" * 70_000])
def test_what_is_no_key_is_said_so(tmp_path: Path, data: bytes, passphrase: bytes | None) -> None:
    path = tmp_path / "k"
    path.write_bytes(data)
    path.chmod(0o600)

    with pytest.raises(TrustError, match=f"{path}: not a private key"):
        open_key(path, passphrase)


def test_a_truncated_key_is_refused(key: Path) -> None:
    key.write_bytes(key.read_bytes()[:-60])
    with pytest.raises(TrustError, match=f"{key}: not a private key"):
        open_key(key, None)


@pytest.mark.parametrize(
    "arguments",
    [
        ("genrsa", "1024"),
        ("genpkey", "-algorithm", "ED25519"),
        ("ecparam", "-genkey", "-noout", "-name", "secp384r1"),
        ("ecparam", "-genkey", "-noout", "-name", "brainpoolP256r1"),
    ],
)
def test_11_keys_of_other_kinds_are_refused(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    path = tmp_path / "k"
    path.write_bytes(openssl(*arguments).stdout)
    path.chmod(0o600)

    with pytest.raises(TrustError, match="neither an ECDSA P-256 nor an ML-DSA-87 key"):
        open_key(path, None)


def test_a_key_mounted_as_a_link_is_opened_and_its_target_is_judged(key: Path) -> None:
    link = key.with_name("secret")
    link.symlink_to(key)
    assert is_encrypted(link) is False
    assert open_key(link, None).public == open_key(key, None).public

    key.chmod(0o644)
    with pytest.raises(TrustError, match=f"{link}: "):
        open_key(link, None)


@pytest.mark.parametrize("passphrase", [None, b"phrase"])
def test_openssl_signs_with_our_key_and_verifies_what_we_sign(
    tmp_path: Path, passphrase: bytes | None
) -> None:
    path, data, signature = tmp_path / "k", tmp_path / "data", tmp_path / "sig"
    public = generate_key(path, P256, passphrase)
    data.write_bytes(DATA)
    phrase = ["-passin", f"pass:{passphrase.decode()}"] if passphrase else []

    theirs = openssl("dgst", "-sha256", "-sign", path, *phrase, data)
    assert theirs.returncode == 0, theirs.stderr
    assert public.verifies(theirs.stdout, DATA)

    signature.write_bytes(open_key(path, passphrase).sign(DATA))
    verify = ["dgst", "-sha256", "-verify", public_path_of(path), "-signature", signature, data]
    assert openssl(*verify).stdout == b"Verified OK\n"
    data.write_bytes(DATA + b".")
    assert openssl(*verify).returncode == 1


def test_a_key_made_by_openssl_is_opened(tmp_path: Path) -> None:
    path = tmp_path / "k"
    options = ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"]
    path.write_bytes(openssl("genpkey", *options).stdout)
    path.chmod(0o600)

    opened = open_key(path, None)
    assert opened.public.verifies(opened.sign(DATA), DATA)


def test_the_passphrase_is_the_first_line_of_its_file(tmp_path: Path) -> None:
    path = tmp_path / "phrase"
    path.write_bytes(PHRASE + b"\r\nsecond line\n")
    assert read_passphrase(path) == PHRASE
    path.write_bytes(b"x" * MAX_PASSPHRASE_SIZE)
    assert read_passphrase(path) == b"x" * MAX_PASSPHRASE_SIZE


@pytest.mark.parametrize("data", [b"", b"\n", b"\nsecond", b"x" * 2000])
def test_a_passphrase_file_without_one_is_named(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "phrase"
    path.write_bytes(data)
    with pytest.raises(AirpackError, match=f"{path}: the passphrase"):
        read_passphrase(path)


def test_an_encrypted_key_costs_a_thief_scrypt_and_stock_openssl_opens_it(tmp_path: Path) -> None:
    path = tmp_path / "k"
    public = generate_key(path, P256, b"open sesame")
    structure = openssl("asn1parse", "-in", path).stdout
    assert b":scrypt" in structure
    assert b":aes-256-cbc" in structure
    assert b":4000\n" in structure  # N, the cost
    opened = openssl("pkey", "-in", path, "-passin", "pass:open sesame", "-pubout").stdout
    assert parse_public_key(opened, "openssl's") == public


@pytest.mark.parametrize("scheme", [["-scrypt"], ["-v2", "aes-256-cbc", "-iter", "5000"]])
def test_a_key_that_openssl_encrypted_is_opened(
    tmp_path: Path, key: Path, scheme: list[str]
) -> None:
    made = openssl("pkcs8", "-topk8", "-in", key, *scheme, "-passout", "pass:open sesame").stdout
    path = tmp_path / "made.key"
    path.write_bytes(made)
    path.chmod(0o600)
    assert open_key(path, b"open sesame").public == open_key(key, None).public
    with pytest.raises(TrustError, match="wrong passphrase"):
        open_key(path, b"open barley")


def test_a_descriptor_gives_a_line_for_each_key_and_no_byte_more() -> None:
    reader, writer = os.pipe()
    try:
        os.write(writer, b"first\r\nsecond\nthird")
        place = Path(f"/dev/fd/{reader}")
        assert [read_passphrase(place), read_passphrase(place)] == [b"first", b"second"]
        assert os.read(reader, 100) == b"third"
        os.write(writer, b"\n")
        with pytest.raises(UsageError, match=f"{place}: the passphrase is empty"):
            read_passphrase(place)
        os.write(writer, b"x" * (MAX_PASSPHRASE_SIZE + 3))
        with pytest.raises(UsageError, match=f"{place}: the passphrase is over"):
            read_passphrase(place)
    finally:
        os.close(reader)
        os.close(writer)
    with pytest.raises(HostError, match=f"{place}: bad file descriptor"):
        read_passphrase(place)
