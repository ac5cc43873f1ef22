"""Resumable state on disk: written whole or not at all, verified when read, safe to load.

A checkpoint is a line with the payload's SHA-256, then the payload: torch's own format, which is loaded with
`weights_only=True`, so that nothing in it is ever executed. The one before is kept beside it.
"""

import hashlib
import io
import logging
import os
from concurrent import futures
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self

import torch

from dash_core.files import DiskError, naming, sync, write_atomically

logger = logging.getLogger(__name__)
MAGIC = b"dashpipe checkpoint 2 sha256 "


class CheckpointWriter:
    """Saves states in one file while the caller goes on: disks take long, not work.

    States are tensors, numbers, strings and nestings of them; each is saved as it was when it was given. One is written
    at a time, the one before stays as `<path>.previous`. Whenever a crash comes, one of the two is whole: the oldest
    goes, and leaves its space, before the new one is written. DiskError names the file, the reason and the remedy; it
    is raised by the next `check` or `wait`. A `with` block leaves no write under way.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._under_way: Future[None] | None = None

    def save(self, state: dict[str, Any]) -> None:
        """Begin to write a state, once the one before is written; this one makes up for it if that failed."""
        self._end_whatever_comes()
        thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint-writer")
        self._under_way = thread.submit(_write, self._path, _serialised(state))
        thread.shutdown(wait=False)  # it ends with this write

    def check(self) -> None:
        """Raise what went wrong, if that is known by now."""
        if self._under_way is not None and self._under_way.done():
            self.wait()

    def wait(self) -> None:
        """Return when what was given is on the disk."""
        if self._under_way is None:
            return
        futures.wait([self._under_way])  # interrupted here, it is still under way, and waited for at the block's end
        written, self._under_way = self._under_way, None
        written.result()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *details: object) -> None:
        """Wait; an error of the block itself comes before that of a write."""
        if kind is None:
            self.wait()
        else:
            self._end_whatever_comes()

    def _end_whatever_comes(self) -> None:
        """Wait, and only log what goes wrong: what comes next matters more."""
        try:
            self.wait()
        except DiskError as error:
            logger.warning("%s", error)


def _serialised(state: dict[str, Any]) -> memoryview:
    payload = io.BytesIO()
    torch.save(state, payload)
    return payload.getbuffer()


def _write(path: Path, content: memoryview) -> None:
    header = MAGIC + hashlib.sha256(content).hexdigest().encode() + b"\n"
    if path.exists():
        with naming(path):
            os.replace(path, _previous(path))
            sync(path.parent)
    write_atomically(path, header, content)  # not joined: that would copy the state once more


def load_checkpoint(path: Path) -> dict[str, Any] | None:
    """Return the newest whole checkpoint, or None if there is none; a damaged one is named in the log and passed over.

    Tensors are loaded to the CPU.
    """
    for candidate in filter(Path.exists, (path, _previous(path))):
        with naming(candidate):
            header, _, payload = candidate.read_bytes().partition(b"\n")
        if header == MAGIC + hashlib.sha256(payload).hexdigest().encode():
            try:
                return torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)
            except Exception as error:  # a malformed payload makes the unpickler run into anything
                reason = f"it cannot be loaded ({error})"
        elif header.startswith(MAGIC.split()[0]) and not header.startswith(MAGIC):
            reason = "another version wrote it"
        else:
            reason = "its checksum does not match"
        logger.warning("checkpoint %s cannot be used and is passed over: %s", candidate, reason)
        with naming(candidate):
            candidate.unlink()  # or the next save would put it in the place of the good one
    return None


def remove_checkpoint(path: Path) -> None:
    """Remove a checkpoint that is no longer needed, and the one before it."""
    for candidate in (path, _previous(path)):
        candidate.unlink(missing_ok=True)


def _previous(path: Path) -> Path:
    return path.with_name(path.name + ".previous")
