"""The flow of one run: chunk after chunk, intervene, train, evaluate, record."""

import contextlib
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path

import cloudpickle
from prefect import flow, tags
from prefect.context import hydrated_context

from dash_core.config import RunConfig
from dash_core.errors import DashError, StopRequested
from dash_core.files import naming, remove_unfinished, write_atomically
from dash_core.records import read_records
from dash_core.result import read_result
from dash_core.trajectory import Steps
from flows.services.prefect_health import gone, quieten, wait_for_api
from flows.services.prefect_server import send_everything
from flows.services.workers import tell_parent
from tasks.data import open_dataset, open_plan
from tasks.steps import evaluate, intervene, record, train
from tasks.store.locks import locked_run
from tasks.store.place import Place
from tasks.store.progress import State, mark_progress
from tasks.store.runs import check_weights, facts, open_trajectory, recorded_facts
from tasks.store.stopping import heeding
from tasks.tracking.tracking_queue import Report, RunReporter

RUN_NAME = "{run.dataset.name} · {run.model.name} · {run.method.label} · seed {run.seed}"


class RunFailed(DashError):
    """A run stopped with an error that is not the user's; its traceback lies in the run's folder."""


@flow(name="run-experiment", flow_run_name=RUN_NAME, persist_result=False, retries=0)
def run_experiment(run: RunConfig, place: Place, send: Callable[[Report], None]) -> None:
    """Train one method and seed over all chunks, from where it stopped; a complete run is only reported.

    send: takes the reports to the process that tracks them.
    """
    dataset = open_dataset(run.dataset, place)
    plan = open_plan(run, dataset, place)
    result = read_result(place.run_folder(run), run, plan.digest, place.given_code)
    known = recorded_facts(result) if result else facts(place)
    reporter = RunReporter(run, send)
    reporter.begin(plan.digest, known)
    try:
        if result:
            check_weights(place.run_folder(run), result)
            reporter.log_chunks(read_records(place.run_folder(run)))
        else:
            trajectory, progress = open_trajectory(run, dataset, plan, place)
            reporter.log_chunks(trajectory.records)  # a kill may have come between a record and its log
            steps = Steps(intervene, train, evaluate, partial(record, reporter=reporter, progress=progress))
            with heeding():
                while trajectory.pending:
                    trajectory.advance(steps)
            mark_progress(place.run_folder(run), "saving")
            trajectory.finish(known)
    except StopRequested:
        reporter.stop()
        raise
    except Exception as error:
        reporter.fail(str(error))
        raise
    mark_progress(place.run_folder(run), "done")


def train_run(run: RunConfig, place: Place, send: Callable[[Report], None], wait: bool = True) -> None:
    """Do one run in this process. What goes wrong is raised as a DashError, which travels between processes.

    No two processes do it at once: one waits for the other or, without `wait`, raises Busy.
    """
    with locked_run(run, place, wait=wait):
        _train_run(run, place, send)
    RunReporter(run, send).finish()  # whoever tracks it locks it again to read its files


def _train_run(run: RunConfig, place: Place, send: Callable[[Report], None]) -> None:
    folder = place.run_folder(run)
    remove_unfinished(folder)
    try:
        with tags(run.method.label, run.dataset.name, run.model.name, f"seed {run.seed}"), naming():
            run_experiment(run, place, send)
    except DashError as error:
        _leave_word(folder, "stopped" if isinstance(error, StopRequested) else "failed")
        raise
    except Exception as error:
        _leave_word(folder, "failed", traceback.format_exc())
        if lost := gone():
            raise lost from None
        reason = f"{type(error).__name__}: {error} (the traceback is in {folder / 'error.txt'})"
        raise RunFailed(reason) from None


def _leave_word(folder: Path, state: State, details: str | None = None) -> None:
    """Say in the run's folder how it ended; where the disk itself is what failed, it cannot be said there."""
    with contextlib.suppress(OSError):
        mark_progress(folder, state)
        if details:
            write_atomically(folder / "error.txt", details.encode())


def train_run_in_worker(run: RunConfig, place: Place, context: bytes) -> None:
    """Do one run in this worker process, as a child of the flow whose serialised context is given.

    Busy if another process does it: this worker is free for another run meanwhile.
    """
    quieten()
    wait_for_api()
    try:
        with hydrated_context(cloudpickle.loads(context)):
            train_run(run, place, tell_parent, wait=False)
    finally:
        send_everything()
