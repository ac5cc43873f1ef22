"""The flow of one pass over a stream: receive, train, judge, until nothing is left to do."""

import time
from collections.abc import Iterator
from pathlib import Path

from prefect import flow

from dash_core.files import remove_unfinished
from dash_core.stream.contract import Contract
from dash_core.stream.state import StreamState
from flows.experiment import train_experiments
from tasks.store.place import Place
from tasks.store.stream.folder import StreamFolder
from tasks.store.stream.inbox import Delivery, Seen
from tasks.store.stream.judging import outlook
from tasks.store.stream.ledger import Ledger
from tasks.store.stream.pending import next_step, pending_deliveries
from tasks.store.stream.receiving import remove_unrecorded
from tasks.stream import judge, open_training, receive, seal
from tasks.store.stream.telling import told_arrival, told_model, told_verdict


@flow(name="arrive", flow_run_name="arrive · {stream.path.name}", persist_result=False, retries=0)
def arrive(stream: StreamFolder, place: Place, only: Path | None = None, wait: bool = True) -> None:
    """Take everything that is pending through one pass, under the stream's lock; print what happens.

    only: a delivery's folder, in place of the inbox. wait: for deliveries that time alone completes, and for the lock.
    """
    with stream.locked(wait=wait):
        ledger, state = stream.read()
        contract = stream.contract(state)
        tidy(stream, state)
        for line in one_pass(stream, ledger, contract, place, only, wait):
            print(line, flush=True)


def tidy(stream: StreamFolder, state: StreamState) -> None:
    """Remove what a killed pass left, and make the pointer say what the ledger says."""
    remove_unrecorded(stream, state)
    if stream.training.exists():
        remove_unfinished(stream.training)
    stream.point(state)


def one_pass(
    stream: StreamFolder, ledger: Ledger, contract: Contract, place: Place, only: Path | None, wait: bool
) -> Iterator[str]:
    """Do one step after another until none is left; yield sentences about them."""
    while True:
        state = stream.state(ledger)
        pending = pending_deliveries(stream, state, only)
        step = next_step(state, pending)
        if step == "train":
            yield from train(stream, ledger, contract, place)
        elif step == "receive":
            yield from take(stream, ledger, contract, pending.complete[0])
        elif step == "judge":
            state = judge(stream, ledger, contract, place)
            yield from told_verdict(stream, state)
        elif wait and pending.seconds is not None:
            time.sleep(pending.seconds + 0.05)
        else:
            for one in pending.waiting:
                yield f"{one.source}: waited for: {one.waiting}"
            return


def take(stream: StreamFolder, ledger: Ledger, contract: Contract, delivery: Delivery) -> Iterator[str]:
    """Receive one delivery."""
    state = receive(stream, ledger, contract, delivery)
    Seen(stream.cache).add(delivery)
    yield from told_arrival(stream, state, delivery)
    if state.untrained and state.champion:
        yield from outlook(stream, state, contract).sentences


def train(stream: StreamFolder, ledger: Ledger, contract: Contract, place: Place) -> Iterator[str]:
    """Train on the newest chunk, from where it stopped."""
    trajectory, progress = open_training(stream, stream.state(ledger), contract, place)
    train_experiments(trajectory, progress)
    state = seal(stream, ledger, contract, trajectory, place)
    yield told_model(state)
