"""The inventory, and the part of the index that says what a delta leaves out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from packager.errors import MalformedError
from packager.format import canonical
from packager.format.bundle import (
    MAX_INDEX_SIZE,
    Bundle,
    Origin,
    PayloadFile,
    encode_bundle,
    parse_bundle,
)
from packager.format.digest import Digest
from packager.format.held import HeldFile, Setup, SetupFile, is_requirements, is_setup_part
from packager.format.inventory import (
    MAX_INVENTORY_SIZE,
    Inventory,
    InventoryBundle,
    InventoryFile,
    encode_inventory,
    inventory_of,
    merge_inventories,
    parse_inventory,
)
from packager.format.tar import plan_tar
from packager.format.target import Target
from packager.format.variant import Variant
from packager.format.volumes import MIN_CHUNK_SIZE, Payload, Volume, volume_name

PLACE = "models/tiny/q4"
ONE, TWO, SUMS = (Digest.of(text) for text in (b"one", b"two", b"sums"))


def index_of(
    held: tuple[HeldFile, ...],
    files: tuple[tuple[str, int], ...],
    set_up_with: Setup | None = None,
) -> Bundle:
    """The index of a delta whose payload is of ``files``, all of them ``ONE``."""
    layout = plan_tar(files)
    return Bundle(
        name="tiny",
        version="2.0.0",
        sequence=2,
        created="2026-11-24T00:00:00Z",
        expires=None,
        signers=1,
        airpack="0.1.0",
        engine="xllamacpp 1",
        origin=Origin("hub", "org/tiny", "0" * 40, "apache-2.0"),
        lock=SUMS,
        payload=Payload(layout.size, MIN_CHUNK_SIZE, (SUMS,)),
        volumes=(Volume(volume_name(1), layout.size, 0),),
        parity=(),
        files=tuple(PayloadFile(e.path, e.size, e.offset, ONE) for e in layout.entries),
        variants=(Variant("q4", "gguf", "Q4_K_M", PLACE, "model.gguf", None),),
        targets=(Target("linux_x86_64", ("3.11",), "2.28"),),
        held=held,
        base=SUMS,
        set_up_with=set_up_with,
    )


MODEL = HeldFile(f"{PLACE}/model.gguf", 40 << 30, TWO, "tiny-1.0.0")
WHEEL, LIBRARY = (SetupFile(f"setup/{n}", 9, ONE) for n in ("a-1-any.whl", "libgomp.so.1"))
SETUP = Setup("tiny-1.0.0", (WHEEL, LIBRARY))
DELTA = index_of((MODEL,), ((f"{PLACE}/LICENSE", 11), ("setup/setup.sh", 5)), SETUP)
INVENTORY = Inventory(
    files=tuple(sorted((InventoryFile(ONE, 11, "tiny-1.0.0"), InventoryFile(TWO, 0, "b-1")))),
    bundles=(InventoryBundle("b", "1", 7, TWO), InventoryBundle("tiny", "1.0.0", 1, ONE)),
    set_up_with=(Setup("b-1", (WHEEL,)), SETUP),
)


def changed_inventory(change: Callable[[Any], object]) -> bytes:
    data = encode_inventory(INVENTORY)
    document = canonical.decode(data, what="", max_size=MAX_INVENTORY_SIZE)
    change(document)
    return canonical.encode(document)


def changed_index(change: Callable[[Any], object]) -> bytes:
    document = canonical.decode(encode_bundle(DELTA), what="", max_size=MAX_INDEX_SIZE)
    change(document)
    return canonical.encode(document)


@given(
    st.dictionaries(st.binary(max_size=4).map(Digest.of), st.integers(0, 1 << 44), max_size=20),
    st.sets(st.tuples(st.from_regex(r"[a-z]{1,5}", fullmatch=True), st.integers(1, 9)), max_size=5),
    st.sets(st.from_regex(r"[a-z]{1,5}-[0-9]\.whl", fullmatch=True), max_size=5),
)
def test_what_is_written_is_read_back(
    files: dict[Digest, int], bundles: set[tuple[str, int]], wheels: set[str]
) -> None:
    parts = tuple(SetupFile(f"setup/{name}", len(name), ONE) for name in sorted(wheels))
    made = Inventory(
        files=tuple(sorted(InventoryFile(d, size, "tiny-1.0.0") for d, size in files.items())),
        bundles=tuple(sorted(InventoryBundle(name, "1", n, ONE) for name, n in bundles)),
        set_up_with=tuple(Setup(f"tiny-{n}", parts) for n in range(3) if parts),
    )
    again = parse_inventory(encode_inventory(made))
    assert again == made
    assert again.digest == made.digest
    for digest, size in files.items():
        found = again.find(digest, size)
        assert found is not None
        assert (found.digest, found.size) == (digest, size)
        assert again.find(digest, size + 1) is None


@pytest.mark.parametrize(
    ("change", "fact"),
    [
        (lambda d: d.update(format="airpack-bundle"), "format: not airpack-inventory"),
        (lambda d: d.update(format_version=2), "this airpack reads 1"),
        (lambda d: d.update(host="gpu-7"), "host: unknown field"),
        (lambda d: d["files"].reverse(), "files: not each once, in order"),
        (lambda d: d["files"].append(d["files"][-1]), "files: not each once"),
        (lambda d: d["bundles"].reverse(), "bundles: not each once, in order"),
        (lambda d: d["files"][0].update(digest="0" * 63), "not a sha256"),
        (lambda d: d["files"][0].update(size=-1), "not between"),
        (lambda d: d["files"][0].update(size=1 << 45), "not between"),
        (lambda d: d["files"][0].update(bundle="tiny-1.0.0; rm -rf"), "not the title of a bundle"),
        (lambda d: d["files"][0].update(bundle="tiny-1\u202e"), "not the title of a bundle"),
        (lambda d: d["bundles"][0].update(name="../x"), "is not a plain name"),
        (lambda d: d["bundles"][0].update(sequence=0), "not between"),
        (lambda d: d.pop("files"), "files: missing"),
        (lambda d: d.pop("set_up_with"), "set_up_with: missing"),
        (lambda d: d["set_up_with"].reverse(), "set_up_with: not each once, in order"),
        (lambda d: d["set_up_with"][0].update(files=[]), "files: none, or not each once"),
        (lambda d: d["set_up_with"][1]["files"].reverse(), "or not each once, in order"),
        (lambda d: d["set_up_with"][0].update(bundle="b 1"), "not the title of a bundle"),
        (lambda d: d["set_up_with"][0]["files"][0].update(path="setup/a.sh"), "no wheel or lib"),
        (lambda d: d["set_up_with"][0]["files"][0].update(offset=1), "offset: unknown field"),
    ],
)
def test_a_malformed_inventory_is_refused_by_name(change: Any, fact: str) -> None:
    with pytest.raises(MalformedError) as caught:
        parse_inventory(changed_inventory(change), "held.json")
    assert caught.value.message.startswith("held.json: ")
    assert fact in caught.value.message
    assert caught.value.message.isprintable()


def test_an_inventory_of_too_many_files_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("packager.format.inventory.MAX_INVENTORY_FILES", 1)
    with pytest.raises(MalformedError, match="files: more than 1 entries"):
        encode_inventory(INVENTORY)


def test_a_host_that_has_a_delta_holds_what_it_carried_and_what_it_left_out() -> None:
    found = inventory_of(DELTA, SUMS, DELTA.variants)
    assert {(f.digest, f.size, f.bundle) for f in found.files} == {
        (ONE, 11, "tiny-2.0.0"),
        (TWO, 40 << 30, "tiny-1.0.0"),
    }
    assert found.bundles == (InventoryBundle("tiny", "2.0.0", 2, SUMS),)
    assert inventory_of(DELTA, SUMS, ()).files == ()
    assert found.set_up_with == (SETUP,)


def test_a_whole_bundle_sets_up_with_its_own_wheels_and_libraries() -> None:
    files = (("setup/libgomp.so.1", 9), ("setup/a-1-any.whl", 9), ("setup/setup.sh", 5))
    whole = index_of((MODEL,), files)
    assert inventory_of(whole, SUMS, ()).set_up_with == (Setup("tiny-2.0.0", SETUP.files),)
    assert inventory_of(index_of((MODEL,), files[2:]), SUMS, ()).set_up_with == ()


@pytest.mark.parametrize(
    ("path", "part", "requirements"),
    [
        ("setup/click-8.1-py3-none-any.whl", True, False),
        ("setup/libgomp.so.1", True, False),
        ("setup/requirements-3.11.txt", False, True),
        ("setup/FORMAT.md", False, False),
        ("setup/x/click.whl", False, False),
        ("models/tiny/setup/click.whl", False, False),
        ("models/tiny/requirements-3.11.txt", False, False),
    ],
)
def test_what_airpack_is_set_up_from_is_told_by_its_path(
    path: str, part: bool, requirements: bool
) -> None:
    assert (is_setup_part(path), is_requirements(path)) == (part, requirements)


def test_a_setup_is_found_only_where_one_bundle_has_all_of_it() -> None:
    other = SetupFile(WHEEL.path, WHEEL.size, TWO)
    held = Inventory((), (), (Setup("a-1", (WHEEL,)), Setup("b-1", (other, LIBRARY)), SETUP))
    assert held.find_setup((LIBRARY, WHEEL)) == SETUP
    assert held.find_setup((other, LIBRARY)) == held.set_up_with[1]
    parted = Inventory((), (), (Setup("a-1", (WHEEL,)), Setup("b-1", (LIBRARY,))))
    assert parted.find_setup((WHEEL, LIBRARY)) is None


def test_merged_inventories_hold_what_each_of_them_does() -> None:
    both = merge_inventories([inventory_of(DELTA, SUMS, DELTA.variants), INVENTORY])
    assert {file.digest for file in both.files} == {ONE, TWO}
    assert [bundle.version for bundle in both.bundles] == ["1", "1.0.0", "2.0.0"]
    assert both.set_up_with == INVENTORY.set_up_with
    later = merge_inventories([INVENTORY, Inventory((), (), (Setup("c-1", SETUP.files),))])
    assert [setup.bundle for setup in later.set_up_with] == ["b-1", "c-1"]
    assert parse_inventory(encode_inventory(both)) == both


def test_a_delta_is_read_back_and_its_variant_is_of_both_kinds() -> None:
    again = parse_bundle(encode_bundle(DELTA))
    assert again == DELTA
    (variant,) = again.variants
    assert [f.path for f in again.variant_files(variant)] == [f"{PLACE}/LICENSE", MODEL.path]
    assert again.held_files(variant) == (MODEL,)


@pytest.mark.parametrize(
    ("change", "fact"),
    [
        (lambda d: d.update(base=None), "held or set_up_with: there is no base"),
        (
            lambda d: (d.update(base=None, held=[]), d["variants"][0].update(model=None)),
            "held or set_up_with: there is no base",
        ),
        (
            lambda d: d["files"][1].update(path="setup/b-1.whl"),
            "set_up_with: the payload has wheels or libraries too",
        ),
        (lambda d: d["set_up_with"].update(files=[]), "set_up_with.files: none, or not each once"),
        (lambda d: d["set_up_with"].update(base=ONE.hex), "set_up_with.base: unknown field"),
        (lambda d: d.update(set_up_with=[]), "set_up_with: expected a mapping"),
        (lambda d: d.update(base="x"), "base: not a sha256"),
        (lambda d: d.pop("held"), "held: missing"),
        (lambda d: d["held"][0].update(path="models/tiny/q8/model.gguf"), "nor held"),
        (lambda d: d["held"][0].update(path=f"{PLACE}/../q4/model.gguf"), "has the component"),
        (lambda d: d["held"][0].update(path="/etc/passwd"), "is absolute"),
        (lambda d: d["held"][0].update(bundle=""), "is empty"),
        (lambda d: d["held"][0].update(bundle="no title"), "not the title of a bundle"),
        (lambda d: d["held"][0].update(offset=0), "unknown field"),
        (lambda d: d["held"].append({**d["held"][0]}), "are the same on some hosts"),
        (
            lambda d: d["held"].append({**d["held"][0], "path": f"{PLACE}/license"}),
            "are the same on some hosts",
        ),
        (
            lambda d: d["held"].append({**d["held"][0], "path": "setup/pip.whl"}),
            "'setup/pip.whl' is of no variant",
        ),
        (
            lambda d: d["held"].append({**d["held"][0], "path": "models/tiny/q4x/a"}),
            "is of no variant",
        ),
    ],
)
def test_a_delta_whose_parts_do_not_fit_together_is_refused(change: Any, fact: str) -> None:
    with pytest.raises(MalformedError) as caught:
        parse_bundle(changed_index(change))
    assert fact in caught.value.message
    assert caught.value.message.startswith("bundle.json: ")


def test_files_of_both_kinds_are_bounded_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("packager.format.bundle.MAX_FILES", 2)
    with pytest.raises(MalformedError, match="files and held: more than 2 entries"):
        encode_bundle(DELTA)
    assert encode_bundle(index_of((MODEL,), ((f"{PLACE}/LICENSE", 11),)))
