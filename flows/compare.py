"""The flows of a comparison and of one of its methods: the runs in parallel processes, then the tables."""

import contextvars
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import cloudpickle
from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.context import serialize_context

from dash_core.comparison import Params
from dash_core.config import RunConfig
from dash_core.data import ChunkPlan, Dataset
from dash_core.errors import DashError, StopRequested
from dash_core.models.pretrained import InitialModel
from dash_core.rehearsal import rehearse
from dash_core.result import kept_weights_file
from flows.experiment import train_run_in_worker
from flows.services.announce import warned_failures
from flows.services.clusters import open_cluster
from flows.services.clusters.cluster import Cluster
from flows.services.executor import Ended, Executor, Stopped, WorkerDied, open_executor
from flows.services.prefect_health import crash_flow_run
from flows.split import split_dataset
from tasks.publish import publish
from tasks.store.attempts import Attempt, saved_steps
from tasks.store.evidence import Evidence, gather
from tasks.store.locks import Busy
from tasks.store.place import Crew, Place
from tasks.store.progress import mark_progress
from tasks.store.results import describe
from tasks.store.runs import forget, is_complete
from tasks.tracking.follower import Follower
from tasks.tracking.mirror import Mirror
from tasks.tracking.publication import Published

RETRY_SECONDS = 1.0  # between two attempts at a run that another command trains
CLUSTER_RETRY_SECONDS = 30.0  # the same, where each attempt takes a place in the queue of a cluster
FUTILE_ATTEMPTS = 2  # at a run whose process is lost each time, without a new saved state; then the run fails
MOST_CALLERS = 256  # threads that wait for runs: more runs than that wait for one of these


class Deadline:
    """A moment at which training stops, so many seconds from now."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    @property
    def seconds_left(self) -> float:
        """Seconds until then, at least 0."""
        return max(self._end - time.monotonic(), 0.0)

    @property
    def passed(self) -> bool:
        """Whether it is over."""
        return self.seconds_left == 0


class ComparisonFailed(DashError):
    """Some runs of a comparison failed; the others are complete."""

    def __init__(self, message: str, published: Published | None = None) -> None:
        super().__init__(message)
        self.published = published


@flow(name="compare-methods", flow_run_name="{params.name}", persist_result=False, retries=0)
def compare_methods(params: Params, place: Place, command: str, again: bool = False) -> Published:
    """Train every method and seed of a comparison, side by side, and publish its table.

    command: the command line that repeats the comparison. again: whether complete runs are trained again. A run that
    fails does not stop the others: the table shows the complete runs, and ComparisonFailed says which failed and why.
    """
    compared = compare(params, place, command, again)
    compared.raise_failures()
    return compared.published


def compare(params: Params, place: Place, command: str, again: bool = False) -> "Compared":
    """Train every method and seed within the calling flow, and publish the complete runs.

    command: the command line that repeats the comparison. ComparisonFailed if another command removes runs meanwhile.
    """
    trained = _train(params, params.runs(), place, again)
    splits = {seed: plan.digest for seed, plan in trained.plans.items()}
    with trained.mirror.closed_on_error():
        evidence = gather(params, place, splits, describe(trained.dataset))
        present = {run.id for run in evidence.runs}
        if removed := [run.id for run in params.runs() if run.id not in present and run.id not in trained.failures]:
            raise ComparisonFailed(
                f"{len(removed)} of {trained.run_count} runs were removed by another command ({', '.join(removed)}); "
                "repeat this command"
            )
        published = publish(evidence, place, trained.mirror, command, failed=bool(trained.failures))
    return Compared(evidence, published, trained.run_count, trained.failures)


@flow(name="train-method", flow_run_name="train {params.dataset.name} · {label}", persist_result=False, retries=0)
def train_method(params: Params, label: str, place: Place) -> None:
    """Train every seed of one method of a comparison; ComparisonFailed says which failed and why."""
    trained = _train(params, [params.run(label, seed) for seed in params.seeds], place)
    trained.mirror.close("FAILED" if trained.failures else "FINISHED")
    _raise_failures(trained.run_count, trained.failures)


@dataclass(frozen=True)
class Compared:
    """A finished comparison: its complete runs, their publication, the number of all runs, and failures by run id."""

    evidence: Evidence
    published: Published
    run_count: int
    failures: Mapping[str, str]

    def raise_failures(self) -> None:
        """Raise ComparisonFailed, which says which runs failed and why, if any did."""
        _raise_failures(self.run_count, self.failures, self.published)


def _raise_failures(run_count: int, failures: Mapping[str, str], published: Published | None = None) -> None:
    if failures:
        listing = "\n".join(f"  {run_id}: {reason}" for run_id, reason in failures.items())
        raise ComparisonFailed(f"{len(failures)} of {run_count} runs failed:\n{listing}", published)


@dataclass(frozen=True)
class _TrainedRuns:
    """The runs after training: data, chunk plans by seed, mirror in MLflow, number, and why some failed, by run id."""

    dataset: Dataset
    plans: Mapping[int, ChunkPlan]
    mirror: Mirror
    run_count: int
    failures: Mapping[str, str]


def _train(params: Params, runs: Sequence[RunConfig], place: Place, again: bool = False) -> _TrainedRuns:
    dataset, plans = split_dataset(params, place)
    splits = {seed: plan.digest for seed, plan in plans.items()}
    shape, classes = dataset.train.image_shape, dataset.train.classes
    InitialModel(params.model, shape, classes).check()  # an error here, before any worker starts
    for run in runs:
        rehearse(run, dataset)
    complete = [run for run in runs if not again and is_complete(run, place, splits[run.seed], place.given_code)]
    mirror = Mirror(params, place, lambda: dataset, warned_failures())
    stale = [run for run in runs if again or (run not in complete and is_complete(run, place))]
    if stale and not again:
        print(
            f"{len(stale)} complete runs were trained on other data or by other code, and are trained again; what they "
            f"had is kept in {place.store / 'replaced'} until the new ones are complete",
            file=sys.stderr,
        )
    for run in stale:
        forget(run, place)
        mirror.forget(run)
    without = [run for run in complete if not _has_kept_weights(run, place)]
    if without:
        print(
            f"{len(without)} complete runs were trained without compare.keep_weights={list(place.keep_weights)}, and "
            "have no such weights; --again trains them again",
            file=sys.stderr,
        )
    pending = in_turn([run for run in runs if run not in complete])
    crew = Crew.of(params, len(pending))
    with Follower(mirror, runs):
        place = place.model_copy(update={"workers": crew.workers, "splits_made": True})
        failures = train_runs(pending, place, crew)
    return _TrainedRuns(dataset, plans, mirror, len(runs), failures)


def _has_kept_weights(run: RunConfig, place: Place) -> bool:
    return all(kept_weights_file(place.run_folder(run), number).exists() for number in place.keep_weights)


def in_turn(runs: Sequence[RunConfig]) -> list[RunConfig]:
    """Return the runs in an order in which each seed begins once before any begins twice.

    The methods of one seed share their first experiments: the run that comes first trains them for all.
    """
    begun = Counter()
    turns = {}
    for run in runs:
        turns[run.id] = begun[run.seed]
        begun[run.seed] += 1
    return sorted(runs, key=lambda run: turns[run.id])


def train_runs(
    pending: Sequence[RunConfig], place: Place, crew: Crew, deadline: Deadline | None = None
) -> dict[str, str]:
    """Have worker processes train the runs, each a subflow of this one; return why runs failed, by id.

    Where workers do not reach Prefect's server, each run is a task of this flow instead.
    Runs start in the given order. At the deadline those under way save their state and stop, and no other starts: such
    runs have not failed.
    """
    context = cloudpickle.dumps(serialize_context())
    failures: dict[str, str] = {}
    with _executor_of(place, crew, len(pending)) as executor:
        place = executor.fit(place) if place.executor != "local" and pending else place

        def train_in_worker(run: RunConfig) -> None:
            try:
                _train_to_the_end(executor, run, place, context)
            except DashError as error:
                if isinstance(error, WorkerDied) and is_complete(run, place):  # it died after its last word was written
                    mark_progress(place.run_folder(run), "done")
                    return
                if not (deadline and deadline.passed and isinstance(error, Stopped | StopRequested)):
                    failures[run.id] = str(error)
                if isinstance(error, WorkerDied):
                    _crash_subflow(run, place, str(error))
                    mark_progress(place.run_folder(run), "failed", str(error))
                elif isinstance(error, Ended):
                    mark_progress(place.run_folder(run), "stopped")

        with (
            _terminated_at(deadline, executor),
            ThreadPoolExecutor(_callers(pending, crew)) as threads,  # they only wait: the executor limits runs at once
        ):
            try:
                list(threads.map(lambda run, flow: flow.run(train_in_worker, run), pending, _contexts(pending)))
            except BaseException:
                executor.terminate()
                raise
    return failures


@contextmanager
def _terminated_at(deadline: Deadline | None, executor: Executor) -> Iterator[None]:
    """Have the executor's runs save their state and stop at the deadline, if it passes within the block."""
    if deadline is None:
        yield
        return
    timer = threading.Timer(deadline.seconds_left, executor.terminate)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _executor_of(place: Place, crew: Crew, runs: int) -> Executor:
    """Return the executor that a place names, for some runs; for none a local one without a worker."""
    if place.executor == "local" or not runs:
        return open_executor(crew.workers if runs else 0, crew.threads, place.device, place.gpus_per_run)
    return open_cluster(place, crew)


def _callers(pending: Sequence[RunConfig], crew: Crew) -> int:
    return max(1, min(len(pending), max(MOST_CALLERS, crew.workers if crew.workers < len(pending) else 0)))


def _contexts(pending: Sequence[RunConfig]) -> Iterator[contextvars.Context]:
    """Yield a copy of this flow's context for each run: a thread begins without one."""
    for _ in pending:
        yield contextvars.copy_context()


def _train_to_the_end(executor: Executor, run: RunConfig, place: Place, context: bytes) -> None:
    """Have workers train one run: on a cluster in as many processes as it takes, while the run makes progress."""
    if not place.orchestrated:
        return _as_task(run, lambda: _train_again_when_lost(executor, run, place, context))
    return _train_again_when_lost(executor, run, place, context)


def _as_task(run: RunConfig, train: Callable[[], None]) -> None:
    """Show the training of a run as a task of this flow."""
    name = f"{run.dataset.name} · {run.model.name} · {run.method.label} · seed {run.seed}"
    shown = task(train, name="train-run", task_run_name=name, cache_policy=NO_CACHE, persist_result=False, retries=0)
    shown()


def _train_again_when_lost(executor: Executor, run: RunConfig, place: Place, context: bytes) -> None:
    """Have a worker train one run, and another go on if it is lost, while states are saved (FUTILE_ATTEMPTS)."""
    folder = place.run_folder(run)
    saved, futile = saved_steps(folder) if place.executor != "local" else 0, 0
    while True:
        try:
            return _train_when_free(executor, train_run_in_worker, run, place, context)
        except WorkerDied as died:
            if place.executor == "local" or is_complete(run, place):
                raise
            before, saved = saved, saved_steps(folder)
            futile = 0 if saved > before else futile + 1
            lost = Attempt.of(folder)
            where = lost.where if lost else "before it began"
            if futile >= FUTILE_ATTEMPTS:
                raise WorkerDied(
                    f"{died} ({where}), and no state was saved in {futile} attempts: give a run more memory with "
                    "compare.cluster.memory_gib, or save more often with compare.checkpoint_seconds"
                ) from None
            _crash_subflow(run, place, str(died))
            print(f"{run.id}: lost {where}: {died}; it goes on from step {saved}", file=sys.stderr, flush=True)


def _crash_subflow(run: RunConfig, place: Place, reason: str) -> None:
    """Show a run that died in Prefect as crashed: its own process could not."""
    attempt = Attempt.of(place.run_folder(run))
    if attempt and attempt.flow_run:
        crash_flow_run(attempt.flow_run, reason)


def _train_when_free(executor: Executor, *work: Any) -> None:
    """Have a worker train one run. While another command trains it, print that once, and try again until it is free."""
    announced = False
    while True:
        try:
            return executor.call(*work)
        except Busy as busy:
            if not announced:
                print(busy, file=sys.stderr)
            announced = True
            time.sleep(CLUSTER_RETRY_SECONDS if isinstance(executor, Cluster) else RETRY_SECONDS)
