"""Does a variant still answer as it did at the build? Record at one side, compare at the other.

Both sides listen the same way; what was heard is then judged without asking anything. The engine
runs in a process of its own, without network where the kernel allows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from packager.errors import EngineError, SmokeTestError
from packager.format.golden import Circumstances, Golden, GoldenAnswers, GoldenVectors
from packager.progress import Progress
from packager.runtime.answers import MAX_SCORED, compare, hear_answers
from packager.runtime.cpu import cpu_kind, libc_kind
from packager.runtime.engine import Engine, EngineOptions, network_use
from packager.runtime.passage import PASSAGE
from packager.runtime.sandbox import Egress
from packager.runtime.vectors import compare_vectors, first_components, hear_vectors

_MAX_PASSAGE_CHARACTERS = 4096
_LEAST_CONTEXT = 512
_CONTEXT_STEP = 256


@dataclass(frozen=True)
class SmokeResult:
    """How a variant answered. ``expected`` and ``actual`` are texts, an answer a line.

    ``ok``: as it did at the build, and without reaching for the network.

    Where the variant makes vectors, a line is the beginning of one; ``cosine`` is that of the
    angle between the recorded and the present vector which are least alike. Where it generates,
    there are perplexities instead.
    """

    ok: bool
    variant: str
    tokens_match: bool
    expected: str
    actual: str
    perplexity: float | None
    perplexity_expected: float | None
    tokens_per_second: float
    egress: Egress
    cosine: float | None = None


def record_golden(
    model: Path,
    *,
    prompts: Sequence[str],
    max_tokens: int,
    text: str | None = None,
    adapter: Path | None = None,
    libraries: Path | None = None,
    progress: Progress,
) -> Golden:
    """Record how ``model`` answers ``prompts`` and reads ``text`` (a built-in one if ``None``).

    A model that makes vectors makes one of each. ``adapter`` is one to apply to it. ``libraries``
    is a directory with the carried ``libgomp.so.1``. Raises ``EngineError``, ``UsageError``
    for a text too short to measure, and ``NetworkUseError`` if the model, once it runs, turns out
    to want what is not in the bundle.
    """
    options = EngineOptions(
        context=_context(prompts, max_tokens),
        measuring=True,
        adapter=adapter,
        libraries=libraries,
    )
    passage = (PASSAGE if text is None else text)[:_MAX_PASSAGE_CHARACTERS]
    with Engine(model, options) as engine:
        golden = (
            _record_vectors(engine, (*prompts, passage), progress)
            if engine.makes_vectors
            else _record_answers(engine, prompts, max_tokens, passage, progress)
        )
        _refuse_network_use(engine.egress, progress)
        return golden


def _refuse_network_use(egress: Egress, progress: Progress) -> None:
    if egress.attempts:
        raise network_use(egress.attempts)
    if not (egress.namespace or egress.watched):
        progress.note(
            "this host neither cuts the engine off from the network nor sees what it reaches for: "
            "that the model needs none is not proven here"
        )


def _record_answers(
    engine: Engine, prompts: Sequence[str], max_tokens: int, passage: str, progress: Progress
) -> Golden:
    total = 2 * len(prompts) * max_tokens + MAX_SCORED
    with progress.task("golden outputs", total, unit="token") as task:
        heard = hear_answers(engine, prompts, max_tokens, passage, (), task)
    return GoldenAnswers(_circumstances(engine), heard.answers, heard.passage)


def _record_vectors(engine: Engine, texts: Sequence[str], progress: Progress) -> Golden:
    with progress.task("golden vectors", len(texts), unit="text") as task:
        heard = hear_vectors(engine, texts, task)
    return GoldenVectors(_circumstances(engine), heard.embeddings)


def smoke_test(
    model: Path,
    golden: Golden,
    *,
    variant: str,
    adapter: Path | None = None,
    libraries: Path | None = None,
    progress: Progress,
) -> SmokeResult:
    """Let ``model`` answer again, and compare; ``ok`` says whether it is the same model.

    ``adapter`` is one to apply to it. What is not the same is told to ``progress``. Raises
    ``SmokeTestError`` if the engine cannot open the model, stops, or is silent,
    ``NetworkUseError`` if it refuses after it reached for the network.
    """
    options = EngineOptions(
        context=golden.circumstances.context,
        measuring=True,
        adapter=adapter,
        libraries=libraries,
    )
    with _failing_the_test(variant), Engine(model, options) as engine:
        if isinstance(golden, GoldenVectors):
            return _test_vectors(engine, golden, variant, progress)
        return _test_answers(engine, golden, variant, progress)


def _test_answers(
    engine: Engine, golden: GoldenAnswers, variant: str, progress: Progress
) -> SmokeResult:
    expected = [answer.tokens for answer in golden.answers]
    longest = max(len(tokens) for tokens in expected)
    passage = golden.passage
    total = 2 * len(expected) * longest + passage.scored
    with progress.task(f"smoke test {variant}", total, unit="token") as task:
        heard = hear_answers(engine, golden.prompts, longest, passage.text, expected, task)
    comparison = compare(
        golden, GoldenAnswers(_circumstances(engine), heard.answers, heard.passage)
    )
    _tell(comparison.faults, variant, progress)
    egress = engine.egress
    return SmokeResult(
        ok=not (comparison.faults or egress.attempts),
        variant=variant,
        tokens_match=comparison.tokens_match,
        expected="\n".join(answer.text for answer in golden.answers),
        actual="\n".join(answer.text for answer in heard.answers),
        perplexity=heard.passage.perplexity,
        perplexity_expected=passage.perplexity,
        tokens_per_second=heard.tokens_per_second,
        egress=egress,
    )


def _test_vectors(
    engine: Engine, golden: GoldenVectors, variant: str, progress: Progress
) -> SmokeResult:
    texts = golden.prompts
    with progress.task(f"smoke test {variant}", len(texts), unit="text") as task:
        heard = hear_vectors(engine, texts, task)
    comparison = compare_vectors(golden, GoldenVectors(_circumstances(engine), heard.embeddings))
    _tell(comparison.faults, variant, progress)
    egress = engine.egress
    return SmokeResult(
        ok=not (comparison.faults or egress.attempts),
        variant=variant,
        tokens_match=comparison.tokens_match,
        expected=first_components(golden.embeddings),
        actual=first_components(heard.embeddings),
        perplexity=None,
        perplexity_expected=None,
        tokens_per_second=heard.tokens_per_second,
        egress=egress,
        cosine=comparison.cosine,
    )


def _tell(faults: Sequence[str], variant: str, progress: Progress) -> None:
    for fault in faults:
        progress.note(f"{variant}: {fault}")


def _circumstances(engine: Engine) -> Circumstances:
    identity = engine.identity()
    return Circumstances(
        engine=identity.engine,
        engine_version=identity.version,
        engine_digest=identity.digest,
        cpu=cpu_kind(),
        libc=libc_kind(),
        threads=engine.threads,
        context=engine.context,
    )


def _context(prompts: Sequence[str], max_tokens: int) -> int:
    """Tokens enough for every answer and the passage: a token is at least a byte of the text."""
    longest = max(len(prompt.encode("utf-8")) for prompt in prompts)
    wanted = longest + max_tokens + _CONTEXT_STEP
    return max(_LEAST_CONTEXT, -(-wanted // _CONTEXT_STEP) * _CONTEXT_STEP)


@contextmanager
def _failing_the_test(variant: str) -> Iterator[None]:
    try:
        yield
    except EngineError as error:
        raise SmokeTestError(f"{variant}: {error.message}", hint=error.hint) from error
