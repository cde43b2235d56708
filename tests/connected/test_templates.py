"""Chat templates: rendered where they can do no harm, and the same at both ends of a conversion."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from support.gguf_files import rewrite_gguf
from support.watching import Watching
from support.workplace import Workplace

from packager.connected.cache import Cache
from packager.connected.inside import templates
from packager.connected.inside.templates import (
    carried_template,
    first_rendering,
    model_template,
    render,
)
from packager.connected.variants.making import make_variants
from packager.connected.workshop import Workshop
from packager.errors import UnsafeContentError
from packager.format.digest import Digest
from packager.format.fields import Fields
from packager.format.lock import SHA256, ContentId, LockedFile
from packager.format.recipe import SAFETENSORS
from packager.format.variant import Variant
from packager.quantize.gguf_writer import text

PLAIN = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"


@pytest.fixture
def workshop(tmp_path: Path, workplace: Workplace) -> Workshop:
    request = workplace.request(tmp_path)
    return Workshop(
        recipe=request.recipe,
        recipe_folder=request.recipe_folder,
        lock=request.lock,
        sources={},
        text=None,
        engine="",
        libraries=tmp_path,
        cache=workplace.cache,
        progress=Watching(),
    )


def source(folder: Path, template: object) -> dict[str, Path]:
    file = folder / "tokenizer_config.json"
    config = {"chat_template": template, "tokenizer_class": "ByT5Tokenizer"}  # needs no other file
    file.write_text(json.dumps(config))
    return {file.name: file}


def made(text_of: str) -> str:
    (rendered,) = render(text_of, ["Hello"], {"bos_token": "<s>"}, what="q8_0")
    return rendered


def test_a_template_is_rendered_as_transformers_does() -> None:
    everything = (
        "{{ bos_token }}\n{% for m in messages %}\n  {% if m.role == 'user' %}\n{{ m.content }}"
        "{% continue %}{% endif %}{% endfor %}{{ {'a': '<é>'} | tojson }}{{ strftime_now('%Y') }}"
        "{% generation %}!{% endgeneration %}{{ add_generation_prompt }}"
    )
    assert made(everything) == '<s>\nHello{"a": "<é>"}2000!True'


@pytest.mark.parametrize(
    ("template", "fact"),
    [
        ("{{ ''['__cl' ~ 'ass__'].mro() }}", "reaches into Python"),
        ("{{ cycler.__init__.__globals__.os.popen('id').read() }}", "reaches into Python"),
        ("{{ messages.append(messages[0]) }}", "reaches into Python"),
        ("{{ 'a' * 10**10 }}", "makes a text without end"),
        ("{{ '%999999999s' % 'a' }}", "makes a text without end"),
        ("{{ 'a' * 2000000 }}", "makes a text of more than 1048576 characters"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "calls itself without end"),
    ],
)
def test_89_a_template_that_reaches_out_or_grows_without_end_is_refused(
    template: str, fact: str
) -> None:
    with pytest.raises(UnsafeContentError) as refused:
        made(template)
    assert refused.value.message.startswith(f"q8_0: its chat template {fact}")
    assert refused.value.exit_code == 17


def test_89_a_template_that_does_not_end_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(templates, "SECONDS", 1)
    many = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"
    with pytest.raises(UnsafeContentError, match="does not come to an end within 1 seconds"):
        made(many)


def test_89_a_template_that_is_not_the_source_s_is_refused(
    tmp_path: Path, workshop: Workshop, demo_model: Path
) -> None:
    theirs = rewrite_gguf(demo_model, tmp_path / "m.gguf", [text("tokenizer.chat_template", PLAIN)])
    other = replace(workshop, sources=source(tmp_path, f"\n{PLAIN}"))
    with pytest.raises(UnsafeContentError, match="they differ from line 1 on") as refused:
        model_template(other, "q8_0", theirs)
    assert refused.value.exit_code == 17
    without = replace(workshop, sources=source(tmp_path, None))
    with pytest.raises(UnsafeContentError, match="'default': the source has no such"):
        model_template(without, "q8_0", theirs)
    same = replace(workshop, sources=source(tmp_path, PLAIN))
    found = model_template(same, "q8_0", theirs)
    assert found is not None
    assert found.digest == Digest.of(PLAIN.encode())


def test_89_a_template_that_the_model_lost_is_refused(
    tmp_path: Path, workshop: Workshop, demo_model: Path
) -> None:
    with pytest.raises(UnsafeContentError, match="the source's is not in the model"):
        model_template(replace(workshop, sources=source(tmp_path, PLAIN)), "q8_0", demo_model)


def test_of_several_templates_each_is_rendered_and_the_default_one_is_recorded(
    tmp_path: Path, workshop: Workshop
) -> None:
    named = [{"name": "default", "template": PLAIN}, {"name": "tool_use", "template": "{{ 1 }}"}]
    several = replace(workshop, sources=source(tmp_path, named))
    found = carried_template(several, "original")
    assert found is not None
    prompts = workshop.recipe.smoke.prompts
    assert found.rendered == tuple(Digest.of(f"<user>{p}".encode()) for p in prompts)
    named[1]["template"] = "{{ ''['__cl' ~ 'ass__'].mro() }}"
    with pytest.raises(UnsafeContentError, match="reaches into Python"):
        carried_template(replace(workshop, sources=source(tmp_path, named)), "original")


def test_what_it_made_of_the_first_prompt_is_kept_and_made_again_where_it_is_lost(
    tmp_path: Path, workshop: Workshop
) -> None:
    alone = replace(
        workshop, sources=source(tmp_path, PLAIN + "!"), cache=Cache(tmp_path / "cache")
    )
    found = carried_template(alone, "original")
    assert found is not None
    text = f"<user>{workshop.recipe.smoke.prompts[0]}!"
    assert first_rendering(alone, found) == text
    for kept in (tmp_path / "cache").rglob("*.rendered.txt"):
        kept.unlink()
    assert first_rendering(alone, found) is None
    assert carried_template(alone, "original") == found
    assert first_rendering(alone, found) == text
    assert first_rendering(alone, replace(found, rendered=())) is None


def test_a_template_that_refuses_a_lone_question_is_recorded_without_a_text(
    tmp_path: Path, workshop: Workshop
) -> None:
    picky = replace(workshop, sources=source(tmp_path, "{{ raise_exception('two turns') }}"))
    found = carried_template(picky, "original")
    assert found is not None
    assert found.rendered == ()
    assert any("makes no text" in note for note in picky.progress.notes)  # type: ignore[attr-defined]


def test_the_index_says_which_template_a_variant_has_and_what_it_makes(
    tmp_path: Path, workshop: Workshop
) -> None:
    files = source(tmp_path, PLAIN)
    (original,) = [v for v in workshop.recipe.variants if v.format == SAFETENSORS]
    locked = LockedFile("tokenizer_config.json", 1, ContentId(SHA256, "0" * 64))
    only = replace(
        workshop,
        sources=files,
        recipe=replace(workshop.recipe, variants=(original,)),
        lock=replace(workshop.lock, files=(locked,)),
    )
    (made_variant,) = make_variants(only)
    variant = made_variant.variant
    assert variant.template is not None
    assert variant.template.digest == Digest.of(PLAIN.encode())
    read = Variant.parse(Fields.of(variant.encode(), "index"))
    assert read == variant
