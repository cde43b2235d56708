"""The hub: what a revision holds, and the bytes of one file from any offset on.

It speaks through ``huggingface_hub``: its session (so that proxies, certificates and offline
mode are as its users set them), its headers and its addresses; ``HF_ENDPOINT`` and ``HF_TOKEN``
are read at each call. Redirects of downloads are followed here, one by one, because the token
belongs to the hub alone: another origin gets the request without it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NoReturn
from urllib.parse import urljoin, urlsplit

import httpx2
from huggingface_hub import HfApi, ModelInfo, constants, get_session, hf_hub_url
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled
from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

from packager import __version__
from packager.connected.source.retry import Patience, RetryableError, retry_after, retrying
from packager.errors import AirpackError, HubError, MalformedError, UsageError
from packager.format.lock import GIT_BLOB, SHA256, ContentId, HubCommit, LockedFile
from packager.progress import Progress, Silent

MAX_REDIRECTS = 5
_REDIRECTS = (301, 302, 303, 307, 308)
_PASSING = (408, 425, 429, 500, 502, 503, 504)


@dataclass(frozen=True)
class Snapshot:
    """A repository at one commit: every file it holds, wanted or not, in order of path.

    ``gated``: the files are only for who has accepted the licence, on the hub.
    """

    commit: HubCommit
    files: tuple[LockedFile, ...]
    gated: bool = False


@dataclass(frozen=True)
class Body:
    """An open answer. Its first byte is byte ``offset`` of the file, which has ``size`` bytes
    as far as the server says so; ``etag`` is its strong entity tag, if it has one.
    """

    offset: int
    size: int | None
    etag: str | None
    chunks: Iterator[bytes]


@dataclass(frozen=True)
class Hub:
    """The hub that ``HF_ENDPOINT`` names."""

    patience: Patience = field(default_factory=Patience)
    progress: Progress = field(default_factory=Silent)

    @property
    def endpoint(self) -> str:
        """The hub's address, read now."""
        return (os.environ.get("HF_ENDPOINT") or constants.ENDPOINT).rstrip("/")

    def resolve(self, repository: str, revision: str) -> Snapshot:
        """Pin ``revision`` to its commit and list the files there.

        Raises ``HubError``, or ``UsageError`` for a name that no repository can have.
        """
        place = _Place(self.endpoint, repository, revision)
        return retrying(lambda: _resolve(place), self.patience, self.progress)

    @contextmanager
    def open(
        self, commit: HubCommit, path: str, *, offset: int = 0, etag: str | None = None
    ) -> Iterator[Body]:
        """Stream ``path`` from byte ``offset``, if what ``etag`` named is still what is there.

        The server may ignore the range or find the tag changed: then ``Body.offset`` is 0.
        Raises ``RetryableError`` for what may pass, at any moment, else ``HubError``.
        """
        place = _Place(self.endpoint, commit.repository, commit.revision, path)
        wanted = {"accept-encoding": "identity"}
        if offset:
            wanted["range"] = f"bytes={offset}-"
            if etag:
                wanted["if-range"] = etag
        with _translating(place):
            response = _send(place, wanted)
            try:
                yield _body(response, offset, place)
            finally:
                response.close()


@dataclass(frozen=True)
class _Place:
    """What is asked for, as messages name it; an address may hold secrets and never appears."""

    endpoint: str
    repository: str
    revision: str
    path: str | None = None

    def __str__(self) -> str:
        what = f"{self.path} of " if self.path else ""
        short = self.revision[:12] if len(self.revision) == 40 else self.revision
        return f"{what}{self.repository} at {short}"

    @property
    def host(self) -> str:
        return urlsplit(self.endpoint).hostname or self.endpoint

    @property
    def page(self) -> str:
        """Where a person reads about the repository."""
        parts = urlsplit(self.endpoint)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}/{self.repository}"


def _resolve(place: _Place) -> Snapshot:
    with _translating(place):
        try:
            info = HfApi(
                endpoint=place.endpoint, library_name="airpack", library_version=__version__
            ).model_info(
                place.repository,
                revision=place.revision,
                files_metadata=True,
                timeout=float(constants.HF_HUB_DOWNLOAD_TIMEOUT),
            )
            return _snapshot(place.repository, info)
        except HFValidationError:
            raise UsageError(
                f"{place.repository[:120]!a} is not the name of a repository",
                hint="name it as on the hub: Qwen/Qwen3-0.6B",
            ) from None
        except (ValueError, KeyError, TypeError, AttributeError, MalformedError):
            raise HubError(
                f"{place.host} does not answer as a hub does, about {place}",
                hint="check HF_ENDPOINT and the proxy settings",
            ) from None


def _snapshot(repository: str, info: ModelInfo) -> Snapshot:
    files = []
    for sibling in info.siblings or ():
        if sibling.lfs is not None:
            size, content = sibling.lfs.size, ContentId(SHA256, sibling.lfs.sha256)
        elif sibling.size is not None and sibling.blob_id is not None:
            size, content = sibling.size, ContentId(GIT_BLOB, sibling.blob_id)
        else:
            raise MalformedError(f"{sibling.rfilename[:200]!a} has no size or no content id")
        files.append(LockedFile(sibling.rfilename, int(size), content))
    files.sort(key=lambda file: file.path)
    return Snapshot(HubCommit(repository, info.sha or ""), tuple(files), bool(info.gated))


def _send(place: _Place, wanted: dict[str, str]) -> httpx2.Response:
    """The answer to a GET, opened and not yet read, after redirects."""
    url = hf_hub_url(
        place.repository, place.path or "", revision=place.revision, endpoint=place.endpoint
    )
    client = get_session()
    for _ in range(MAX_REDIRECTS + 1):
        headers = build_hf_headers(
            # The token is for the endpoint's own origin; elsewhere a signed address is enough.
            token=None if _origin(url) == _origin(place.endpoint) else False,
            library_name="airpack",
            library_version=__version__,
            headers=wanted,
        )
        request = client.build_request(
            "GET", url, headers=headers, timeout=float(constants.HF_HUB_DOWNLOAD_TIMEOUT)
        )
        response = client.send(request, stream=True, follow_redirects=False)
        if response.status_code not in _REDIRECTS:
            return response
        response.close()
        url = _redirected(url, response.headers.get("location", ""), place)
    raise HubError(f"{place.host} redirects more than {MAX_REDIRECTS} times for {place}")


def _redirected(url: str, location: str, place: _Place) -> str:
    target = urljoin(url, location)
    scheme = urlsplit(target).scheme
    if not location or scheme not in ("http", "https"):
        raise HubError(f"{place.host} redirects nowhere for {place}")
    if scheme == "http" and urlsplit(url).scheme == "https":
        raise HubError(f"{place.host} redirects from https to http for {place}")
    return target


def _origin(url: str) -> tuple[str, str, int | None]:
    """Scheme, host and port, RFC 6454 s.4."""
    parts = urlsplit(url)
    default = {"http": 80, "https": 443}.get(parts.scheme)
    return parts.scheme, (parts.hostname or "").lower(), parts.port or default


def _body(response: httpx2.Response, offset: int, place: _Place) -> Body:
    status, headers = response.status_code, response.headers
    encoded = headers.get("content-encoding", "identity").lower() != "identity"
    if status == 416 or (status == 206 and encoded):
        # The range is past the end, or counts bytes of another encoding: only a whole answer
        # can be used, and an empty one at offset 0 makes the caller ask for it.
        return Body(0, None, None, iter(()))
    if status not in (200, 206):
        _raise_for_status(status, headers, place)
    etag = headers.get("etag")
    etag = etag if etag and etag.startswith('"') and len(etag) < 200 else None
    if status == 206:
        begin, size = _content_range(headers.get("content-range", ""), place)
        if begin != offset:
            raise HubError(f"{place.host} sends another part of {place} than it was asked for")
        return Body(offset, size, etag, response.iter_raw())
    declared = headers.get("content-length", "")
    size = int(declared[:20]) if declared.isdigit() and not encoded else None
    return Body(0, size, etag, response.iter_bytes() if encoded else response.iter_raw())


def _content_range(value: str, place: _Place) -> tuple[int, int | None]:
    """First byte and whole size of ``bytes 5-9/10``, RFC 9110 s.14.4."""
    unit, _, rest = value.partition(" ")
    span, _, size = rest.partition("/")
    begin = span.partition("-")[0]
    if unit != "bytes" or not (begin.isascii() and begin.isdigit()):
        raise HubError(f"{place.host} does not say which part of {place} it sends")
    return int(begin[:20]), int(size[:20]) if size.isascii() and size.isdigit() else None


@contextmanager
def _translating(place: _Place) -> Iterator[None]:
    """Turn what the client library raises into our errors, without addresses or headers."""
    try:
        yield
    except HfHubHTTPError as error:
        _raise_for_status(error.response.status_code, error.response.headers, place)
    except OfflineModeIsEnabled:
        raise HubError(
            f"{place} is on the hub, and HF_HUB_OFFLINE forbids to go there",
            hint="unset HF_HUB_OFFLINE",
        ) from None
    except httpx2.UnsupportedProtocol:
        raise HubError(
            f"{place.endpoint[:120]!a} is not the address of a hub",
            hint="set HF_ENDPOINT to https://…, or unset it",
        ) from None
    except (httpx2.TransportError, httpx2.DecodingError) as error:
        # What the system says of a connection is worth repeating; what the protocol's code says
        # may quote a header, and with it the token.
        fact = str(error) if isinstance(error, httpx2.NetworkError) else ""
        final = HubError(
            f"{place.host} cannot be reached, or hung up, for {place}"
            f" ({fact[:160] or type(error).__name__})",
            hint="check the network and HF_ENDPOINT, then run it again: it resumes where it was",
        )
        raise RetryableError(final) from None
    except (httpx2.TooManyRedirects, httpx2.InvalidURL):
        raise HubError(f"{place.host} redirects wrongly for {place}") from None


def _raise_for_status(status: int, headers: httpx2.Headers, place: _Place) -> NoReturn:
    error = _status_error(status, headers.get("x-error-code", ""), place)
    if status in _PASSING:
        raise RetryableError(error, wait=retry_after(headers)) from None
    raise error from None


def _status_error(status: int, code: str, place: _Place) -> AirpackError:
    token_set = bool(os.environ.get("HF_TOKEN"))
    if code == "GatedRepo":
        return HubError(
            f"{place.repository} is gated: {place.host} wants its licence accepted first"
            f" (HTTP {status})",
            hint=f"accept it on {place.page}"
            + (", with the account that HF_TOKEN belongs to" if token_set else ", set HF_TOKEN"),
        )
    if code == "RevisionNotFound":
        return HubError(
            f"revision {place.revision} of {place.repository} is gone from {place.host}",
            hint="lock again, at a revision that is there: airpack lock RECIPE",
        )
    if code == "EntryNotFound":
        return HubError(
            f"{place} is gone from {place.host}", hint="lock again: airpack lock RECIPE"
        )
    if code == "RepoNotFound" or (status == 404 and not place.path):
        return HubError(
            f"{place.repository} is not on {place.host}, or it is private (HTTP {status})",
            hint="check the spelling; for a private repository set HF_TOKEN",
        )
    return _plain_status_error(status, place, token_set)


def _plain_status_error(status: int, place: _Place, token_set: bool) -> AirpackError:
    if status == 401:
        return HubError(
            f"{place.host} refuses {place}: "
            + ("it does not accept the token" if token_set else "it wants a token")
            + " (HTTP 401)",
            hint="set HF_TOKEN to a token that may read it",
        )
    if status == 403:
        return HubError(
            f"{place.host} refuses {place}: this account may not read it (HTTP 403)",
            hint=f"ask for access on {place.page}, or set HF_TOKEN to a token that may read it",
        )
    if status == 404:
        return HubError(
            f"{place} is not on {place.host} (HTTP 404)", hint="lock again: airpack lock RECIPE"
        )
    if status == 429:
        return HubError(
            f"{place.host} gets too many requests (HTTP 429), at {place}",
            hint="wait some minutes, or set HF_TOKEN, which raises the limit; then run it again",
        )
    if status >= 500:
        return HubError(
            f"{place.host} has a fault of its own (HTTP {status}), at {place}",
            hint="run it again later: it resumes where it was",
        )
    return HubError(f"{place.host} refuses {place} (HTTP {status})")
