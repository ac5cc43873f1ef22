"""The thread of a command that brings MLflow up to date with its runs' folders while the runs train.

So no run waits for MLflow, and no process that trains imports it, which takes seconds. What is not yet in MLflow when
the command is killed is still on disk: the next command brings it there.
"""

import threading
import time
from collections.abc import Sequence
from typing import Self

from dash_core.config import RunConfig
from tasks.store.progress import Progress, read_progress
from tasks.tracking.mirror import Mirror, status_of

QUIET_SECONDS = 10.0  # before MLflow is opened, unless a record exists: its import would slow the first steps down
POLL_SECONDS = 1.0  # between two readings of the runs' folders
PATIENCE_SECONDS = 10.0  # how long a stopped command waits for MLflow


class Follower:
    """Follows the runs within a block. The end of the block waits until MLflow shows everything on disk.

    After an exception, also one that ends this wait, it waits only until the runs and the comparison's own run are
    closed, at most PATIENCE_SECONDS. It does not open MLflow if no run has made progress.
    """

    def __init__(self, mirror: Mirror, runs: Sequence[RunConfig]) -> None:
        self._mirror, self._runs = mirror, runs
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="tracking", daemon=True)

    def __enter__(self) -> Self:
        self._before = self._progress()
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *details: object) -> None:
        try:
            self._end(kind)
        except BaseException as error:
            if kind is None:  # the block is complete, and only MLflow was waited for
                self._end(type(error))
            raise
        finally:
            if self._thread.is_alive():
                self._mirror.failures.fall_silent()

    def _end(self, kind: type[BaseException] | None) -> None:
        """Have the thread end, and wait for it: with patience if the block is left by an exception."""
        self._mirror.leaving = kind is not None
        self._status = status_of(kind) if kind else None
        self._stop.set()
        self._thread.join(PATIENCE_SECONDS if self._mirror.leaving else None)

    def _follow(self) -> None:
        started = time.monotonic()
        while not self._stop.wait(POLL_SECONDS):
            if self._mirror.opened or self._recorded() or time.monotonic() - started > QUIET_SECONDS:
                self._bring_all()
        if not self._mirror.leaving or self._mirror.opened or self._progress() != self._before:
            self._bring_all(last=True)
        if self._mirror.leaving and self._mirror.opened:
            self._mirror.close(self._status)

    def _bring_all(self, last: bool = False) -> None:
        for run in self._runs:
            if last or not self._stop.is_set():
                self._mirror.bring(run, wait=last)

    def _recorded(self) -> bool:
        return any(progress.finished for progress in self._progress())

    def _progress(self) -> list[Progress]:
        return [read_progress(self._mirror.folders.run_folder(run)) for run in self._runs]
