"""Watch a released model on what arrives after it: champion and previous answer a delivery before it is trained on.

The counts are in the ledger. If they show that the champion is worse, a person is advised to take it back; a contract
with `rollback: automatic` takes back what the gate released, and never what a person did.
"""

from collections.abc import Iterator

import torch

from dash_core.data.arrived import CHUNKS, joined, read_arrived
from dash_core.stream.contract import Contract
from dash_core.stream.harm import harm_of
from dash_core.stream.outcomes import Outcomes
from dash_core.stream.paired import Pairs
from dash_core.stream.predicting import outcomes, probabilities, widened
from dash_core.stream.state import StreamState
from tasks.store.stream.folder import StreamFolder
from tasks.store.stream.ledger import Ledger
from tasks.store.stream.models import load_model
from tasks.store.stream.releasing import make_champion

UNDONE = ("gate", "first")  # releases that `rollback: automatic` may take back


def observe(stream: StreamFolder, ledger: Ledger, contract: Contract) -> Iterator[str]:
    """Compare champion and previous on the newest chunk, and act on the evidence; yield what a person should know."""
    state = stream.state(ledger)
    arrival = state.untrained
    if arrival is None or state.previous is None or state.previous in state.rejected | state.tainted:
        return
    if not any(one.arrival == arrival.number for one in state.observations):
        champion, previous = (_answers(stream, state, contract, model) for model in (state.champion, state.previous))
        pairs = Pairs.of(champion, previous)
        ledger.append("observed", arrival=arrival.number, images=pairs.n, won=pairs.b, lost=pairs.c)
        state = stream.state(ledger)
    found = harm_of(state)
    if found is None or not found.shown:
        return
    yield found.sentence
    if contract.rollback == "automatic" and state.releases[-1].by in UNDONE:
        state = make_champion(stream, ledger, contract, state, state.previous, by="harm", reason=found.sentence)
        yield f"taken back: {state.champion} is the champion again (release {state.releases[-1].number})"
    else:
        yield f'  to take it back: dashpipe stream rollback {stream.name} --because "..."'


def _answers(stream: StreamFolder, state: StreamState, contract: Contract, model: str) -> Outcomes:
    """Return what a model answers on the newest chunk."""
    arrival = state.untrained
    chunk = read_arrived(stream.numbered(CHUNKS, arrival.chunk, arrival.chain))
    images = joined([chunk], contract.classes)
    loaded = load_model(stream, state, contract, model)
    said = widened(probabilities(loaded, contract.model.name, images, torch.device("cpu")), len(contract.classes))
    return outcomes([bytes(one).hex() for one in chunk.ids], images.labels.numpy(), said)
