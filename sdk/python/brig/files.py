# files.py - moving files into a sandbox and out of it.
# SPDX-License-Identifier: Apache-2.0
"""Files of a sandbox.

What is written can be bytes, text (stored as UTF-8), a path-like object (a
local file) or a binary file object; it is sent piece by piece. Relative
paths in the sandbox begin at root's home directory.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import os
import secrets
import tempfile
from dataclasses import dataclass
from typing import (
    IO,
    TYPE_CHECKING,
    Callable,
    Iterator,
    Optional,
    Tuple,
    Union,
)

from ._http import CHUNK_BYTES, Response, StreamingBody

if TYPE_CHECKING:
    from .sandboxes import Sandboxes

__all__ = ["Files", "Progress", "Source", "UploadResult"]

Source = Union[bytes, bytearray, memoryview, str, "os.PathLike[str]", IO[bytes]]

# Called with the bytes moved so far, and with the total where it is known.
Progress = Callable[[int, Optional[int]], None]


@dataclass(frozen=True)
class UploadResult:
    message: str
    path: str
    size: int


class Files:
    """`sandbox.files`."""

    def __init__(self, sandboxes: "Sandboxes", sandbox_id: str) -> None:
        self._sandboxes = sandboxes
        self._id = sandbox_id

    def write(
        self, path: str, data: Source, *, progress: Optional[Progress] = None
    ) -> UploadResult:
        """Writes a file; it appears under its name when it is whole."""
        return self._sandboxes.upload(self._id, path, data, progress=progress)

    def read(self, path: str) -> bytes:
        """The content of a file."""
        return self._sandboxes.download(self._id, path)

    def read_text(self, path: str) -> str:
        """The content of a file that is UTF-8 text."""
        return self.read(path).decode("utf-8")

    def download(
        self,
        path: str,
        target: "Union[str, os.PathLike[str]]",
        *,
        progress: Optional[Progress] = None,
    ) -> int:
        """Copies a file to the local `target`; returns its size."""
        return self._sandboxes.download_to(
            self._id, path, target, progress=progress
        )


@contextlib.contextmanager
def opened(source: Source) -> Iterator[Tuple[IO[bytes], Optional[int]]]:
    """`source` as a binary file, and its size if that is known."""
    if isinstance(source, str):
        source = source.encode("utf-8")
    if isinstance(source, (bytes, bytearray, memoryview)):
        data = bytes(source)
        yield io.BytesIO(data), len(data)
    elif isinstance(source, os.PathLike):
        with open(source, "rb") as file:
            yield file, _size_left(file)
    else:
        yield source, _size_left(source)


def _size_left(file: IO[bytes]) -> Optional[int]:
    try:
        here = file.tell()
        end = file.seek(0, os.SEEK_END)
        file.seek(here)
    except (OSError, AttributeError, ValueError):
        return None  # a pipe
    return end - here


def multipart(
    path: str,
    file: IO[bytes],
    size: Optional[int],
    progress: Optional[Progress],
) -> StreamingBody:
    """The form that an upload is: fields `path` and `file`."""
    mark = secrets.token_hex(16)
    head = (
        f"--{mark}\r\n"
        'content-disposition: form-data; name="path"\r\n\r\n'
        f"{path}\r\n"
        f"--{mark}\r\n"
        'content-disposition: form-data; name="file"; filename="file"\r\n'
        "content-type: application/octet-stream\r\n\r\n"
    ).encode("utf-8", "surrogateescape")
    tail = f"\r\n--{mark}--\r\n".encode("ascii")
    length = None if size is None else len(head) + size + len(tail)
    content_type = f"multipart/form-data; boundary={mark}"
    pieces = itertools.chain([head], _pieces(file, size, progress), [tail])
    return StreamingBody(content_type, pieces, length)


def raw(
    file: IO[bytes], size: Optional[int], progress: Optional[Progress]
) -> StreamingBody:
    """The bytes of a file and nothing else."""
    return StreamingBody(
        "application/octet-stream", _pieces(file, size, progress), size
    )


def _pieces(
    file: IO[bytes], size: Optional[int], progress: Optional[Progress]
) -> Iterator[bytes]:
    done = 0
    while size is None or done < size:
        left = CHUNK_BYTES if size is None else size - done
        data = file.read(min(CHUNK_BYTES, left))
        if not data:
            break
        done += len(data)
        yield data
        if progress is not None:
            progress(done, size)
    if size is not None and done < size:
        raise ValueError(f"the file shrank from {size} to {done} bytes")


def save(
    response: Response,
    target: "Union[str, os.PathLike[str]]",
    progress: Optional[Progress],
) -> int:
    """Writes an answer to a file, which appears when it is whole."""
    target = os.fspath(target)
    folder = os.path.dirname(os.path.abspath(target))
    handle, temporary = tempfile.mkstemp(dir=folder, prefix=".brig-")
    try:
        with open(handle, "wb") as file:
            done = _copy(response, file, progress)
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)
        os.replace(temporary, target)
    except BaseException:
        os.unlink(temporary)
        raise
    return done


def _copy(
    response: Response, file: IO[bytes], progress: Optional[Progress]
) -> int:
    length = response.headers.get("content-length")
    total = int(length) if length is not None else None
    done = 0
    while True:
        data = response.read_some()
        if not data:
            return done
        file.write(data)
        done += len(data)
        if progress is not None:
            progress(done, total)
