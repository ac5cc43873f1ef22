"""Locks between commands on one store: of a run while it is trained, of MLflow's database while it is opened.

The operating system keeps them, and frees a lock when its owner ends, even if it is killed. A note beside each lock
names its owner for messages; only the lock decides.
"""

import errno
import json
import multiprocessing
import os
import shlex
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from filelock import FileLock, Timeout

from dash_core.config import RunConfig
from dash_core.errors import DashError
from dash_core.files import naming, write_atomically
from tasks import SERVICES_FOLDER
from tasks.store.place import Place

POLL_SECONDS = 0.2  # between two attempts to take a lock that another process holds
SILENT_SECONDS = 2.0  # of waiting, before a message says so
COMMAND_LENGTH = 80  # characters of a command in a message
NO_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP}


class Busy(DashError):
    """Another process holds a lock: the message says which, and since when."""


class NoLocks(DashError):
    """The file system has no locks: the message names the file and the remedy."""


@dataclass(frozen=True)
class Owner:
    """The owner of a lock: process, machine and command. since: when it took the lock, Unix time in seconds."""

    pid: int
    host: str
    command: str
    since: float

    @classmethod
    def me(cls) -> Self:
        """Return this process as an owner; a worker names the command that started it."""
        parent = multiprocessing.parent_process()
        command = shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])
        return cls(parent.pid if parent else os.getpid(), socket.gethostname(), command[:COMMAND_LENGTH], time.time())

    @classmethod
    def of(cls, lock: Path) -> Self | None:
        """Return the owner that the note beside a lock names; None if there is no valid note."""
        try:
            return cls(**json.loads(_note(lock).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None

    def __str__(self) -> str:
        since = time.strftime("%H:%M", time.localtime(self.since))
        return f"process {self.pid} on {self.host} has held since {since} ({self.command})"


@contextmanager
def locked_run(run: RunConfig, place: Place, *, wait: bool = True) -> Iterator[None]:
    """Hold a run for this process alone within the block: no other process trains, removes or copies it.

    Read its folder within the block: anything read before may be out of date. Waiting and errors are as in `locked`.
    """
    with locked(place.locks / f"{run.id}.lock", f"run {run.id}", wait=wait):
        yield


@contextmanager
def locked_tracking(store: Path) -> Iterator[None]:
    """Hold MLflow's database within the block, to create, upgrade or extend it: two processes would damage it."""
    with locked(store / SERVICES_FOLDER / "locks" / "mlflow.lock", "MLflow's database"):
        yield


@contextmanager
def locked(path: Path, what: str, *, wait: bool = True) -> Iterator[None]:
    """Hold the lock of the file `path` within the block.

    If another process holds it, say so on stderr and wait or, without `wait`, raise Busy. NoLocks if the file system
    has no locks, DiskError if the file cannot be written.
    """
    lock = FileLock(path, poll_interval=POLL_SECONDS, fallback_to_soft=False)
    with naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        _acquire(lock, path, what, wait)
    try:
        write_atomically(_note(path), json.dumps(asdict(Owner.me())).encode(), durable=False)
        yield
    finally:
        with suppress(OSError):  # a note that stays does no harm: the lock decides
            _note(path).unlink(missing_ok=True)
        lock.release()


def _acquire(lock: FileLock, path: Path, what: str, wait: bool) -> None:
    try:
        try:
            lock.acquire(timeout=SILENT_SECONDS if wait else 0)
        except Timeout:
            holder = f"{what}, which {Owner.of(path) or 'another process holds'}"
            if not wait:
                raise Busy(f"waiting for {holder}") from None
            print(f"waiting for {holder}", file=sys.stderr, flush=True)
            lock.acquire()
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        raise NoLocks(f"{path} cannot be locked ({error.strerror}): put --store on a disk of this machine") from None


def _note(lock: Path) -> Path:
    return lock.with_suffix(".owner")
