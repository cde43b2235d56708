"""The small files a person or a bare host reads: ``READ-ME-FIRST.txt`` and ``setup.sh``."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from importlib.resources import files
from textwrap import indent

from packager.evidence.commands import signature_command
from packager.format.bundle import Bundle
from packager.format.sizes import format_size
from packager.format.sums import SUMS_NAME
from packager.format.variant import Variant
from packager.trust.keys import P256, PublicKey

README_NAME = "READ-ME-FIRST.txt"
SETUP_NAME = "setup.sh"
FORMAT_NAME = "FORMAT.md"
# Of what travels as a binary without its notices: the wheels hold their own licences.
ENGINE_NOTICES, LIBGOMP_LICENCE = "LICENSE.engine.txt", "LICENSE.libgomp.txt"
LICENCE_NAMES = (ENGINE_NOTICES, LIBGOMP_LICENCE)


def packaged_texts() -> Mapping[str, bytes]:
    """The texts that are the same in every bundle, plain ASCII, by their name on the medium."""
    place = files("packager.connected.provisions") / "texts"
    texts = {name: (place / name).read_bytes() for name in (SETUP_NAME, *LICENCE_NAMES)}
    return {**texts, FORMAT_NAME: (files("packager") / FORMAT_NAME).read_bytes()}


def readme_text(bundle: Bundle, keys: Sequence[PublicKey]) -> bytes:
    """What to do with this bundle on a host that has never heard of airpack."""
    text = _TEMPLATE.format(
        title=bundle.title,
        name=bundle.name,
        origin=_ascii(f"{bundle.origin.repository} at {bundle.origin.revision}"),
        licence=_ascii(bundle.origin.licence or "not stated by its source"),
        created=bundle.created,
        sequence=bundle.sequence,
        variants=", ".join(map(_variant_words, bundle.variants)),
        size=format_size(bundle.payload.size),
        volumes=len(bundle.volumes),
        delta=_delta(bundle),
        unpacking=_UNPACKING_PART if bundle.held else _UNPACKING,
        signers=_signers(keys),
        checks=_checks(keys),
        older="" if all(key.algorithm == P256 for key in keys) else _OLDER_OPENSSL,
        sums=SUMS_NAME,
        setup=_setup(bundle),
        prompt=_prompt(bundle),
    )
    return text.encode("ascii")


def _signers(keys: Sequence[PublicKey]) -> str:
    if not keys:
        return "    not signed at the build; see the files SHA256SUMS.*.sig"
    return "\n".join(
        f"    key {key.key_id} ({key.algorithm}), fingerprint\n"
        + "\n".join(f"        {line}" for line in key.spoken_fingerprint.splitlines())
        for key in keys
    )


def _checks(keys: Sequence[PublicKey]) -> str:
    commands = [signature_command(key.key_id, key.algorithm) for key in keys]
    return indent("\n".join(commands or [signature_command()]), "    ")


def _delta(bundle: Bundle) -> str:
    """What a person must know of a bundle that is not whole; nothing of one that is."""
    parts = [_HELD.format(**_held(bundle))] if bundle.held else []
    if bundle.set_up_with:
        parts.append(_NO_AIRPACK.format(earlier=bundle.set_up_with.bundle))
    return "".join(f"\nTHIS IS A DELTA: {part}" for part in parts)


def _held(bundle: Bundle) -> dict[str, object]:
    titles = sorted({file.bundle for file in bundle.held})
    return {
        "count": len(bundle.held),
        "size": format_size(sum(file.size for file in bundle.held)),
        "sources": "\n".join(f"    {title}" for title in titles),
    }


def _setup(bundle: Bundle) -> str:
    """How a host gets airpack: from here, or with the bundle that it was set up with before."""
    if bundle.set_up_with is None:
        return _SETUP
    return _SETUP_ELSEWHERE.format(earlier=bundle.set_up_with.bundle)


def _variant_words(variant: Variant) -> str:
    beneath = f", an adapter to {variant.base.variant}" if variant.base else ""
    return f"{variant.name} ({variant.type}{beneath})"


def _prompt(bundle: Bundle) -> str:
    goldens = (variant.golden for variant in bundle.variants if variant.golden)
    prompts = (prompt for golden in goldens for prompt in golden.prompts)
    return shlex.quote(_ascii(next(prompts, "Hello")))


def _ascii(text: str) -> str:
    """One line of plain ASCII, whatever ``text`` holds."""
    plain = text.encode("ascii", "replace").decode("ascii")
    return "".join(character if character.isprintable() else " " for character in plain)


_TEMPLATE = """\
{title}
an open AI model, packed by airpack for a host without a network

    model      {origin}
    licence    {licence}
    variants   {variants}
    payload    {size} in {volumes} volume(s)
    sequence   {sequence}
    built      {created}
    report     report.html, one page for any browser: figures, files, a sheet to sign
{delta}
Signed by
{signers}

Type the lines that stand further in, in the directory of this file.

1. Check it, with what this host already has. KEY.pub is the public key of whoever signed. It
   must have reached you ANOTHER WAY than this medium; if it did not, call the sender, have THEM
   read out their fingerprint, and compare it with what this prints:
   `openssl pkey -pubin -in KEY.pub -outform DER | sha256sum`

{checks}
    sha256sum -c {sums}

   openssl must say that the signature holds ("Verified OK"), sha256sum "OK" for every file. Of a
   small file that is bad there is a second copy, spare.SHA256SUMS and so on.
{older}
{setup}

3. Install the model, and ask it something. Without a question, run begins a conversation; serve
   answers programs on this host, in OpenAI's form, and prints how to ask it.

    ~/airpack/bin/airpack trust add KEY.pub
    ~/airpack/bin/airpack install .
    ~/airpack/bin/airpack run {name} {prompt}
    ~/airpack/bin/airpack serve {name}

   All else: ~/airpack/bin/airpack --help. Where something is refused, `try:` says what to do.

{unpacking}

    cat payload.* | tar -x -f -
"""

_OLDER_OPENSSL = """\
   Where this host's openssl is older than 3.5 it does not know ML-DSA: then check a signature
   made by another kind of key, if there is one; else on a host with a newer one.
"""

_HELD = """\
{count} file(s) of the model, {size}, are NOT on this medium. `airpack install`
takes them from what this host has installed, or says what is missing. They came with

{sources}
"""

_NO_AIRPACK = """\
airpack itself is NOT on this medium. This host was set up with

    {earlier}
"""

_SETUP = """\
2. Set up airpack itself (needs Python only: no network, no root, no compiler). Where setup.sh
   is damaged, sh spare.setup.sh does the same.

    sh setup.sh ~/airpack"""

_SETUP_ELSEWHERE = """\
2. airpack is on this host already, set up with an earlier bundle. This says whether it is:

    sh setup.sh ~/airpack

   If it is not, take the medium of {earlier}, and run the same
   in its directory; nothing else of it is needed for that. Where that medium is lost, ask the
   sender to build this bundle again with --with-setup, which carries airpack too."""

_UNPACKING = (
    "If airpack cannot run here, the weights are still yours: the volumes are one plain tar file."
)
_UNPACKING_PART = """\
If airpack cannot run here: the volumes are one plain tar file, but this is a delta, and they
give ONLY PART of the model. The rest is in the payload of the bundles named above."""
