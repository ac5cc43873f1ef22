"""What executors of all clusters share: the preflight, the place of their runs, and how a call ends."""

import os
import sys
import threading
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from typing import Any, Self
from urllib.parse import urlsplit

from dash_core.errors import ConfigError
from flows.services.clusters.node import Answer, Question, fault_of, question_of
from flows.services.clusters.remote import Call, Outcome
from flows.services.environment import LOOPBACK
from flows.services.executor import RANKS_SAVING_SECONDS, Stopped
from flows.services.notices import notices_of_command
from flows.services.prefect_settings import API_URL
from tasks.store.place import Crew, Place

GPU_SHARE = 0.25  # of a GPU for a run, unless compare.cluster.gpus says otherwise; our choice, as RUNS_PER_GPU
SAVING_SECONDS = 15.0  # for runs on other machines to save their states after they are asked to stop


class Cluster(ABC):
    """An `Executor` whose workers are on other machines. When its block begins, the machines are examined.

    A run's process that is lost is reported as WorkerDied; the caller decides whether the run is submitted again.
    """

    def __init__(self, place: Place, crew: Crew) -> None:
        self.settings = place.cluster
        self.place = place
        self.crew = crew
        self.slots: int | None = None  # runs at once that the cluster has room for; None: unknown
        self.gpus = 0.0  # a run, known when the block has begun
        self._question: Question | None = None
        self._notices = notices_of_command()
        self._closed = threading.Event()
        self._stack = ExitStack()
        self._limit = threading.BoundedSemaphore(crew.workers)

    @property
    def cpus(self) -> int:
        """Cores of a run."""
        return self.crew.threads * self.place.gpus_per_run if self.settings.cpus == "auto" else self.settings.cpus

    @property
    def saving_seconds(self) -> float:
        """How long a stop waits for the runs under way to save their states."""
        return SAVING_SECONDS if self.place.gpus_per_run == 1 else RANKS_SAVING_SECONDS

    def gpus_asked(self, share: float) -> float:
        """Return the GPUs of a run: those that it is divided over, or what the settings say, or else `share`."""
        asked, divided = self.settings.gpus, self.place.gpus_per_run
        if divided == 1 or self.place.device == "cpu":
            return share if asked == "auto" else asked
        if asked not in ("auto", divided):
            raise ConfigError(
                f"compare.cluster.gpus: {asked:g}, but compare.gpus_per_run divides a run over {divided}: set "
                "compare.cluster.gpus=auto"
            )
        return float(divided)

    def fit(self, place: Place) -> Place:
        """Return the place as this cluster's runs get it: device, precision and neighbours the same on all machines."""
        update = {name: getattr(self.place, name) for name in ("device", "bf16", "orchestrated", "neighbours")}
        workers = min(self.slots or self.crew.workers, self.crew.workers)
        return place.model_copy(update={**update, "workers": max(workers, 1)})

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Return function(*arguments), computed on some machine, or raise its error; wait while none is free."""
        with self._limit:
            self._check_open()
            outcome = self._do(Call.of(function, arguments, self.crew.threads, self._question), arguments)
        for warning in outcome.warnings:
            with suppress(OSError):  # a terminal that is gone
                self._notices.say(warning)
        if outcome.error is not None:
            raise outcome.error
        return outcome.value

    def terminate(self) -> None:
        """Ask the runs under way to save their states and stop; end those that do not. No other run starts."""
        if not self._closed.is_set():
            self._closed.set()
            self._stop()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.callback(self._disconnect)
            self._connect()
            api = os.environ.get(API_URL)
            reachable = api if api and urlsplit(api).hostname not in (*LOOPBACK, "::1") else None
            device = self._device()
            question = stack.enter_context(question_of(self.place.locks, device, reachable))
            answers = self._survey(question) if self.settings.preflight else []
            self._question = question if self.settings.preflight else None
            self.place = self.place.model_copy(update=self._agreed(device, question, answers))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, *details: object) -> None:
        if kind is not None:
            self.terminate()
        self._closed.set()
        self._stack.close()

    def _check_open(self) -> None:
        if self._closed.is_set():
            raise Stopped("the comparison was stopped before this run began")

    def _device(self) -> str:
        """Return the device of all runs: GPUs if each run is given some."""
        asked = self.place.device
        if asked.startswith("cuda:"):
            raise ConfigError(
                f"compare.device: {asked} names a GPU of one machine, and a cluster gives each run its GPUs: set "
                "compare.device=cuda"
            )
        if asked == "cuda" and not self.gpus:
            raise ConfigError(
                f"compare.device: {asked}, and compare.cluster.gpus gives a run none: set compare.cluster.gpus, for "
                "example to 1"
            )
        return ("cuda" if self.gpus else "cpu") if asked == "auto" else asked

    def _agreed(self, device: str, question: Question, answers: Sequence[Answer]) -> dict[str, Any]:
        """Return what all machines agree on, as an update of the place; ConfigError names one that cannot train."""
        if faults := [fault for answer in answers if (fault := fault_of(question, answer))]:
            raise ConfigError("\n".join(dict.fromkeys(faults)))
        kinds = Counter(answer.device_name for answer in answers)
        if len(kinds) > 1:
            listing = ", ".join(f"{name} ({count})" for name, count in kinds.most_common())
            say(
                f"warning: the machines differ: {listing}. Rounding differs between them, so a run's bits depend on "
                "where it is trained, and precision: auto means exact arithmetic unless all have bf16"
            )
        unreaching = sorted({answer.host for answer in answers if not answer.api_answers})
        if question.api and unreaching:
            hosts = ", ".join(unreaching)
            say(f"warning: {hosts} cannot reach your Prefect server: each run is shown there as one task")
        return {
            "device": device,
            "bf16": all(answer.bf16 for answer in answers) if answers else None,
            "orchestrated": bool(answers) and all(answer.api_answers for answer in answers),
            "neighbours": self._neighbours(),
        }

    def _neighbours(self) -> int | None:
        """Return how many runs share a device: the GPU, or the machine's memory."""
        return max(1, int(1 / self.gpus)) if 0 < self.gpus < 1 else 1 if self.gpus else None

    @abstractmethod
    def _connect(self) -> None:
        """Reach the cluster, and find slots and the GPUs of a run; ConfigError says why it cannot be reached."""

    @abstractmethod
    def _disconnect(self) -> None:
        """Let the cluster go; also called where it could not be reached."""

    @abstractmethod
    def _survey(self, question: Question) -> list[Answer]:
        """Return the answer of each machine that is there; of one, if only the engine knows the others."""

    @abstractmethod
    def _do(self, call: Call, arguments: tuple) -> Outcome:
        """Do a call on some machine; WorkerDied, Ended or Stopped if there is no outcome."""

    @abstractmethod
    def _stop(self) -> None:
        """End all calls, those under way politely."""


def say(line: str) -> None:
    """Print a line on standard error, unless the terminal is gone."""
    with suppress(OSError):
        print(line, file=sys.stderr, flush=True)
