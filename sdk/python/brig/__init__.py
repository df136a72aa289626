# brig - run code that nobody has reviewed, in microVMs on your own machine.
# SPDX-License-Identifier: Apache-2.0
"""Python SDK of brig.

    from brig import Sandbox

    with Sandbox.create() as sandbox:
        print(sandbox.run("uname -r").stdout)

The address of brigd is taken from BRIG_BASE_URL, the key from BRIG_API_KEY.
"""

from .client import (
    Client,
    DeleteAllResult,
    DeleteResult,
    SandboxPage,
    Sandboxes,
)
from .errors import (
    APIError,
    AuthenticationError,
    BadRequestError,
    BrigError,
    CommandError,
    ConfigurationError,
    ConflictError,
    ConnectionError,
    InsufficientStorageError,
    NotFoundError,
    PayloadTooLargeError,
    PermissionDeniedError,
    ProtocolError,
    RateLimitError,
    RequestTimeoutError,
    SandboxFailedError,
    ServerError,
    StreamError,
    UnprocessableError,
    UnsupportedMediaTypeError,
)
from .files import Files, UploadResult
from .process import (
    ExecResult,
    ExecStream,
    Measured,
    RunEvent,
    RunResult,
    RunStream,
    Usage,
)
from .sandbox import LogEntry, LogPage, Sandbox, SandboxStatus, StatusPoint

__version__ = "0.1.0"

__all__ = [
    "APIError",
    "AuthenticationError",
    "BadRequestError",
    "BrigError",
    "Client",
    "CommandError",
    "ConfigurationError",
    "ConflictError",
    "ConnectionError",
    "DeleteAllResult",
    "DeleteResult",
    "ExecResult",
    "ExecStream",
    "Files",
    "InsufficientStorageError",
    "LogEntry",
    "LogPage",
    "Measured",
    "NotFoundError",
    "PayloadTooLargeError",
    "PermissionDeniedError",
    "ProtocolError",
    "RateLimitError",
    "RequestTimeoutError",
    "RunEvent",
    "RunResult",
    "RunStream",
    "Sandbox",
    "SandboxFailedError",
    "SandboxPage",
    "SandboxStatus",
    "Sandboxes",
    "ServerError",
    "StatusPoint",
    "StreamError",
    "UnprocessableError",
    "UnsupportedMediaTypeError",
    "UploadResult",
    "Usage",
]
