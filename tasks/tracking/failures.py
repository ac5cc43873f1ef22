"""Failures of MLflow: the part that failed is off for the rest of the command.

The run folders are the truth and MLflow is their mirror. So a command does not try a failed part again, and does not
fail because of it. Metrics, artifacts and models fail apart: a full object store costs no metric.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

from dash_core.errors import DashError
from tasks.tracking.reasons import explain

Kind = Literal["metrics", "artifacts", "models"]
WHAT_FAILED: dict[Kind, str] = {
    "metrics": "MLflow failed",  # the server or the database itself: artifacts and models are not tried either
    "artifacts": "MLflow took no artifacts",
    "models": "MLflow took no models",
}
REMEDY = "`uv run dashpipe sync` with the same options completes MLflow from the records"


class TrackerAway(DashError):
    """MLflow failed in a command whose only task is tracking."""


class Failures:
    """Which kinds of content MLflow failed to take in this command, and why.

    say: called once for each kind that fails, with what failed and the reason.
    """

    def __init__(self, say: Callable[[str], None] = lambda message: None) -> None:
        self.reasons: dict[Kind, str] = {}
        self._lacking: set[Kind] = set()
        self._say = say

    def lack(self, kind: Kind, error: Exception) -> None:
        """Turn a kind off that the server has no place for, and say so; only a newer server completes it."""
        if not self.off(kind):
            self._lacking.add(kind)
            self.note(kind, error)

    def off(self, kind: Kind) -> bool:
        """Tell whether this kind has failed, itself or with the whole server."""
        return kind in self.reasons or "metrics" in self.reasons

    def note(self, kind: Kind, error: Exception) -> None:
        """Turn a kind off for this reason; later reasons are ignored."""
        if not self.off(kind):
            self.reasons[kind] = explain(error)
            self._say(f"{WHAT_FAILED[kind]}: {self.reasons[kind]}")

    def fall_silent(self) -> None:
        """Say nothing any more: the command has left while something was still sent, which the next one sends again."""
        self._say = lambda message: None

    @contextmanager
    def apart(self, kind: Kind) -> Iterator[None]:
        """Turn a kind off if the block fails. Not even a defect of ours may end a run that has trained for hours."""
        try:
            yield
        except Exception as error:
            self.note(kind, error)

    def check(self) -> None:
        """Raise TrackerAway if anything failed that the same server can still take."""
        if set(self.reasons) - self._lacking:
            reasons = "; ".join(f"{WHAT_FAILED[kind]}: {reason}" for kind, reason in self.reasons.items())
            raise TrackerAway(f"{reasons}; nothing is lost: repeat this command when MLflow answers")
