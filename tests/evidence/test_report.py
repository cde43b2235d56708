"""The report: every figure there is, none that is not, and nothing that a stranger could do."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.bundles import make_key

from packager.evidence.markup import GENERATOR, escaped
from packager.evidence.materials import Making, Materials
from packager.evidence.provenance import FALLBACKS_NAMED, RENDERED_CHARACTERS, make_provenance
from packager.evidence.report import (
    UNVERIFIED,
    WITHIN,
    Reported,
    ReportedKey,
    make_report,
    verified,
)
from packager.format.adapter import AdapterBase
from packager.format.bundle import Bundle
from packager.format.digest import Digest
from packager.format.golden import (
    Answer,
    Circumstances,
    Embedding,
    GoldenAnswers,
    GoldenVectors,
    Passage,
)
from packager.format.held import HeldFile
from packager.format.memory import MemoryNeed
from packager.format.quality import Quality
from packager.format.statement import Acceptance, Account, FallbackTensor, MadeAs, parse_account
from packager.format.template import ChatTemplate
from packager.format.variant import Variant

TAGS = {
    "html", "head", "meta", "title", "style", "body", "h1", "h2", "h3", "p", "div", "b", "bdi",
    "br", "table", "thead", "tbody", "tr", "th", "td", "pre", "code", "figure", "svg", "text",
    "rect", "line", "circle",
}  # fmt: skip
ATTRIBUTES = {
    "lang", "charset", "name", "content", "http-equiv", "class", "viewbox", "role", "aria-label",
    "font-family", "font-size", "x", "y", "x1", "x2", "y1", "y2", "cx", "cy", "r", "width",
    "height", "fill", "stroke", "stroke-dasharray",
}  # fmt: skip
CIRCUMSTANCES = Circumstances(
    "xllamacpp", "2026.10", Digest.of(b"so"), "x86_64 avx2", "glibc 2.36", 1, 512
)
QUALITY = Quality(
    text=Digest.of(b"held out"),
    baseline="BF16",
    tokens=4080,
    loss=3_404_600,
    original_loss=3_390_000,
    loss_error=5_000,
    divergence=51_700_000,
    divergence_error=1_000_000,
    agreement=853_000,
)
RENDERED = "<|user|>\nIn the beginning\n<|assistant|>\n"


@dataclass
class Page(HTMLParser):
    """What is in a page: its elements, their attributes, its text."""

    tags: set[str] = field(default_factory=set)
    attributes: list[tuple[str, str]] = field(default_factory=list)
    text: str = ""

    def __post_init__(self) -> None:
        super().__init__(convert_charrefs=True)

    @classmethod
    def of(cls, html: str) -> Page:
        page = cls()
        page.feed(html)
        page.close()
        return page

    def handle_starttag(self, tag: str, attrs: Sequence[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture
def reported(materials: Materials) -> Reported:
    """A bundle of which all is known."""
    bundle = materials.bundle
    place = bundle.variants[0].directory
    golden = GoldenAnswers(
        CIRCUMSTANCES,
        (Answer("In the beginning", (1,), "\nGod created", (((1, 0),),)),),
        Passage("It was the best of times", 6, 12_000_000),
    )
    quantized = Variant(
        "q2_k", "gguf", "Q2_K", place, "m.gguf", golden, QUALITY,
        memory=MemoryNeed(512, 1 << 20, 2 << 20),
        template=ChatTemplate(Digest.of(b"template"), (Digest.of(RENDERED.encode()),)),
    )  # fmt: skip
    fallen = tuple(FallbackTensor(f"blk.{n}.attn_q.weight", "Q2_K", "Q4_0") for n in range(3))
    return Reported(
        bundle=replace(bundle, variants=(quantized, *bundle.variants)),
        standing=WITHIN,
        signers=(),
        sums=None,
        documents={"bundle.json": Digest.of(b"index")},
        account=Account(
            (Acceptance("Zoë, legal", "2026-11-24T00:00:00Z", "org/tiny", "llama3", True),),
            (
                MadeAs("q2_k", "converted", Digest.of(b"matrix"), 7, fallen, RENDERED),
                MadeAs("original", "carried as published", None, 0),
            ),
        ),
        lock=materials.lock,
        media=("one medium of 16 GB", "2 of 8 GB"),
    )


def page_of(reported: Reported) -> Page:
    return Page.of(make_report(reported).decode("utf-8"))


def with_variants(reported: Reported, *variants: Variant) -> Reported:
    return replace(reported, bundle=replace(reported.bundle, variants=variants))


def test_every_figure_is_there(reported: Reported) -> None:
    text = page_of(reported).text

    bundle = reported.bundle
    for figure in (
        "tiny-1.0.0", bundle.origin.revision, "apache-2.0", "Zoë, legal", "llama3",
        "Q2_K", "30.102", "+1.5% ± 1.0%", "0.0517 ± 0.0020", "85.3%", "4080 tokens", "beside BF16",
        "perplexity 29.666", QUALITY.text.hex, Digest.of(b"matrix").hex,
        "at 512 tokens", "cache 1 MiB, buffers 2 MiB", "blk.2.attn_q.weight", "The first 3 of 7.",
        "In the beginning", "God created", "Perplexity 7.39 of 6 tokens", "x86_64 avx2",
        Digest.of(b"template").hex, Digest.of(RENDERED.encode()).hex, RENDERED,
        "one medium of 16 GB, or 2 of 8 GB", "payload.00001", "linux_x86_64", "2.28", "never",
        Digest.of(b"index").hex, *(f.digest.hex for f in bundle.files),
    ):  # fmt: skip
        assert figure in text, figure


def test_what_was_not_measured_says_so(reported: Reported) -> None:
    [_, original] = reported.bundle.variants
    bare = with_variants(replace(reported, account=None, lock=None, media=()), original)

    text = page_of(bare).text

    assert text.count("not measured") == 4
    assert "circle" not in page_of(bare).tags
    for words in (
        "Not asked: no engine in this bundle opens it.",
        "Not known: there is no provenance.json",
        "not known: the provenance does not tell",
        "No variant has one.",
        "not worked out",
        "parity" + "none",
    ):
        assert words in text, words


def test_beside_measured_variants_the_chart_says_which_are_not(reported: Reported) -> None:
    html = make_report(reported).decode("utf-8")

    [drawing] = re.findall(r"<svg.*?</svg>", html)
    assert drawing.count("<circle") == 1
    assert drawing.count(">not measured<") == 1
    assert drawing.count("<rect") == 2


def test_a_variant_better_than_the_original_is_left_of_it(reported: Reported) -> None:
    [measured, _] = reported.bundle.variants
    better = replace(measured, quality=replace(QUALITY, loss=3_300_000))

    html = make_report(with_variants(reported, better)).decode("utf-8")

    assert "-8.6%" in html
    [dot] = re.findall(r'<circle cx="([0-9.]+)"', html)
    [zero] = re.findall(r'<line x1="([0-9.]+)"[^>]*stroke-dasharray', html)
    assert float(dot) < float(zero)


def test_a_model_for_search_an_adapter_and_a_delta_are_told_as_what_they_are(
    reported: Reported,
) -> None:
    [_, original] = reported.bundle.variants
    vectors = GoldenVectors(CIRCUMSTANCES, (Embedding("a cat", (1,), (600_000, 800_000)),))
    searching = replace(original, name="search", model="m.gguf", golden=vectors)
    adapter = replace(original, name="tuned", base=AdapterBase("search", Digest.of(b"base")))
    held = HeldFile("models/tiny/original/big", 7, Digest.of(b"held"), "tiny-0.9.0")
    several = with_variants(reported, searching, adapter)
    delta = replace(several.bundle, held=(held,), base=Digest.of(b"inventory"))

    text = page_of(replace(several, bundle=delta)).text

    assert "a vector of 2 numbers" in text
    assert "an adapter to search" in text
    assert "Not in it, since the host holds it" in text
    assert "tiny-0.9.0" in text
    assert Digest.of(b"held").hex in text


@pytest.mark.parametrize("template", [ChatTemplate(Digest.of(b"t"), ()), None])
def test_a_template_without_a_text_is_not_given_one(
    reported: Reported, template: ChatTemplate | None
) -> None:
    [measured, _] = reported.bundle.variants
    text = page_of(with_variants(reported, replace(measured, template=template))).text

    assert ("It makes no text" in text) == (template is not None)
    assert RENDERED not in text


def test_a_text_that_is_only_the_beginning_says_so(reported: Reported) -> None:
    account = reported.account
    assert account
    cut = replace(account.makings[0], rendered=RENDERED[:8])

    assert "Here is the beginning of it" not in page_of(reported).text
    text = page_of(replace(reported, account=Account((), (cut,)))).text
    assert "Here is the beginning of it" in text


def test_who_signed_and_whether_that_was_checked_is_on_top(
    reported: Reported, tmp_path_factory: pytest.TempPathFactory
) -> None:
    place = tmp_path_factory.mktemp("keys")
    team, second = (make_key(place / k, a).public for k, a in (("a", "p256"), ("b", "ml-dsa-87")))
    signers = (ReportedKey(team.key_id, team, "release team"), ReportedKey(second.key_id, second))
    checked = replace(
        reported,
        signers=signers,
        standing=verified(2, "2026-11-25T00:00:00Z"),
        sums=Digest.of(b"s"),
    )

    within, unknown, known = (
        page_of(each).text
        for each in (
            reported,
            replace(reported, standing=UNVERIFIED, signers=(ReportedKey("ab" * 8),)),
            checked,
        )
    )

    assert within.index("PART OF THE BUNDLE") < within.index("Who signed")
    assert "sha256sum SHA256SUMS" in within
    assert unknown.index("NOT VERIFIED") < unknown.index("Who signed")
    assert "SHA256SUMS." + "ab" * 8 + ".sig" in unknown
    assert "not known here" in unknown
    assert known.index("SIGNATURES VERIFIED") < known.index("release team")
    assert team.spoken_fingerprint in known
    assert f"openssl dgst -sha256 -verify KEY.pub -signature SHA256SUMS.{team.key_id}.sig" in known
    assert "openssl pkeyutl" in known
    assert Digest.of(b"s").hex in known


def test_the_sheet_has_a_page_of_its_own_with_lines_for_two_signatures(reported: Reported) -> None:
    html = make_report(reported).decode("utf-8")

    sheet = html[html.index('<div class="sheet">') :]
    assert ".sheet { break-before: page }" in html
    assert "MP-5" in sheet
    assert re.search(r"released by: +_{30}  date: _{14}", sheet)
    assert re.search(r"received by: +_{30}  date: _{14}", sheet)
    assert "medium ____ of ____" in sheet
    assert "<h2>" not in sheet
    assert "of stick 7" in make_report(replace(reported, custody="of stick 7")).decode("utf-8")


def test_the_same_values_give_the_same_bytes(reported: Reported) -> None:
    assert make_report(reported) == make_report(replace(reported))


def test_it_asks_for_nothing_and_runs_nothing(reported: Reported) -> None:
    html = make_report(reported).decode("utf-8")

    page = Page.of(html)
    assert page.tags <= TAGS
    assert {name for name, _ in page.attributes} <= ATTRIBUTES
    assert "@import" not in html
    assert "url(" not in html
    [style] = re.findall(r"<style>(.*?)</style>", html, re.DOTALL)
    digest = b64encode(sha256(style.encode("utf-8")).digest()).decode("ascii")
    assert ("content", GENERATOR) in page.attributes
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    assert ("content", policy) in page.attributes


HOSTILE = "</pre></td><script src=//x>alert(1)</script><img onerror=x>\"'&\u202e\x1b[2J\u2066\x00 א"


def hostile(reported: Reported) -> Reported:
    """``reported`` with an attacker's words wherever a bundle has words."""
    bundle: Bundle = reported.bundle
    [measured, original] = bundle.variants
    golden, account = measured.golden, reported.account
    assert isinstance(golden, GoldenAnswers)
    assert account
    answer = replace(golden.answers[0], prompt=HOSTILE, text=HOSTILE)
    on = replace(CIRCUMSTANCES, engine=HOSTILE, cpu=HOSTILE, libc=HOSTILE)
    worded = replace(
        golden, circumstances=on, answers=(answer,), passage=replace(golden.passage, text=HOSTILE)
    )
    variant = replace(
        measured, name=HOSTILE, format=HOSTILE, type=HOSTILE, golden=worded,
        quality=replace(QUALITY, baseline=HOSTILE),
    )  # fmt: skip
    origin = replace(
        bundle.origin, kind=HOSTILE, repository=HOSTILE, revision=HOSTILE, licence=HOSTILE,
        stripped=(HOSTILE,),
    )  # fmt: skip
    made = MadeAs(HOSTILE, HOSTILE, None, 1, (FallbackTensor(HOSTILE, HOSTILE, HOSTILE),), HOSTILE)
    return replace(
        reported,
        bundle=replace(
            bundle,
            name=HOSTILE, version=HOSTILE, airpack=HOSTILE, engine=HOSTILE, created=HOSTILE,
            expires=HOSTILE, origin=origin, variants=(variant, original),
            files=tuple(replace(file, path=HOSTILE) for file in bundle.files),
            targets=tuple(replace(t, platform=HOSTILE, glibc=HOSTILE) for t in bundle.targets),
        ),
        signers=(ReportedKey(HOSTILE, name=HOSTILE),),
        documents={HOSTILE: Digest.of(b"")},
        account=Account(
            tuple(replace(a, by=HOSTILE, source=HOSTILE) for a in account.acceptances), (made,)
        ),
        media=(HOSTILE,),
        custody=HOSTILE,
    )  # fmt: skip


def test_a_stranger_s_words_stay_words(reported: Reported) -> None:
    html = make_report(hostile(reported)).decode("utf-8")

    page = Page.of(html)
    assert page.tags <= TAGS
    assert {name for name, _ in page.attributes} <= ATTRIBUTES
    assert html.count("<pre") == html.count("</pre>")
    assert html.count("<td") == html.count("</td>")
    assert not set(html) & set("\u202e\x1b\u2066\x00")
    assert "<script src=//x>alert(1)</script><img onerror=x>" in page.text
    assert page.text.count("[U+202E]") == page.text.count("[U+001B]") > 30


@given(st.text())
def test_any_text_can_be_read_back_and_is_nothing_else(text: str) -> None:
    page = Page.of(escaped(text, lines=True))

    marked = "".join(c if c.isprintable() or c in "\n\t" else f"[U+{ord(c):04X}]" for c in text)
    assert page.text == marked
    assert page.tags <= {"b", "bdi"}


def test_the_provenance_keeps_what_a_report_needs_and_no_more(materials: Materials) -> None:
    many = tuple(FallbackTensor(f"blk.{n}.w", "Q4_K", "Q5_0") for n in range(1000))
    making = Making(None, many, rendered="\ud800" + "x" * 10 * RENDERED_CHARACTERS)

    account = parse_account(make_provenance(replace(materials, makings={"original": making}), {}))

    made = account.of("original")
    assert made
    assert (made.fallbacks, made.named) == (1000, many[:FALLBACKS_NAMED])
    assert made.rendered == "\\ud800" + "x" * (RENDERED_CHARACTERS - 1)
    assert account.of("another") is None


def test_the_provenance_of_an_earlier_airpack_is_read_without_them(materials: Materials) -> None:
    data = make_provenance(materials, {})
    earlier = re.sub(rb'"named":\[.*?\],|"rendered":".*?",', b"", data)
    assert earlier != data

    account = parse_account(earlier)

    made = account.of("original")
    assert made
    assert (made.fallbacks, made.named, made.rendered) == (2, (), None)
