# errors.py - everything the SDK raises, one class per kind of failure.
# SPDX-License-Identifier: Apache-2.0
"""The errors of the SDK.

All of them are a BrigError. An APIError is an answer of brigd that is not a
success; its class says which HTTP status, its `code` is stable and meant for
programs, its `message` is meant for people.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Dict, List, Mapping, Optional, Type

if TYPE_CHECKING:
    from .sandbox import Sandbox

__all__ = [
    "APIError",
    "AuthenticationError",
    "BadRequestError",
    "BrigError",
    "CommandError",
    "ConfigurationError",
    "ConflictError",
    "ConnectionError",
    "InsufficientStorageError",
    "NotFoundError",
    "PartialError",
    "PayloadTooLargeError",
    "PermissionDeniedError",
    "ProtocolError",
    "RateLimitError",
    "RequestTimeoutError",
    "SandboxFailedError",
    "ServerError",
    "StreamError",
    "UnprocessableError",
    "UnsupportedMediaTypeError",
]


class BrigError(Exception):
    """Base of every error of this package."""


class ConfigurationError(BrigError):
    """No key, or an address that is none."""


class ConnectionError(BrigError):  # the builtin is meant to be shadowed
    """brigd could not be reached, or the connection broke."""


class RequestTimeoutError(ConnectionError):
    """brigd was silent for longer than the time-out of the client."""


class ProtocolError(BrigError):
    """The answer is not what brigd's API promises."""


class StreamError(BrigError):
    """A stream of output ended with an error instead of an exit code."""


class SandboxFailedError(BrigError):
    """A sandbox that was waited for did not become ready."""


class PartialError(BrigError):
    """Of several sandboxes only some could be made, or none.

    `sandboxes` are those that were: nobody else will delete them. `failures`
    has a `code` and a `message` for each of the others.
    """

    def __init__(
        self, sandboxes: "List[Sandbox]", failures: List[Dict[str, Any]]
    ) -> None:
        total = len(sandboxes) + len(failures)
        super().__init__(
            f"{len(failures)} of {total} sandboxes could not be made: "
            f"{failures[0].get('message')}"
        )
        self.sandboxes = sandboxes
        self.failures = failures


class CommandError(BrigError):
    """A command did not exit with 0; raised by check() of a result."""

    def __init__(self, message: str, result: Any) -> None:
        super().__init__(message)
        self.result = result


class APIError(BrigError):
    """An answer with a status of 400 or more."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        request_id: Optional[str] = None,
        details: Optional[Mapping[str, Any]] = None,
        retry_after: Optional[float] = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.request_id = request_id
        self.details: Dict[str, Any] = dict(details or {})
        self.retry_after = retry_after

    def __str__(self) -> str:
        text = f"{self.status} {self.code}: {self.message}"
        if self.request_id:
            text += f" (request {self.request_id})"
        return text


class BadRequestError(APIError):
    """400: the request could not be read, as with malformed JSON."""


class AuthenticationError(APIError):
    """401: no key, or a wrong one."""


class PermissionDeniedError(APIError):
    """403: the key lacks the scope."""


class NotFoundError(APIError):
    """404: no such sandbox, image, path or file."""


class ConflictError(APIError):
    """409: another request is in the way; trying again can help."""


class PayloadTooLargeError(APIError):
    """413: the body is over its limit."""


class UnsupportedMediaTypeError(APIError):
    """415: the body is of a type that this request does not take."""


class UnprocessableError(APIError):
    """422: the request can be read, but a value in it cannot be used."""


class RateLimitError(APIError):
    """429: too many requests; `retry_after` says when to come back."""


class ServerError(APIError):
    """500 and more: brigd failed."""


class InsufficientStorageError(ServerError):
    """507: no space left, on the host or on the disk of the sandbox."""


_BY_STATUS: Dict[int, Type[APIError]] = {
    400: BadRequestError,
    401: AuthenticationError,
    403: PermissionDeniedError,
    404: NotFoundError,
    409: ConflictError,
    413: PayloadTooLargeError,
    415: UnsupportedMediaTypeError,
    422: UnprocessableError,
    429: RateLimitError,
    507: InsufficientStorageError,
}


def class_of_status(status: int) -> Type[APIError]:
    """The class for an HTTP status of 400 or more."""
    fallback = ServerError if status >= 500 else APIError
    return _BY_STATUS.get(status, fallback)
