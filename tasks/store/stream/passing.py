"""One pass over a stream: receive, train, judge, one step after another, until nothing is left to do.

Each step depends on the ledger and the inbox alone, so a pass that was killed is continued by the next.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from dash_core.files import remove_unfinished
from dash_core.stream.contract import Contract
from dash_core.stream.state import StreamState
from dash_core.trajectory import Trajectory
from tasks.store import stopping
from tasks.store.place import Place
from tasks.store.progress import ProgressWriter
from tasks.store.stream.folder import StreamFolder
from tasks.store.stream.inbox import Delivery, Seen
from tasks.store.stream.inspecting import inspect
from tasks.store.stream.judging import judge, outlook
from tasks.store.stream.ledger import Ledger
from tasks.store.stream.models import open_training, seal
from tasks.store.stream.observing import observe
from tasks.store.stream.pending import next_step, pending_deliveries
from tasks.store.stream.receiving import receive, remove_unrecorded
from tasks.store.stream.telling import told_arrival, told_model, told_verdict


def advance(trajectory: Trajectory, progress: ProgressWriter) -> None:
    """Train the pending experiment; a signal stops it between two steps of the optimiser."""
    with stopping.heeding():
        while trajectory.pending:
            progress.after_experiment(trajectory.advance())


@dataclass(frozen=True)
class Verbs:
    """What a pass calls: by default plain functions; a flow gives tasks."""

    receive: Callable[[StreamFolder, Ledger, Contract, Delivery], StreamState] = receive
    open_training: Callable[[StreamFolder, StreamState, Contract, Place], tuple[Trajectory, ProgressWriter]] = (
        open_training
    )
    advance: Callable[[Trajectory, ProgressWriter], None] = advance
    seal: Callable[[StreamFolder, Ledger, Contract, Trajectory, Place], StreamState] = seal
    judge: Callable[[StreamFolder, Ledger, Contract, Place], StreamState] = judge


def one_pass(
    stream: StreamFolder, place: Place, only: Path | None = None, *, wait: bool = True, verbs: Verbs | None = None
) -> Iterator[str]:
    """Do one step after another until none is left; yield sentences about them. The caller holds the stream's lock.

    only: a delivery's folder, in place of the inbox. wait: for deliveries that time alone completes.
    """
    verbs = verbs or Verbs()
    ledger, state = stream.read()
    contract = stream.contract(state)
    tidy(stream, state)
    while True:
        state = stream.state(ledger)
        pending = pending_deliveries(stream, state, only)
        step = next_step(state, pending)
        if step == "train":
            yield from inspect(stream, state, contract)
            yield from observe(stream, ledger, contract)
            state = stream.state(ledger)
            trajectory, progress = verbs.open_training(stream, state, contract, place)
            verbs.advance(trajectory, progress)
            yield told_model(verbs.seal(stream, ledger, contract, trajectory, place))
        elif step == "receive":
            delivery, before = pending.complete[0], len(state.arrivals)
            state = verbs.receive(stream, ledger, contract, delivery)
            Seen(stream.cache).add(delivery)
            if len(state.arrivals) == before:
                continue  # it is in the ledger already
            yield from told_arrival(stream, state, delivery)
            if state.untrained and state.champion:
                yield from outlook(stream, state, contract).sentences
        elif step == "judge":
            yield from told_verdict(stream, verbs.judge(stream, ledger, contract, place))
        elif wait and pending.seconds is not None:
            time.sleep(pending.seconds + 0.05)
        else:
            yield from (f"{one.source}: waited for: {one.waiting}" for one in pending.waiting)
            return


def tidy(stream: StreamFolder, state: StreamState) -> None:
    """Remove what a killed pass left, and make the pointer say what the ledger says."""
    remove_unrecorded(stream, state)
    for folder in (stream.path, stream.evaluations, stream.training, stream.cache):
        if folder.exists():
            remove_unfinished(folder)
    stream.point(state)
