"""Tracking beside the training: what runs have to tell MLflow waits in a queue, and one thread of a command tells it.

So no run waits for MLflow, and no worker process imports it, which takes seconds. What is still in the queue when the
command is killed is lost to MLflow only: the next command completes it from the records on disk.
"""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any, Literal, Self

from dash_core.comparison import Params
from dash_core.config import RunConfig
from dash_core.data import Dataset
from dash_core.errors import DashError
from dash_core.records import ChunkRecord, milliseconds
from tasks.data import open_dataset
from tasks.store.locks import locked_run
from tasks.store.place import Place
from tasks.store.runs import commit, final_model, input_example, is_complete
from tasks.tracking import client as tracking
from tasks.tracking.outage import Breaker
from tasks.tracking.run_tracker import RunTracker, Tracked, track_comparison

PATIENCE = 10.0  # seconds that a command which was stopped goes on telling
Event = Literal["begin", "log_chunk", "log_chunks", "finish", "stop", "fail", "lose"]


@dataclass(frozen=True)
class Report:
    """What happened to a run, as plain data: it travels from the process that trains to the one that tracks."""

    run: RunConfig
    event: Event
    details: tuple[Any, ...] = ()


@dataclass(frozen=True)
class RunReporter:
    """Reports of one run: each call returns at once, MLflow hears of it later, in the order of the calls."""

    run: RunConfig
    send: Callable[[Report], None]

    def begin(self, split: str, facts: dict[str, Any]) -> None:
        """Open the run: it is made on the chunk plan of this digest, by the hardware and code that the facts tell."""
        self.send(Report(self.run, "begin", (split, facts, milliseconds())))

    def log_chunk(self, records: Sequence[ChunkRecord]) -> None:
        """Log the last of the run's records, with totals over all of them."""
        self.send(Report(self.run, "log_chunk", (list(records),)))

    def log_chunks(self, records: Sequence[ChunkRecord]) -> None:
        """Log every one of the run's records; what is known already stays as it is."""
        self.send(Report(self.run, "log_chunks", (list(records),)))

    def finish(self) -> None:
        """Log the final model and the files of a run that is complete on disk, and close it."""
        self.send(Report(self.run, "finish"))

    def stop(self) -> None:
        """Close the run as stopped on request."""
        self.send(Report(self.run, "stop"))

    def fail(self, reason: str) -> None:
        """Close the run as failed."""
        self.send(Report(self.run, "fail", (reason,)))

    def lose(self, status: Literal["FAILED", "KILLED"], reason: str | None) -> None:
        """Close the run whose process ended without a word; what it had sent and is still to come is not heeded."""
        self.send(Report(self.run, "lose", (status, reason)))


class TrackingQueue:
    """A thread that opens a comparison in MLflow and then tells it each report, in their order.

    Nothing is opened, nor MLflow imported, before the first report or a look at `tracked`: until then other imports
    are more urgent. Whatever fails turns tracking off, and nothing else. Leaving the block waits until everything is
    told; after an exception only until the runs are closed, and no longer than PATIENCE.
    """

    def __init__(self, params: Params, place: Place, breaker: Breaker) -> None:
        """ConfigError if the address of MLflow is none; no server is asked before the block is entered."""
        self._uri = tracking.tracking_uri(place.store)
        tracking.check_uri(self._uri)
        self._params, self._place, self._breaker = params, place, breaker
        self._reports: SimpleQueue[Report | None] = SimpleQueue()  # None: no more will come
        self._wanted = threading.Event()
        self._opened: Future[Tracked] = Future()
        self._trackers: dict[str, RunTracker] = {}
        self._lost: set[str] = set()
        self._dataset: Dataset | None = None  # of the comparison, opened for the first model
        self._leaving = False
        self._thread = threading.Thread(target=self._work, name="tracking", daemon=True)

    @property
    def tracked(self) -> Tracked:
        """Where the runs are tracked; waits until the comparison is open there."""
        self._wanted.set()
        return self._opened.result()

    def put(self, report: Report) -> None:
        """Have a report told."""
        self._reports.put(report)
        self._wanted.set()

    def drain(self, patience: float | None = None) -> None:
        """Wait until everything is told, or so many seconds; nothing can be reported any more."""
        self._reports.put(None)
        self._wanted.set()
        self._thread.join(patience)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *details: object) -> None:
        if kind is None:
            self.drain()
        elif self._wanted.is_set():
            self._leaving = True
            self.drain(PATIENCE)

    def _work(self) -> None:
        self._wanted.wait()
        self._opened.set_result(self._open())
        while report := self._reports.get():
            try:
                self._breaker.attempt(self._tell, self._opened.result(), report)
            except DashError as error:
                self._breaker.trip(error)

    def _open(self) -> Tracked:
        try:
            return track_comparison(self._params, self._place, commit(), self._breaker)
        except Exception as error:  # its lock or its folder
            self._breaker.trip(error)
            return Tracked(self._uri, None, self._breaker)

    def _tell(self, tracked: Tracked, report: Report) -> None:
        run, details = report.run, report.details
        if run.id in self._lost:
            return
        match report.event:
            case "begin":
                self._trackers[run.id] = RunTracker(tracked, run, *details)
            case "lose":
                self._lost.add(run.id)
                status, reason = details
                tracked.tell(tracking.close_lost_run, tracked.comparison, key=run.id, status=status, reason=reason)
            case "finish":
                self._finish(run, self._trackers.pop(run.id))
            case event:
                getattr(self._trackers[run.id], event)(*details)

    def _finish(self, run: RunConfig, tracker: RunTracker) -> None:
        """Log a run's model and files, unless another command has begun to train it again."""
        if self._leaving:
            return
        with locked_run(run, self._place):
            if not is_complete(run, self._place):
                return
            self._dataset = self._dataset or open_dataset(run.dataset, self._place)
            model, example = final_model(run, self._dataset, self._place), input_example(run, self._dataset)
            tracker.finish(self._place, run, model, example)
