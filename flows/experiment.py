"""The flow of one run: for each experiment intervene, train, evaluate, record."""

import contextlib
import logging
import pickle
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path

import cloudpickle
from prefect import flow, tags
from prefect.context import hydrated_context, serialize_context
from prefect.runtime import flow_run

from dash_core.config import RunConfig
from dash_core.errors import DashError, StopRequested, public_address, without_password
from dash_core.files import naming, remove_unfinished, write_atomically
from dash_core.parallel import joined
from dash_core.parts import PartError, use_project
from dash_core.result import read_result
from dash_core.trajectory import Steps, Trajectory
from flows.services.executor import WorkerDied
from flows.services.prefect_health import lost_server_error, quieten, wait_for_api
from flows.services.prefect_server import send_everything
from flows.services.ranks import RankFailed, run_ranks
from tasks.steps import evaluate, intervene, record, train
from tasks.store.attempts import Attempt, Superseded, taken_over
from tasks.store.beginnings import Beginnings
from tasks.store.datasets import open_dataset, open_plan
from tasks.store.locks import locked_run
from tasks.store.place import Place
from tasks.store.progress import ProgressWriter, State, mark_progress
from tasks.store.remote_copy import after_state, remote_copy
from tasks.store.runs import facts, keep_replaced, open_trajectory, remove_facts, remove_replaced, write_facts
from tasks.store.stopping import heeding

logger = logging.getLogger("dash_core.flows")  # the science's warnings are printed
TRACEBACK_FILE = "error.txt"
RUN_NAME = "{run.dataset.name} · {run.model.name} · {run.method.label} · seed {run.seed}"


class RunFailed(DashError):
    """A run stopped with an error that is not the user's fault; its traceback is in the run's folder."""


@flow(name="run-experiment", flow_run_name=RUN_NAME, persist_result=False, retries=0)
def run_experiment(run: RunConfig, place: Place) -> None:
    """Train one method and seed over all experiments, from where it stopped; check a complete run's weights.

    The run's folder says how far it is; the display and MLflow's mirror read it there.
    """
    dataset = open_dataset(run.dataset, place)
    plan = open_plan(run, dataset, place)
    folder = place.run_folder(run)
    copy = remote_copy(place.mirror, folder)
    if copy and (taken := copy.take_up()):
        logger.warning("run %s takes up %s from %s", run.id, taken, public_address(place.mirror))
    pending = read_result(folder, run, plan.digest, place.given_code) is None
    if joined().first_says(pending):
        keep_replaced(run, place)  # a result on other data or by other code, until the new one is complete
        measured_on = facts(place)
        write_facts(folder, plan.digest, measured_on)
        beginnings = Beginnings(run, place, measured_on)
        attempt = Attempt.begin(folder, flow_run.id)
        trajectory, progress = open_trajectory(
            run, dataset, plan, place, beginnings.find, attempt.check, after_state(copy)
        )

        def keep(trajectory: Trajectory) -> None:
            beginnings.keep(trajectory)
            if copy:
                copy.put_records()

        train_experiments(trajectory, progress, keep, place.orchestrated)
        attempt.check()
        mark_progress(folder, "saving")
        remove_facts(folder)
        trajectory.finish(measured_on)
        attempt.end()
        remove_replaced(run, place)
        beginnings.keep_result(trajectory)
    if copy:
        copy.put_result()
    mark_progress(folder, "done")


def train_experiments(
    trajectory: Trajectory,
    progress: ProgressWriter,
    keep: Callable[[Trajectory], None] = lambda trajectory: None,
    orchestrated: bool = True,
) -> None:
    """Take a run through its pending experiments, each of the four steps a task; a signal stops it between steps.

    keep: called after each experiment, when its state is on the disk. orchestrated: False calls the steps' functions,
    where no Prefect server can be reached.
    """
    verbs = (intervene, train, evaluate, record)
    *others, recording = verbs if orchestrated else [verb.plain for verb in verbs]
    steps = Steps(*others, partial(recording, progress=progress))
    with heeding():
        while trajectory.pending:
            trajectory.advance(steps)
            keep(trajectory)


def tags_of(run: RunConfig) -> list[str]:
    """Return a run's tags in Prefect. They are ours alone: a server may limit how many tasks with a tag run at once."""
    return [f"dashpipe-{word}" for word in (run.method.label, run.dataset.name, run.model.name, f"seed-{run.seed}")]


def train_run(run: RunConfig, place: Place, wait: bool = True) -> None:
    """Train one run in this process. Every error is raised as a DashError, which can be sent to another process.

    If another process trains it, wait for that process or, without `wait`, raise Busy. Where a run has several GPUs,
    processes of its own train it, and this one waits for them.
    """
    if place.gpus_per_run > 1 and joined().size == 1:
        _train_in_ranks(run, place, wait)
        return
    with locked_run(run, place, wait=wait):
        folder = place.run_folder(run)
        remove_unfinished(folder)
        before = Attempt.of(folder)
        try:
            with tags(*tags_of(run)), naming():
                (run_experiment if place.orchestrated else run_experiment.fn)(run, place)
        except Superseded:  # the folder belongs to another attempt, which says how the run goes on
            raise
        except DashError as error:
            if taken_over(folder, before):
                raise
            details = without_password(error.details) if isinstance(error, PartError) else None
            _record_end(folder, "stopped" if isinstance(error, StopRequested) else "failed", error, details)
            raise
        except Exception as error:
            if taken_over(folder, before):
                raise RunFailed(f"{type(error).__name__}: {without_password(str(error))}") from None
            _record_end(folder, "failed", error, without_password(traceback.format_exc()))
            if lost := lost_server_error():
                raise lost from None
            reason = f"{type(error).__name__}: {without_password(str(error))}"
            raise RunFailed(f"{reason} (the traceback is in {folder / TRACEBACK_FILE})") from None


def _train_in_ranks(run: RunConfig, place: Place, wait: bool) -> None:
    """Have several processes train a run, the first of them as a child of the present flow, if there is one."""
    with locked_run(run, place, wait=wait):
        pass  # the first of them holds the lock, so that it is free as soon as nobody writes
    context = cloudpickle.dumps(serialize_context()) if place.orchestrated else b""
    job = pickle.dumps((run, place, context))
    try:
        run_ranks(job, place.gpus_per_run, place.threads)
    except WorkerDied as error:
        _record_end(place.run_folder(run), "failed", error)
        raise
    except (RankFailed, PartError) as error:
        if error.details:
            _record_end(place.run_folder(run), "failed", error, without_password(error.details))
        raise


def train_alongside(run: RunConfig, place: Place) -> None:
    """Train a run beside rank 0, which does the same as a flow and writes the files."""
    dataset = open_dataset(run.dataset, place)
    plan = open_plan(run, dataset, place)
    if not joined().first_says(False):
        return
    trajectory, _ = open_trajectory(run, dataset, plan, place, lambda course: None)
    with heeding():
        while trajectory.pending:
            trajectory.advance()


def _record_end(folder: Path, state: State, error: Exception, details: str | None = None) -> None:
    """Write to the run's folder how the run ended, unless the disk itself fails."""
    with contextlib.suppress(OSError):
        mark_progress(folder, state, without_password(str(error)) if state == "failed" else None)
        if details:
            write_atomically(folder / TRACEBACK_FILE, details.encode())


def read_traceback(folder: Path) -> str:
    """Return the traceback of a run that failed, kept in its folder; nothing if there is none."""
    with contextlib.suppress(OSError):
        return (folder / TRACEBACK_FILE).read_text(errors="replace")
    return ""


def train_run_in_worker(run: RunConfig, place: Place, context: bytes) -> None:
    """Train one run in this worker process, as a child of the flow whose serialised context is given.

    Where Prefect's server cannot be reached (`Place.orchestrated`), the context is not used.

    Raise Busy if another process trains it, so that this worker is free for another run.
    """
    use_project(place.project)
    if not place.orchestrated:
        train_run(run, place, wait=False)
        return
    quieten()
    wait_for_api()
    try:
        with hydrated_context(cloudpickle.loads(context)):
            train_run(run, place, wait=False)
    finally:
        send_everything()
