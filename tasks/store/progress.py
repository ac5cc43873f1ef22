"""A run's progress: a small file in its folder, written while it trains, read by every display."""

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

from dash_core.config import TrainingConfig
from dash_core.data import ChunkPlan
from dash_core.files import write_atomically
from dash_core.protocols import Experiment
from dash_core.records import ChunkRecord
from dash_core.training import EpochReport

PROGRESS_FILE = "progress.json"
CURVE = 5  # epochs over which the fall of the train error is measured
WRITE_SECONDS = 0.2  # at least, between two writes within an experiment

State = Literal["waiting", "training", "saving", "done", "failed", "stopped"]


@dataclass(frozen=True)
class Progress:
    """A run's progress at one moment. seconds_left: None while nothing shows how many epochs are left."""

    state: State = "waiting"
    finished: int = 0  # experiments that are recorded
    experiment: int = 0  # number of the experiment under way
    epoch: int = 0
    steps: int = 0  # of the whole run
    train_accuracy: float | None = None
    test_accuracy: float | None = None  # after the last finished experiment
    images_per_second: float | None = None
    seconds_left: float | None = None
    reason: str | None = None  # why the run failed


def read_progress(folder: Path) -> Progress:
    """Return a run's progress; a run whose file is missing or damaged is waiting."""
    try:
        return Progress(**json.loads((folder / PROGRESS_FILE).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, RecursionError):
        return Progress()


def write_progress(folder: Path, progress: Progress) -> None:
    """Replace the run's file. It is not synced to disk, since nobody needs it after a crash of the machine."""
    write_atomically(folder / PROGRESS_FILE, json.dumps(asdict(progress)).encode(), durable=False)


def mark_progress(folder: Path, state: State, reason: str | None = None) -> None:
    """Show that a run's training is over: it is being saved, is done, was stopped, or failed for this reason."""
    write_progress(folder, replace(read_progress(folder), state=state, seconds_left=None, reason=reason))


class ProgressWriter:
    """Keeps one run's file up to date; called after each epoch and each experiment."""

    def __init__(
        self,
        folder: Path,
        plan: ChunkPlan,
        schedule: Sequence[Experiment],
        training: TrainingConfig = TrainingConfig(),  # noqa: B008 - it is frozen
        before_write: Callable[[], None] = lambda: None,
    ) -> None:
        """before_write: called before each write; its error ends the run."""
        self._before_write = before_write
        self._folder = folder
        self._training = training
        until = None if training.stop == "validation" else training.stop_accuracy
        self._untils = [experiment.until or until for experiment in schedule]  # train accuracy that ends it
        self._curve: list[float] = []  # train accuracy of each epoch of the experiment under way
        # images and epochs of each experiment; None: to convergence
        self._work = [(plan.images(experiment), experiment.epochs) for experiment in schedule]
        self._now = Progress(state="training")
        self._steps_before = 0  # of the finished experiments
        self._epochs: int | None = None  # of the last finished experiment
        self._written = 0.0

    def resumed(self, records: list[ChunkRecord]) -> None:
        """Count the experiments that an earlier attempt finished."""
        for record in records:
            self._count(record)
        self._write()

    def after_epoch(self, report: EpochReport) -> None:
        """Show an epoch, at most every WRITE_SECONDS."""
        rate = report.images / max(report.seconds, 1e-9)
        smooth = self._now.images_per_second
        self._curve = [*(self._curve if report.epoch > 1 else []), report.train_accuracy]
        self._now = replace(
            self._now,
            experiment=report.experiment,
            epoch=report.epoch,
            steps=self._steps_before + report.steps,
            train_accuracy=report.train_accuracy,
            images_per_second=rate if smooth is None else 0.8 * smooth + 0.2 * rate,
        )
        if time.monotonic() - self._written >= WRITE_SECONDS:
            self._write()

    def after_experiment(self, record: ChunkRecord) -> None:
        """Show a finished experiment."""
        self._count(record)
        self._write()

    def _count(self, record: ChunkRecord) -> None:
        self._steps_before += record.steps
        self._epochs = record.epochs
        self._now = replace(
            self._now,
            finished=record.experiment,
            experiment=record.experiment,
            epoch=record.epochs,
            steps=self._steps_before,
            train_accuracy=record.train_accuracy,
            test_accuracy=record.test_accuracy,
        )

    def _write(self) -> None:
        self._written = time.monotonic()
        if not self._folder.is_dir():  # removed meanwhile: training says so when it saves, and makes no new one
            return
        self._before_write()
        write_progress(self._folder, replace(self._now, seconds_left=self._estimate()))

    def _estimate(self) -> float | None:
        """Return the seconds left, if each coming experiment takes the protocol's epochs, or those of the present one.

        The present one takes as many as the last. If it takes longer, its accuracy curve says how many are left.
        """
        if self._epochs is None or not self._now.images_per_second:
            return None
        experiment, epoch = self._now.experiment, self._now.epoch
        images, exact = self._work[experiment - 1]
        over = self._now.finished == experiment
        left = 0 if over else exact - epoch if exact else self._epochs - epoch
        if not over and not exact and left <= 0:
            left = self._left_by_curve()
        if left is None:
            return None
        coming = max(self._epochs, epoch + left)
        work = sum(size * (epochs or coming) for size, epochs in self._work[experiment:])
        return (left * images + work) / self._now.images_per_second

    def _left_by_curve(self) -> float | None:
        """Return the epochs until the train error is small enough, if it falls on as in the last CURVE epochs.

        The error is taken to fall by the same factor in each epoch. None if it does not fall, or if no accuracy ends
        the experiment.
        """
        until = self._untils[self._now.experiment - 1]
        if until is None or len(self._curve) < CURVE:
            return None
        smallest = 0.5 / self._work[self._now.experiment - 1][0]  # half an image
        first, last, target = (max(1 - accuracy, smallest) for accuracy in (*self._curve[-CURVE :: CURVE - 1], until))
        if not last < first:
            return None
        fall = math.log(first / last) / (CURVE - 1)
        left = max(math.ceil(math.log(last / target) / fall), 1)
        return min(left, max(self._training.max_epochs - self._now.epoch, 0))
