"""The flow of one pass over a stream: receive, train, judge, until nothing is left to do; then its views."""

from functools import partial
from pathlib import Path

from prefect import flow

from dash_core.errors import DashError
from dash_core.trajectory import Steps, Trajectory
from tasks.steps import evaluate, intervene, record, train
from tasks.store.place import Place
from tasks.store.progress import ProgressWriter
from tasks.store.stopping import heeding
from tasks.store.stream.folder import StreamFolder
from tasks.store.stream.passing import Verbs, one_pass
from tasks.stream import Published, judge, open_training, publish, receive, seal


def advance(trajectory: Trajectory, progress: ProgressWriter) -> None:
    """Train the newest chunk, each of the four steps a task; a signal stops it between two steps of the optimiser."""
    steps = Steps(intervene, train, evaluate, partial(record, progress=progress))
    with heeding():
        while trajectory.pending:
            trajectory.advance(steps)


TASKS = Verbs(receive, open_training, advance, seal, judge)


class Conflict(DashError):
    """A person changed the registry: the message says what differs. Nothing was overwritten."""


@flow(name="arrive", flow_run_name="arrive · {stream.path.name}", persist_result=False, retries=0)
def arrive(stream: StreamFolder, place: Place, only: Path | None = None, wait: bool = True) -> None:
    """Take everything that is pending through one pass, under the stream's lock; print what happens.

    only: a delivery's folder, in place of the inbox. wait: for deliveries that time alone completes, and for the lock.
    Conflict if a person changed the registry; the pass is complete all the same.
    """
    with stream.locked(wait=wait):
        for line in one_pass(stream, place, only, wait=wait, verbs=TASKS):
            print(line, flush=True)
        tell(publish(stream, place))


def tell(published: Published) -> None:
    """Print what became of the views; Conflict for what a person changed."""
    for problem in published.problems:
        print(f"not yet: {problem}", flush=True)
    print(f"page: {published.page}", flush=True)
    if published.conflicts:
        raise Conflict("\n".join(published.conflicts))
