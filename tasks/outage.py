"""What becomes of tracking when MLflow fails: it is off for the rest of the command, in all of its processes.

The truth is on disk and MLflow is a view of it, so a run never waits for MLflow twice, nor fails with it.
"""

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from dash_core.errors import DashError
from dash_core.files import write_atomically

REMEDY = "`uv run dashpipe sync` with the same options completes MLflow from the records"
LONGEST = 200  # characters of a reason


class TrackerAway(DashError):
    """MLflow failed where it is all that was asked for."""


@dataclass(frozen=True)
class Breaker:
    """A switch that the processes of a command share: a file, there once MLflow has failed, that tells why."""

    file: Path

    @classmethod
    def of(cls, folder: Path) -> Self:
        """Return the closed breaker of this process, its file in `folder`."""
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / f"mlflow-failure.{os.getpid()}"
        file.unlink(missing_ok=True)  # of an earlier process of this number
        return cls(file)

    @property
    def reason(self) -> str | None:
        """Why tracking is off; None while it is on."""
        try:
            return self.file.read_text(encoding="utf-8")
        except FileNotFoundError:
            return None

    def attempt(self, call: Callable[..., Any], *arguments: Any, **settings: Any) -> Any:
        """Return what the call does, or None if tracking is off; whatever fails turns it off, but for our own errors.

        Nothing is exempt: not even a defect of the tracker may end a run that has trained for hours.
        """
        if self.reason is not None:
            return None
        try:
            return call(*arguments, **settings)
        except DashError:
            raise
        except Exception as error:
            write_atomically(self.file, explain(error).encode())
            return None

    def check(self) -> None:
        """Raise TrackerAway, and turn tracking on again, if it is off."""
        if reason := self.reason:
            self.reset()
            raise TrackerAway(f"MLflow failed: {reason}; nothing is lost: repeat this command when MLflow answers")

    def reset(self) -> None:
        """Turn tracking on again."""
        self.file.unlink(missing_ok=True)


def explain(error: Exception) -> str:
    """Return an error of MLflow's client in one short line, without the passwords of an address."""
    text = " ".join(str(error).split()) or type(error).__name__
    text = without_password(text)
    if cause := re.search(r"Caused by \w+\([\"']?(?:\w+\([^)]*\): )?(.+?)[\"')]*$", text):
        text = cause[1]
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} …"


def without_password(text: str) -> str:
    """Return a text with user and password taken out of the addresses in it."""
    return re.sub(r"//\S*@", "//", text)  # to the last @: a password may hold one, and a slash
