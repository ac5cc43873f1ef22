"""The steps of one experiment as Prefect tasks: intervene, train, evaluate, record.

The trajectory passes between them in memory; Prefect never stores it and caches nothing. The run's folder is the
truth, and a run that starts again continues from it.
"""

import functools
import logging
import threading
from collections.abc import Callable
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE

from dash_core.evaluation import Evaluation
from dash_core.records import ChunkRecord
from dash_core.run_state import Intervened
from dash_core.trajectory import Trained, Trajectory
from tasks.store.progress import ProgressWriter

WAITING_SECONDS = 30.0  # for Prefect to start a task, before a warning says what it may be waiting for
LOGGER = logging.getLogger("dash_core.tasks")  # the science's warnings are printed, and logged with the run

_timer: threading.Timer | None = None  # warns that the task which was called last has not begun


def step(name: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return a decorator that makes a Prefect task of a function; a warning says if Prefect does not start it soon.

    No retries, whatever Prefect's settings say: a stop is not a failure, and a failure leaves half-trained weights. The
    tag is ours alone, because a team's server may limit how many tasks with a tag run at once.
    """

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def begun(*arguments: Any, **options: Any) -> Any:
            if _timer is not None:
                _timer.cancel()
            return function(*arguments, **options)

        made = task(
            begun,
            task_run_name=f"experiment {{experiment}} · {name}",
            tags=[f"dashpipe-{name}"],
            cache_policy=NO_CACHE,
            persist_result=False,
            retries=0,
        )

        @functools.wraps(function)
        def call(*arguments: Any, **options: Any) -> Any:
            global _timer
            _timer = threading.Timer(WAITING_SECONDS, _warn, [name])
            _timer.daemon = True
            _timer.start()
            try:
                return made(*arguments, **options)
            finally:
                _timer.cancel()

        call.plain = function  # the function itself, for a process that reaches no Prefect server
        return call

    return decorate


def _warn(name: str) -> None:
    LOGGER.warning(
        "a run waits: Prefect has not started its task %s in %.0f s. The server may not answer, or a concurrency limit "
        "on one of its tags is full (`prefect concurrency-limit ls` and `prefect gcl ls` list the limits)",
        name,
        WAITING_SECONDS,
    )


@step("intervene")
def intervene(trajectory: Trajectory, experiment: int) -> Intervened:
    """Change the learner before it trains on a new chunk."""
    return trajectory.intervene(experiment)


@step("train")
def train(trajectory: Trajectory, experiment: int, intervened: Intervened) -> Trained:
    """Train on the experiment's chunks, until its stop rule or its number of epochs is reached."""
    return trajectory.train(experiment, intervened)


@step("evaluate")
def evaluate(trajectory: Trajectory, experiment: int) -> Evaluation:
    """Measure the learner on the test set."""
    return trajectory.evaluate(experiment)


@step("record")
def record(
    trajectory: Trajectory, experiment: int, trained: Trained, evaluation: Evaluation, progress: ProgressWriter
) -> ChunkRecord:
    """Write the experiment's record to disk, then update the run's progress file."""
    chunk_record = trajectory.record(experiment, trained, evaluation)
    progress.after_experiment(chunk_record)
    return chunk_record
