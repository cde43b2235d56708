"""What wheels say of their licences, in the three ways that there are."""

from __future__ import annotations

import pytest

from packager.evidence.wheel import METADATA, describe_wheel

HEAD = "Metadata-Version: 2.4\nName: a\nVersion: 1\n"


@pytest.mark.parametrize(
    ("fields", "licence"),
    [
        ("License-Expression: Apache-2.0 OR MIT\nLicense: other\n", "Apache-2.0 OR MIT"),
        ("License: MIT\n", "MIT"),
        ("License: Permission is\n  hereby granted\n", None),
        (f"License: {'x' * 101}\n", None),
        ("Classifier: License :: OSI Approved :: MIT License\n", "MIT License"),
        ("Classifier: Topic :: Security\n", None),
        ("", None),
    ],
)
def test_the_licence_is_what_the_metadata_say(fields: str, licence: str | None) -> None:
    data = f"{HEAD}{fields}\nLicense: not a field but the description\n".encode()

    assert describe_wheel("a", "1", data, ()).licence == licence


def test_licence_texts_are_found_where_old_and_new_wheels_have_them() -> None:
    texts = ["a-1.dist-info/LICENSE", "a-1.dist-info/NOTICE.txt", "a-1.dist-info/licenses/src/x"]
    others = ["a/LICENSE", "a-1.dist-info/METADATA", "a-1.dist-info/licenses/"]

    described = describe_wheel("a", "1", HEAD.encode(), [*others, *texts])

    assert described.texts == tuple(texts)
    assert [name for name in others if METADATA.match(name)] == ["a-1.dist-info/METADATA"]
