"""The one tree of errors. Each class carries the exit code that scripts rely on.

A message is one sentence that names the file and the fact; ``hint`` is the command, or the
step, that helps. The command line prints them as ``error: MESSAGE`` and ``try: HINT``.
"""

from __future__ import annotations

from typing import ClassVar


class AirpackError(Exception):
    """Anything airpack refuses to do, said in one sentence."""

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(AirpackError):
    """The command, its flags or its recipe make no sense."""

    exit_code = 2


class ParseError(UsageError):
    """A document a person wrote is malformed; the message says where, as ``files[2].path``."""


class IntegrityError(AirpackError):
    """Bytes are not the bytes that were promised."""

    exit_code = 10


class DigestMismatchError(IntegrityError):
    """As many bytes as promised, but other ones."""


class TruncatedError(IntegrityError):
    """Fewer bytes than promised."""


class TrailingDataError(IntegrityError):
    """More bytes than promised."""


class MalformedError(IntegrityError):
    """A document a machine wrote breaks its format."""


class TrustError(AirpackError):
    """No acceptable signature, or a key that may not be used."""

    exit_code = 11


class MissingVolumeError(AirpackError):
    """A volume, a medium or a base bundle is not here."""

    exit_code = 12


class NoSpaceError(AirpackError):
    """The bytes do not fit where they should go."""

    exit_code = 13


class TargetMismatchError(AirpackError):
    """This host cannot run what the bundle holds."""

    exit_code = 14


class SmokeTestError(AirpackError):
    """The model does not answer as it did at the build."""

    exit_code = 15


class NetworkUseError(AirpackError):
    """Something reached for the network where there must be none."""

    exit_code = 16


class UnsafeContentError(AirpackError):
    """Code, pickles, or a weight file that is not what it says."""

    exit_code = 17


class PolicyError(AirpackError):
    """Licence, expiry or sequence forbid it."""

    exit_code = 18


class HubError(AirpackError):
    """The hub refused, or could not be reached."""


class EngineError(AirpackError):
    """The engine that runs models could not be started, or stopped."""


class RefusedRequestError(EngineError):
    """The engine refused a request, and is there for the next one."""


class HostError(AirpackError):
    """The operating system refused: a read-only place, a lock that is held, a device error."""
