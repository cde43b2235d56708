"""YAML as a person writes it, read strictly: what a reader cannot see may not be there.

A subset of YAML 1.1: one document of mappings, lists, text, integers, booleans and null. Said
twice is refused (a second ``licence:`` would silently win), so are anchors, aliases and merge
keys (a few hundred bytes of them grow without bound), tags, and nesting beyond ``MAX_DEPTH``.
Dates and numbers to the base 60 (``1:30``) stay text.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

from packager.errors import ParseError

MAX_DEPTH = 16

# YAML 1.1's numbers, less those to the base 60: of many digits, they take quadratic time.
_NUMBERS = {
    "tag:yaml.org,2002:int": re.compile(
        r"[-+]?(0b[01_]+|0[0-7_]+|0|[1-9][0-9_]*|0x[0-9a-fA-F_]+)\Z"
    ),
    "tag:yaml.org,2002:float": re.compile(
        r"([-+]?[0-9][0-9_]*\.[0-9_]*([eE][-+][0-9]+)?|\.[0-9][0-9_]*([eE][-+][0-9]+)?|"
        r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN))\Z"
    ),
}


def parse_yaml(data: bytes, *, where: str, max_size: int) -> object:
    """The value that ``data`` holds, ``None`` for nothing; called ``where`` in errors.

    Raises ``ParseError``, with line and column, for anything outside the subset.
    """
    if len(data) > max_size:
        raise ParseError(f"{where}: {len(data)} bytes, more than the limit of {max_size}")
    try:
        loader = _Loader(data.decode("utf-8"))
        try:
            value: object = loader.get_single_data()
        finally:
            loader.dispose()
    except UnicodeDecodeError as error:
        raise ParseError(f"{where}: not UTF-8 text, at byte {error.start}") from None
    except yaml.MarkedYAMLError as error:
        fact = ": ".join(part for part in (error.context, error.problem) if part)
        raise ParseError(f"{where}: {_place(error)}{fact}") from None
    except (yaml.YAMLError, ValueError) as error:
        raise ParseError(f"{where}: {' '.join(str(error).split())[:200]}") from None
    return value


def _place(error: yaml.MarkedYAMLError) -> str:
    mark = error.problem_mark or error.context_mark
    return f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""


class _Loader(yaml.SafeLoader):
    """The safe loader, less what the subset leaves out."""

    # SafeLoader shares this table with every user of the library: change a copy. Without the
    # timestamp, `expires: 2027-01-31` stays the text that was written.
    yaml_implicit_resolvers = {  # noqa: RUF012
        first: [
            (tag, _NUMBERS.get(tag, form))
            for tag, form in resolvers
            if not tag.endswith(":timestamp")
        ]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent) or event.anchor is not None:
            raise yaml.composer.ComposerError(
                None, None, "anchors and aliases are not used here", event.start_mark
            )
        if event.tag is not None:
            raise yaml.composer.ComposerError(
                None, None, f"the tag {event.tag[:40]!a} is not used here", event.start_mark
            )
        if self.depth == MAX_DEPTH:
            raise yaml.composer.ComposerError(
                None, None, f"nested deeper than {MAX_DEPTH}", event.start_mark
            )
        self.depth += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self.depth -= 1

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag.endswith(":merge"):
                raise yaml.constructor.ConstructorError(
                    None, None, "a key that is not plain text", key.start_mark
                )
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"{key.value[:80]!a} is said twice", key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep=deep)
