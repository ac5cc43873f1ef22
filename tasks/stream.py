"""The verbs of a pass over a stream as Prefect tasks: receive, open, seal, judge. The stream's folder is the truth."""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

from prefect import task
from prefect.cache_policies import NO_CACHE

from dash_core.stream.contract import Contract
from dash_core.stream.state import StreamState
from dash_core.trajectory import Trajectory
from dash_core.views.stream_report import write_stream_report
from tasks.store.place import Place
from tasks.store.progress import ProgressWriter
from tasks.store.stream import judging, models, receiving
from tasks.store.stream.folder import StreamFolder
from tasks.store.stream.inbox import Delivery
from tasks.store.stream.ledger import Ledger
from tasks.store.stream.versions import add_to_dvc
from tasks.tracking.stream_mirror import mirror_stream

# no retries, whatever Prefect's settings say: the next pass continues at the same step
step = partial(task, cache_policy=NO_CACHE, persist_result=False, retries=0)


@step(task_run_name="receive {delivery.source}")
def receive(stream: StreamFolder, ledger: Ledger, contract: Contract, delivery: Delivery) -> StreamState:
    """Divide a delivery into training, hold-out and what is set aside, and append its chunk."""
    return receiving.receive(stream, ledger, contract, delivery)


@step(task_run_name="open chunk {state.untrained.chunk}")
def open_training(
    stream: StreamFolder, state: StreamState, contract: Contract, place: Place
) -> tuple[Trajectory, ProgressWriter]:
    """Check all data of the next model, and return its training where it stopped."""
    return models.open_training(stream, state, contract, place)


@step(task_run_name="seal the model")
def seal(stream: StreamFolder, ledger: Ledger, contract: Contract, trajectory: Trajectory, place: Place) -> StreamState:
    """Move a trained model into its folder, and record it."""
    return models.seal(stream, ledger, contract, trajectory, place)


@step(task_run_name="judge the model")
def judge(stream: StreamFolder, ledger: Ledger, contract: Contract, place: Place) -> StreamState:
    """Compare the latest model with the champion, and release it if the gate says so."""
    return judging.judge(stream, ledger, contract, place)


class Published(NamedTuple):
    """What became of a stream's views. conflicts: what a person changed in the registry; problems: what is missing."""

    page: str
    conflicts: Sequence[str]
    problems: Sequence[str]


@step(task_run_name="publish {stream.path.name}")
def publish(stream: StreamFolder, place: Place, always: bool = False) -> Published:
    """Make the page, the registry and DVC show what the ledger says; the next pass completes what fails.

    always: ask MLflow even if it showed this very state before.
    """
    _, state = stream.read()
    page = write_stream_report(state, stream.path)
    outcome = mirror_stream(state, stream.path, place, always)
    problems = list(outcome.problems)
    if stream.settings["dvc"]:
        problems += add_to_dvc(stream, state)
    if not problems and not outcome.conflicts:
        stream.mark_published(state)
    return Published(str(page), outcome.conflicts, problems)
