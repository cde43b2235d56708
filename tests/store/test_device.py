"""What a medium says of itself, read where Linux keeps it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from packager.store.device import Device, identify_device


@pytest.fixture
def stick(tmp_path: Path) -> tuple[Path, Path, Path]:
    """A directory, and a /sys and a /dev/disk in which a USB stick holds it."""
    sys, by, place = tmp_path / "sys", tmp_path / "by", tmp_path / "mounted"
    place.mkdir()
    usb = sys / "devices/pci0/usb1/1-2"
    partition = usb / "host6/block/sdb/sdb1"
    partition.mkdir(parents=True)
    (usb / "serial").write_text("4C530001\n")
    (usb / "product").write_text("Ultra\x1b[31m USB  3.0\n")
    number = place.stat().st_dev
    (sys / "dev/block").mkdir(parents=True)
    (sys / "dev/block" / f"{os.major(number)}:{os.minor(number)}").symlink_to(partition)
    for kind, name in (("by-label", "AIR\\x20PACK"), ("by-uuid", "1A2B-3C4D")):
        (by / kind).mkdir(parents=True)
        (by / kind / name).symlink_to("../../sdb1")
        (by / kind / "other").symlink_to("../../sda1")
    return place, sys, by


def test_label_and_serial_of_a_stick_are_read_and_made_plain(
    stick: tuple[Path, Path, Path],
) -> None:
    place, sys, by = stick
    assert identify_device(place, sys=sys, by=by) == Device(
        label="AIR PACK", uuid="1A2B-3C4D", model="Ultra [31m USB 3.0", serial="4C530001"
    )


def test_what_is_on_no_device_says_nothing(tmp_path: Path) -> None:
    assert identify_device(tmp_path, sys=tmp_path, by=tmp_path) == Device()
    assert identify_device(tmp_path / "gone") == Device()


def test_a_device_without_a_serial_is_no_error(stick: tuple[Path, Path, Path]) -> None:
    place, sys, by = stick
    (sys / "devices/pci0/usb1/1-2/serial").unlink()
    assert identify_device(place, sys=sys, by=by).serial is None


def test_what_is_no_device_of_its_own_has_no_serial(stick: tuple[Path, Path, Path]) -> None:
    place, sys, by = stick
    (sys / "devices/pci0").rename(sys / "devices/virtual")
    number = place.stat().st_dev
    link = sys / "dev/block" / f"{os.major(number)}:{os.minor(number)}"
    link.unlink()
    link.symlink_to(sys / "devices/virtual/usb1/1-2/host6/block/sdb/sdb1")

    found = identify_device(place, sys=sys, by=by)

    assert (found.label, found.serial, found.model) == ("AIR PACK", None, None)
