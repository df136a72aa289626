# brig - run code that nobody has reviewed, in microVMs on your own machine.
# SPDX-License-Identifier: Apache-2.0
"""Python SDK of brig.

    from brig import Sandbox

    with Sandbox.create() as sandbox:
        print(sandbox.run("uname -r").stdout)

The address of brigd is taken from BRIG_BASE_URL, the key from BRIG_API_KEY.
"""

from .client import Client
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
    PartialError,
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
    RunOptions,
    RunResult,
    RunStream,
    Usage,
)
from .sandbox import (
    CreateOptions,
    LogEntry,
    LogPage,
    Receipt,
    Sandbox,
    SandboxStatus,
    StatusPoint,
)
from .sandboxes import DeleteAllResult, DeleteResult, SandboxPage, Sandboxes
from .snapshots import DeleteSnapshotResult, Snapshot, Snapshots
from .templates import Template, Templates

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
    "CreateOptions",
    "DeleteAllResult",
    "DeleteResult",
    "DeleteSnapshotResult",
    "ExecResult",
    "ExecStream",
    "Files",
    "InsufficientStorageError",
    "LogEntry",
    "LogPage",
    "Measured",
    "NotFoundError",
    "PartialError",
    "PayloadTooLargeError",
    "PermissionDeniedError",
    "ProtocolError",
    "RateLimitError",
    "Receipt",
    "RequestTimeoutError",
    "RunEvent",
    "RunOptions",
    "RunResult",
    "RunStream",
    "Sandbox",
    "SandboxFailedError",
    "SandboxPage",
    "SandboxStatus",
    "Sandboxes",
    "ServerError",
    "Snapshot",
    "Snapshots",
    "StatusPoint",
    "StreamError",
    "Template",
    "Templates",
    "UnprocessableError",
    "UnsupportedMediaTypeError",
    "UploadResult",
    "Usage",
]
