"""Which licence a text is, by its words; a text that is changed is no licence that we know.

Words are compared without case, punctuation and line breaks (SPDX License List Matching
Guidelines v3, s.3 to 5). Long licences are known by the digest of their terms, short ones by a
template, in which names may stand where the licence has one. What else is in the file, notices or
further terms, is not judged. Vendors' licences and Creative Commons' are known by their title: each
version of them has many true copies that differ.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator

MAX_TEXT_SIZE = 1 << 20  # bytes; the longest licences have 60 KB

_TITLE_WORDS = 60  # what a file begins with, before its terms

# The first and the last words of the terms, and the sha256 of all words from the one to the other.
_LONG = {
    "apache-2.0": (
        "terms and conditions for use reproduction and distribution 1 definitions",
        "accepting any such warranty or additional liability",
        {"c876a853e3837603a39d56da29306b74786b34411bf636ce5072eb840e764cab"},
    ),
    "cc0-1.0": (
        "statement of purpose the laws of most jurisdictions",
        "no duty or obligation with respect to this cc0 or use of the work",
        {"4f8ab63ace774f37529081c81e2730a88143bf70e67392bd3c3701bd0a175152"},
    ),
    "gpl-3.0": (
        "terms and conditions 0 definitions this license refers to version 3 of the gnu",
        "end of terms and conditions",
        {"04262fba2959e57aa1f32dd635b7cd2b84b6e83a6fa26338f8ef193b2d0d2b60"},
    ),
    "lgpl-3.0": (
        "this version of the gnu lesser general public license incorporates",
        "permanent authorization for you to choose that version for the library",
        {"3c109b32fc12cedb18f514c338498353cbbafbc7ad3aa3aed8c864396943f25a"},
    ),
    "mpl-2.0": (
        "1 definitions 1 1 contributor",
        "incompatible with secondary licenses as defined by the mozilla public license v 2 0",
        {
            "c0f855aacb6ac1c86bcdd1334db61014d14898798ae14888fea5446cbb9d32e3",
            "ca15f9cdd3f2fd06a41df42402a3886e1de25f02b077725084c5d8d535cfcec4",  # https for http
        },
    ),
}

_NAME = "(?: [a-z0-9]+){1,12}"
_BSD_CONDITIONS = (
    "redistribution and use in source and binary forms with or without modification are permitted "
    "provided that the following conditions are met (?:1 )?redistributions of source code must "
    "retain the above copyright notice this list of conditions and the following disclaimer "
    "(?:2 )?redistributions in binary form must reproduce the above copyright notice this list of "
    "conditions and the following disclaimer in the documentation and or other materials provided "
    "with the distribution "
)
_BSD_NAMES = (
    f"(?:3 )?neither the name of{_NAME} nor the names of{_NAME} may be used to endorse or promote "
    "products derived from this software without specific prior written permission "
)
_BSD_DISCLAIMER = (
    f"this software is provided by{_NAME} as is and any express or implied warranties including "
    "but not limited to the implied warranties of merchantability and fitness for a particular "
    f"purpose are disclaimed in no event shall{_NAME} be liable for any direct indirect "
    "incidental special exemplary or consequential damages including but not limited to "
    "procurement of substitute goods or services loss of use data or profits or business "
    "interruption however caused and on any theory of liability whether in contract strict "
    "liability or tort including negligence or otherwise arising in any way out of the use of "
    "this software even if advised of the possibility of such damage"
)
_SHORT = {
    "bsd-2-clause": re.compile(_BSD_CONDITIONS + _BSD_DISCLAIMER),
    "bsd-3-clause": re.compile(_BSD_CONDITIONS + _BSD_NAMES + _BSD_DISCLAIMER),
    "mit": re.compile(
        "permission is hereby granted free of charge to any person obtaining a copy of this "
        "software and associated documentation files the software to deal in the software without "
        "restriction including without limitation the rights to use copy modify merge publish "
        "distribute sublicense and or sell copies of the software and to permit persons to whom "
        "the software is furnished to do so subject to the following conditions the above "
        "copyright notice and this permission notice(?: including the next paragraph)? shall be "
        "included in all copies or substantial portions of the software the software is provided "
        "as is without warranty of any kind express or implied including but not limited to the "
        "warranties of merchantability fitness for a particular purpose and non ?infringement in "
        f"no event shall{_NAME} be liable for any claim damages or other liability whether in an "
        "action of contract tort or otherwise arising from out of or in connection with the "
        "software or the use or other dealings in the software"
    ),
}
_LLAMA = re.compile(r"llama ([0-9](?: [0-9])?) community license agreement")
_GEMMA = re.compile(r"gemma terms of use")
_CREATIVE_COMMONS = re.compile(
    r"attribution( non ?commercial)?( share ?alike| no ?derivatives)? 4 0 international"
)


def licences_of_text(text: bytes) -> frozenset[str]:
    """The ids, as the hub has them, of the licences that ``text`` holds; none, if it is unknown."""
    words = " ".join(re.findall(r"[a-z0-9]+", text.decode("utf-8", "replace").lower()))
    return frozenset((*_by_terms(words), *_by_title(words)))


def _by_terms(words: str) -> Iterator[str]:
    for licence, (first, last, digests) in _LONG.items():
        begin = words.find(first)
        end = words.find(last, begin) if begin >= 0 else -1
        if end >= 0:
            terms = words[begin : end + len(last)]
            if hashlib.sha256(terms.encode("ascii")).hexdigest() in digests:
                yield licence
    for licence, template in _SHORT.items():
        if template.search(words):
            yield licence


def _by_title(words: str) -> Iterator[str]:
    title = " ".join(words.split(" ", _TITLE_WORDS)[:_TITLE_WORDS])
    if match := _LLAMA.search(title):
        yield f"llama{match[1].replace(' ', '.')}"
    if _GEMMA.search(title):
        yield "gemma"
    if match := _CREATIVE_COMMONS.search(title):
        commercial = "-nc" if match[1] else ""
        changes = {" s": "-sa", " n": "-nd"}.get((match[2] or "")[:2], "")
        yield f"cc-by{commercial}{changes}-4.0"
