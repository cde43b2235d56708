"""What came is looked into by this host itself, before an engine or anyone else opens it.

A signature says who packed it, and that it is what they packed; not that they had looked well.
"""

from __future__ import annotations

from collections.abc import Sequence

from packager.errors import UnsafeContentError
from packager.format.bundle import Bundle
from packager.format.variant import Variant
from packager.runtime.content import check_arrived
from packager.store.home import Home

_HINT = "do not use this bundle; ask the sender how this came into it"


def check_variants(bundle: Bundle, variants: Sequence[Variant], home: Home) -> None:
    """Refuse files of ``variants``, which are in the store, that no build lets through.

    Raises ``UnsafeContentError``, or ``IntegrityError`` for a header that breaks its format.
    """
    files = {
        file.path: home.blob(file.digest)
        for variant in variants
        for file in bundle.variant_files(variant)
    }
    try:
        check_arrived(files)
    except UnsafeContentError as error:
        raise UnsafeContentError(error.message, hint=_HINT) from error
