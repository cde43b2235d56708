"""What a bundle says of a chat template: which it is, and what it makes of the smoke prompts."""

from __future__ import annotations

from dataclasses import dataclass

from packager.format.canonical import Json
from packager.format.digest import Digest
from packager.format.fields import Fields


@dataclass(frozen=True)
class ChatTemplate:
    """``digest`` is that of the template's UTF-8 text; ``rendered`` those of the texts it made.

    One for each smoke prompt, in order, each as a conversation of that one turn; none where the
    template makes no text of such a conversation.
    """

    digest: Digest
    rendered: tuple[Digest, ...]

    def encode(self) -> dict[str, Json]:
        """The document that :meth:`parse` reads."""
        return {"digest": self.digest.hex, "rendered": [digest.hex for digest in self.rendered]}

    @classmethod
    def parse(cls, fields: Fields) -> ChatTemplate:
        """Read one; raises what ``fields`` raises."""
        fields.only("digest", "rendered")
        return cls(fields.digest("digest"), fields.digests("rendered"))
