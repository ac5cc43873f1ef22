"""What becomes of tracking when MLflow fails: it is off for the rest of the command.

The truth is on disk and MLflow is a view of it, so a command never waits for MLflow twice, nor fails with it.
"""

import re
from collections.abc import Callable
from typing import Any

from dash_core.errors import DashError

REMEDY = "`uv run dashpipe sync` with the same options completes MLflow from the records"
LONGEST = 200  # characters of a reason


class TrackerAway(DashError):
    """MLflow failed where it is all that was asked for."""


class Breaker:
    """A switch that turns tracking off when MLflow fails; told: called with the reason, once."""

    def __init__(self, told: Callable[[str], None] = lambda reason: None) -> None:
        self.reason: str | None = None  # why tracking is off; None while it is on
        self._told = told

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
            self.trip(error)
            return None

    def trip(self, error: Exception) -> None:
        """Turn tracking off, for this reason unless there is one."""
        if self.reason is None:
            self.reason = explain(error)
            self._told(self.reason)

    def check(self) -> None:
        """Raise TrackerAway, and turn tracking on again, if it is off."""
        if reason := self.reason:
            self.reset()
            raise TrackerAway(f"MLflow failed: {reason}; nothing is lost: repeat this command when MLflow answers")

    def reset(self) -> None:
        """Turn tracking on again."""
        self.reason = None


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
