"""Who may write to a run's folder: the attempt that began last.

A machine that is cut off trains on while its run is given to another, and a lock that the file server has freed does
not stop it. So each attempt at a run writes `attempt.json`, and reads it before each later write.
"""

import json
import os
import secrets
import socket
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from dash_core.checkpoint import STATE_FILE, load_checkpoint
from dash_core.errors import DashError
from dash_core.files import write_atomically
from dash_core.records import ChunkRecord

ATTEMPT_FILE = "attempt.json"


class Superseded(DashError):
    """Another attempt at the run began meanwhile: this one stops, and writes nothing more."""


@dataclass(frozen=True)
class Attempt:
    """One attempt at a run. number: counts from 1. key: random. flow_run: id in Prefect, if the run is shown there."""

    folder: Path
    number: int
    host: str
    pid: int
    key: str
    flow_run: str | None = None

    @classmethod
    def begin(cls, folder: Path, flow_run: str | None = None) -> Self:
        """Take over a run's folder for this process. The caller holds the run's lock."""
        last = cls.of(folder)
        number = last.number + 1 if last else 1
        attempt = cls(folder, number, socket.gethostname(), os.getpid(), secrets.token_hex(8), flow_run)
        content = {name: value for name, value in asdict(attempt).items() if name != "folder"}
        write_atomically(folder / ATTEMPT_FILE, (json.dumps(content) + "\n").encode())
        return attempt

    @classmethod
    def of(cls, folder: Path) -> Self | None:
        """Return the attempt that has a run's folder; None if none has begun, or the last is complete."""
        try:
            return cls._read(folder)
        except OSError:
            return None

    @classmethod
    def _read(cls, folder: Path) -> Self | None:
        """As `of`, but OSError if the file is there and cannot be read."""
        try:
            return cls(folder=folder, **json.loads((folder / ATTEMPT_FILE).read_text(encoding="utf-8")))
        except (FileNotFoundError, ValueError, TypeError, RecursionError):
            return None

    @property
    def where(self) -> str:
        """Its process and machine, for messages."""
        return f"process {self.pid} on {self.host}"

    def check(self) -> None:
        """Raise Superseded unless this attempt still has the folder; OSError if the disk does not say."""
        now = Attempt._read(self.folder)
        if now is None or now.key != self.key:
            by = f"attempt {now.number} ({now.where})" if now else "another attempt, which is complete,"
            raise Superseded(
                f"{self.folder.name}: {by} has taken over from attempt {self.number} ({self.where}), which stops and "
                "writes nothing more"
            )

    def end(self) -> None:
        """Give the folder up: the run is complete."""
        (self.folder / ATTEMPT_FILE).unlink(missing_ok=True)


def taken_over(folder: Path, before: Attempt | None) -> bool:
    """Tell whether another process has begun an attempt since the attempt `before` was in the folder."""
    now = Attempt.of(folder)
    mine = socket.gethostname(), os.getpid()
    return now is not None and (now.host, now.pid) != mine and (before is None or now.key != before.key)


def saved_steps(folder: Path) -> int:
    """Return the steps of a run up to its last saved state; 0 without one."""
    state = load_checkpoint(folder / STATE_FILE, keep_damaged=True)
    return steps_of(state) if isinstance(state, dict) else 0


def steps_of(state: Mapping[str, Any]) -> int:
    """Return the steps of a run up to a state as a trajectory saves it."""
    moment = state.get("moment") or {"steps": 0, "measured": ()}
    recorded = sum(ChunkRecord.from_json(line).steps for line in state.get("records", ()))
    return recorded + moment["steps"] + len(moment["measured"])
