"""The state of a run on disk: written whole or not at all, verified when read, safe to load.

A checkpoint is a line with the payload's SHA-256, then the payload in torch's own format. It is loaded with
`weights_only=True`, so that nothing in it is ever executed. The previous checkpoint is kept beside it.
"""

import hashlib
import io
import logging
import os
from collections.abc import Callable
from concurrent import futures
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self

import torch

from dash_core.files import DiskError, naming, sync, write_atomically

logger = logging.getLogger(__name__)
STATE_FILE = "state.ckpt"  # in the folder of a run that is not complete
CHECKPOINT_HEADER = b"dashpipe checkpoint 2 sha256 "


class CheckpointWriter:
    """Saves states in a file on a thread of its own, so that the caller does not wait for the disk.

    A state is made of tensors, numbers, strings, lists and dicts; later changes to them are not saved. One state is
    written at a time, and the previous one is kept as `<path>.previous`. One of the two is whole after a crash at any
    time: the older one is removed first, which frees its space. A failed write is raised by the next `check` or `wait`,
    as a DiskError with the file, the reason and the remedy. When a `with` block ends, no write is in progress.
    """

    def __init__(
        self,
        path: Path,
        before: Callable[[], None] = lambda: None,
        after: Callable[[dict[str, Any]], None] = lambda state: None,
    ) -> None:
        """before: called on the writing thread before a file is replaced; its error is that of the write.

        after: called on the same thread with the state that was written.
        """
        self._path = path
        self._before, self._after = before, after
        self._writing: Future[None] | None = None

    def save(self, state: dict[str, Any]) -> None:
        """Begin to write a state after the previous write has ended; a failure of that write is only logged."""
        self._wait_and_log()
        thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint-writer")
        self._writing = thread.submit(self._write, _serialised(state), state)
        thread.shutdown(wait=False)  # it ends with this write

    def check(self) -> None:
        """Raise the error of the last write if it has failed already."""
        if self._writing is not None and self._writing.done():
            self.wait()

    def wait(self) -> None:
        """Return when the last state is on the disk; raise the error of its write."""
        if self._writing is None:
            return
        futures.wait([self._writing])  # after an interrupt here, the end of the block waits again
        written, self._writing = self._writing, None
        written.result()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *details: object) -> None:
        """Wait for the write; an error of the block itself takes precedence over an error of the write."""
        if kind is None:
            self.wait()
        else:
            self._wait_and_log()

    def _write(self, content: memoryview, state: dict[str, Any]) -> None:
        self._before()
        _write(self._path, content)
        self._after(state)

    def _wait_and_log(self) -> None:
        """Wait for the write, and only log its error."""
        try:
            self.wait()
        except DiskError as error:
            logger.warning("%s", error)


def _serialised(state: dict[str, Any]) -> memoryview:
    payload = io.BytesIO()
    torch.save(state, payload)
    return payload.getbuffer()


def _write(path: Path, content: memoryview) -> None:
    header = CHECKPOINT_HEADER + hashlib.sha256(content).hexdigest().encode() + b"\n"
    if path.exists():
        with naming(path):
            os.replace(path, _previous(path))
            sync(path.parent)
    write_atomically(path, header, content)  # as two parts: joining them would copy the state


def load_checkpoint(path: Path, *, keep_damaged: bool = False) -> dict[str, Any] | None:
    """Return the newest whole checkpoint, or None if there is none. Tensors are on the CPU.

    A damaged checkpoint is removed, with a warning that names it; not with `keep_damaged`.
    """
    for candidate in filter(Path.exists, (path, _previous(path))):
        with naming(candidate):
            header, _, payload = candidate.read_bytes().partition(b"\n")
        if header == CHECKPOINT_HEADER + hashlib.sha256(payload).hexdigest().encode():
            try:
                return torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)
            except Exception as error:  # a malformed payload can raise any error in the unpickler
                reason = f"it cannot be loaded ({error})"
        elif header.startswith(CHECKPOINT_HEADER.split()[0]) and not header.startswith(CHECKPOINT_HEADER):
            reason = "another version wrote it"
        else:
            reason = "its checksum does not match"
        logger.warning("checkpoint %s cannot be used and is passed over: %s", candidate, reason)
        if keep_damaged:
            continue
        with naming(candidate):
            candidate.unlink()  # or the next save would replace the good one by it
    return None


def remove_checkpoint(path: Path) -> None:
    """Remove a checkpoint and the previous one."""
    for candidate in (path, _previous(path)):
        candidate.unlink(missing_ok=True)


def _previous(path: Path) -> Path:
    return path.with_name(path.name + ".previous")
