"""airpack's own wheel, put together from whatever is running.

Whether airpack runs from a checkout or was installed from a wheel, its package directory and
its metadata are at hand; a wheel (PEP 427) is those two in a ZIP file with a RECORD. So the
bundle carries the very code that built it, with no build tool and no network.
"""

from __future__ import annotations

import base64
import hashlib
import zipfile
from importlib.metadata import distribution
from pathlib import Path

import packager
from packager.errors import HostError
from packager.store.atomic import make_directory, naming_refusals

_ZIP_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest a ZIP file can say, so that bytes repeat
_WHEEL = "Wheel-Version: 1.0\nGenerator: airpack\nRoot-Is-Purelib: true\nTag: py3-none-any\n"


def build_own_wheel(directory: Path) -> Path:
    """Write airpack's wheel into ``directory`` and return its path; the same code, the same bytes.

    Raises ``HostError`` where airpack is neither in a checkout nor installed.
    """
    own = distribution("airpack")
    metadata, entry_points = own.read_text("METADATA"), own.read_text("entry_points.txt")
    if metadata is None or entry_points is None:
        raise HostError("airpack's own metadata is not installed", hint="pip install airpack")
    info = f"airpack-{own.version}.dist-info"
    contents = {
        **_package_files(Path(packager.__file__).parent),
        f"{info}/METADATA": metadata.encode(),
        f"{info}/WHEEL": _WHEEL.encode(),
        f"{info}/entry_points.txt": entry_points.encode(),
        f"{info}/licenses/LICENSE": (own.read_text("licenses/LICENSE") or "").encode(),
    }
    contents[f"{info}/RECORD"] = _record(contents, f"{info}/RECORD")
    path = directory / f"airpack-{own.version}-py3-none-any.whl"
    make_directory(directory)
    with naming_refusals(path), zipfile.ZipFile(path, "w") as archive:
        for name, data in contents.items():
            entry = zipfile.ZipInfo(name, _ZIP_EPOCH)
            entry.external_attr = 0o100644 << 16
            archive.writestr(entry, data, zipfile.ZIP_DEFLATED)
    return path


def _package_files(package: Path) -> dict[str, bytes]:
    """Every file of the package, by its name in the wheel, but what Python itself caches."""
    with naming_refusals(package):
        files = sorted(path for path in package.rglob("*") if path.is_file())
        return {
            f"{package.name}/{path.relative_to(package).as_posix()}": path.read_bytes()
            for path in files
            if "__pycache__" not in path.parts
        }


def _record(contents: dict[str, bytes], record: str) -> bytes:
    lines = [f"{name},{_record_hash(data)},{len(data)}\n" for name, data in contents.items()]
    return "".join([*lines, f"{record},,\n"]).encode()


def _record_hash(data: bytes) -> str:
    digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest())
    return f"sha256={digest.rstrip(b'=').decode('ascii')}"
