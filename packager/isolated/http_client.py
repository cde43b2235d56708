"""Asking an HTTP server that nobody vouches for: of its own words, none leads anywhere else.

Python's own opener would follow a redirect to any host, and to FTP; and an answer read at once
may be without end, whatever size it states.
"""

from __future__ import annotations

import http.client
import urllib.error
import urllib.request
from typing import IO
from urllib.parse import urlsplit

from packager.errors import HostError, UsageError

# A ValueError is of what the server says that makes no sense: an address, the size of a chunk.
BROKEN = (OSError, http.client.HTTPException, ValueError)
_SECONDS = 60.0
_PIECE_SIZE = 1 << 20


def check_address(url: str) -> str:
    """``url``, fit to have names put behind it; raises ``UsageError`` for any other.

    What stands before an ``@`` is a password, and what stands behind a ``?`` often one; both would
    go into the log and the receipt, so they are not even repeated.
    """
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
        (host or "").encode("idna")
    except ValueError:
        raise UsageError(f"{url[:200]!a}: no address that a server can have") from None
    if "@" in parts.netloc or "?" in url or "#" in url:
        raise UsageError(
            "an address with a user, a password, a ? or a # in it is not taken: it would stand in "
            "the log and the receipt",
            hint="name the directory alone, as http://HOST/PATH/",
        )
    if not host or not url.isascii() or not url.isprintable() or " " in url:
        raise UsageError(
            f"{url[:200]!a}: no address that a server can have",
            hint="http://HOST/PATH/, with what is not ASCII written as %XX",
        )
    return url


class _OnThisHost(urllib.request.HTTPRedirectHandler):
    """Follows a redirect to the same host, on any port, by HTTP or HTTPS, and no other."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        asked, told = urlsplit(req.full_url), urlsplit(newurl)
        if told.scheme not in ("http", "https") or told.hostname != asked.hostname:
            raise HostError(
                f"{req.full_url}: sends this host to {newurl[:200]!a}, where it was not told to go",
                hint="if the bundle is there, name that address",
            )
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def ask(url: str, offset: int) -> http.client.HTTPResponse:
    """The answer for what lies at ``url``, from the byte at ``offset`` on if the server can.

    Raises one of ``BROKEN``, or ``HostError`` where the server points elsewhere.
    """
    request = urllib.request.Request(url)  # noqa: S310  # http by its caller
    if offset:
        request.add_header("Range", f"bytes={offset}-")
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler,
        urllib.request.HTTPHandler,
        urllib.request.HTTPSHandler,
        urllib.request.HTTPDefaultErrorHandler,
        urllib.request.HTTPErrorProcessor,
        _OnThisHost,
    ):
        opener.add_handler(handler())
    answer: http.client.HTTPResponse = opener.open(request, timeout=_SECONDS)
    return answer


def read_at_most(answer: http.client.HTTPResponse, size: int) -> bytes:
    """All of ``answer``, or its first ``size`` bytes; raises one of ``BROKEN``.

    By pieces: asked for all at once, a chunk that states a size below zero is read to its end.
    """
    data = bytearray()
    piece = memoryview(bytearray(_PIECE_SIZE))
    while len(data) < size:
        count = answer.readinto(piece[: size - len(data)])
        if not count:
            if answer.length:  # what it said that is still to come
                raise ConnectionError("ended early")
            break
        data += piece[:count]
    return bytes(data)
