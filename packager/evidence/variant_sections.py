"""The parts of a report that speak of the variants: what each is, what it cost, how it answers."""

from __future__ import annotations

from collections.abc import Iterator

from packager.evidence.charts import Weighed, chart, share
from packager.evidence.markup import Markup, code, element, facts, preformatted, table, together
from packager.format.bundle import Bundle
from packager.format.digest import Digest
from packager.format.golden import Circumstances, Golden, GoldenAnswers
from packager.format.quality import MILLIONTHS, NANONATS, Quality
from packager.format.sizes import format_size
from packager.format.statement import Account, MadeAs
from packager.format.variant import Variant

_NOT_MEASURED = "not measured"
_NOT_TOLD = "not known: the provenance does not tell"


def variants(bundle: Bundle, account: Account | None) -> Iterator[Markup]:
    """What each variant is, what quantizing cost, and how it was made."""
    yield element("h2", "Variants")
    yield table(
        ("variant", "format", "type", "size", "memory it takes", "engine opens it"),
        [_variant(bundle, variant) for variant in bundle.variants],
        kind="variants",
    )
    yield element("h3", "What quantizing cost")
    yield table(
        ("variant", "perplexity", "above the original's", "divergence", "same top token"),
        [_quality(variant) for variant in bundle.variants],
    )
    measured = [variant.quality for variant in bundle.variants if variant.quality]
    if measured:
        yield from map(_basis, dict.fromkeys((q.text, q.baseline, q.tokens) for q in measured))
        yield _explained(measured[0])
        yield element("figure", chart([_weighed(bundle, v) for v in bundle.variants]))
    yield element("h3", "How each was made")
    yield table(
        ("variant", "step", "importance matrix, sha256", "tensors fallen back"),
        [_made(variant, _told(account, variant)) for variant in bundle.variants],
        kind="making",
    )
    yield from _fallbacks(account)


def _variant(bundle: Bundle, variant: Variant) -> tuple[str, ...]:
    beneath = f", an adapter to {variant.base.variant}" if variant.base else ""
    return (
        variant.name,
        f"{variant.format}{beneath}",
        variant.type,
        format_size(_size(bundle, variant)),
        _memory(bundle, variant),
        "yes" if variant.model else "no, none in this bundle does",
    )


def _size(bundle: Bundle, variant: Variant) -> int:
    return sum(file.size for file in bundle.variant_files(variant))


def _memory(bundle: Bundle, variant: Variant) -> str:
    need = variant.memory
    if need is None:
        return f"what {variant.base.variant} takes, and its size" if variant.base else "not known"
    weights = sum(f.size for f in bundle.variant_files(variant) if f.path.endswith(".gguf"))
    parts = {"weights": weights, "cache": need.cache, "buffers": need.buffers}
    words = ", ".join(f"{name} {format_size(size)}" for name, size in parts.items())
    return f"{format_size(sum(parts.values()))} at {need.context} tokens ({words})"


def _quality(variant: Variant) -> tuple[str, ...]:
    quality = variant.quality
    if quality is None:
        return variant.name, *[_NOT_MEASURED] * 4
    return (
        variant.name,
        f"{quality.perplexity:.3f}",
        share(quality.increase, quality.increase_margin),
        f"{quality.divergence / NANONATS:.4f} ± {quality.divergence_margin:.4f}",
        f"{quality.agreement / MILLIONTHS:.1%}",
    )


def _basis(measured: tuple[Digest, str, int]) -> Markup:
    text, baseline, tokens = measured
    beside = f"Measured on {tokens} tokens, beside {baseline} as the original. sha256 of the text: "
    return element("p", beside, code(text.hex))


def _explained(quality: Quality) -> Markup:
    return element(
        "p",
        f"The original has perplexity {quality.original_perplexity:.3f} there. ± is half of the "
        "95% confidence interval. Divergence: mean Kullback-Leibler, in nats a token, from the "
        "original's distribution over the whole vocabulary. Same top token: in how many of the "
        "places the likeliest token is the original's.",
    )


def _weighed(bundle: Bundle, variant: Variant) -> Weighed:
    size, quality = _size(bundle, variant), variant.quality
    if quality is None:
        return Weighed(variant.name, size)
    return Weighed(variant.name, size, quality.increase, quality.increase_margin)


def _told(account: Account | None, variant: Variant) -> MadeAs | None:
    return account.of(variant.name) if account else None


def _made(variant: Variant, made: MadeAs | None) -> tuple[str, ...]:
    if made is None:
        return variant.name, _NOT_TOLD, _NOT_TOLD, _NOT_TOLD
    matrix = code(made.matrix.hex) if made.matrix else "none"
    return variant.name, made.step, matrix, str(made.fallbacks or "none")


def _fallbacks(account: Account | None) -> Iterator[Markup]:
    for made in account.makings if account else ():
        if not made.named:
            continue
        yield element(
            "h3", f"Tensors of {made.name} that fell back: their rows do not fit the type"
        )
        yield table(("tensor", "wanted", "got"), [(f.name, f.wanted, f.type) for f in made.named])
        if made.fallbacks > len(made.named):
            yield element("p", f"The first {len(made.named)} of {made.fallbacks}.")


def answers(bundle: Bundle) -> Iterator[Markup]:
    """How each variant answered at the build, which every host holds its own answers against."""
    yield element("h2", "How it answered at the build")
    goldens = [variant.golden for variant in bundle.variants if variant.golden]
    for circumstances in dict.fromkeys(golden.circumstances for golden in goldens):
        yield _circumstances(circumstances)
    for variant in bundle.variants:
        yield element("h3", variant.name)
        yield from _golden(variant.golden)
    passages = [golden.passage.text for golden in goldens if isinstance(golden, GoldenAnswers)]
    for text in dict.fromkeys(passages):
        yield element("h3", "The passage")
        yield preformatted(text)


def _circumstances(on: Circumstances) -> Markup:
    return element(
        "p",
        f"Asked of {on.engine} {on.engine_version}, with threads: {on.threads}, and room for "
        f"{on.context} tokens; on {on.cpu}; {on.libc}.",
    )


def _golden(golden: Golden | None) -> Iterator[Markup]:
    if golden is None:
        yield element("p", "Not asked: no engine in this bundle opens it.")
    elif isinstance(golden, GoldenAnswers):
        asked = [(preformatted(a.prompt), preformatted(a.text)) for a in golden.answers]
        yield table(("asked", "answer"), asked, kind="answers")
        passage = golden.passage
        words = f"Perplexity {passage.perplexity:.2f} of {passage.scored} tokens of the passage."
        yield element("p", words)
    else:
        rows = [
            (preformatted(e.text), f"a vector of {len(e.vector)} numbers")
            for e in golden.embeddings
        ]
        yield table(("text", "answer"), rows, kind="answers")


def templates(bundle: Bundle, account: Account | None) -> Iterator[Markup]:
    """The chat templates, each once, and what it made of the first prompt."""
    yield element("h2", "Chat template")
    users: dict[Digest, list[Variant]] = {}
    for variant in bundle.variants:
        if variant.template:
            users.setdefault(variant.template.digest, []).append(variant)
    if not users:
        yield element("p", "No variant has one.")
    for digest, having in users.items():
        names = ", ".join(variant.name for variant in having)
        yield facts([("of", names), ("sha256", code(digest.hex))])
        yield _rendered(having[0], _told(account, having[0]))


def _rendered(variant: Variant, made: MadeAs | None) -> Markup:
    digests = variant.template.rendered if variant.template else ()
    if not digests:
        return element("p", "It makes no text of a conversation that a user begins.")
    if made is None or made.rendered is None:
        return element(
            "p", "What it made of the first prompt has the sha256 ", code(digests[0].hex)
        )
    whole = Digest.of(made.rendered.encode("utf-8")) == digests[0]
    what = "" if whole else " Here is the beginning of it, or what cannot be shown is escaped."
    words = (
        "What it made of the first prompt, as a conversation of that one message, has the sha256 "
    )
    return together(
        [element("p", words, code(digests[0].hex), f".{what}"), preformatted(made.rendered)]
    )
