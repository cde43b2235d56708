"""Disks that a host may have and this one has not, in a namespace that no one else sees."""

from __future__ import annotations

import shlex

# Of this one process: $$ stays the same behind exec.
_CALLED_FAT = """\
sed "\\| $PLACE |s| - tmpfs | - vfat |" /proc/self/mountinfo > "$PLACE.mounts" &&
mount --bind "$PLACE.mounts" /proc/$$/mountinfo && exec "$@"
"""
# With the kind and the source said, mount(8) repeats no option that a namespace does not know.
_READ_ONLY = 'mount -t tmpfs -o remount,ro tmpfs "$PLACE" && exec "$@"'


def on_fat(*words: object) -> str:
    """A script for ``in_small_disk`` that runs ``words`` where the disk is said to be FAT32.

    Few kernels that run tests have vfat, so only the table of mounts says it; a file called
    ``PLACE.mounts`` is left beside the disk.
    """
    return shlex.join(["sh", "-c", _CALLED_FAT, "sh", *map(str, words)])


def read_only(*words: object) -> str:
    """A script for ``in_small_disk`` that runs ``words`` where the disk is mounted read-only."""
    return shlex.join(["sh", "-c", _READ_ONLY, "sh", *map(str, words)])
