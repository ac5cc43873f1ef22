"""Release a model by a person's decision, or take a release back; nothing is trained."""

from collections.abc import Iterator

from dash_core.config import parse
from dash_core.errors import ConfigError
from dash_core.stream.contract import Contract
from dash_core.stream.state import StreamState
from tasks.store.stream.exported import export
from tasks.store.stream.folder import CONTRACT_FILE, StreamFolder
from tasks.store.stream.ledger import Ledger
from tasks.store.stream.models import check_answers


def roll_back(
    stream: StreamFolder, ledger: Ledger, contract: Contract, reason: str, model: str | None = None
) -> StreamState:
    """Make the previous champion, or the given earlier one, the champion again, at once; return the new state.

    The model is loaded and must answer as it did when it was trained. ConfigError if there is no such release.
    """
    state = stream.state(ledger)
    released = list(dict.fromkeys(release.model for release in state.releases))
    target = named_model(model, released) if model else (state.returnable[-1] if state.returnable else None)
    if target is None:
        raise ConfigError(f"stream {stream.name} has no earlier champion to return to")
    return make_champion(stream, ledger, contract, state, target, by="rollback", reason=reason)


def release(
    stream: StreamFolder, ledger: Ledger, contract: Contract, reason: str, model: str | None = None
) -> StreamState:
    """Make the latest model, or the given one, the champion by a person's decision; return the new state."""
    state = stream.state(ledger)
    target = named_model(model, list(state.models)) if model else state.challenger
    if target is None:
        raise ConfigError(f"stream {stream.name} has no challenger: the latest model is the champion already")
    return make_champion(stream, ledger, contract, state, target, by="person", reason=reason)


def restore(stream: StreamFolder, ledger: Ledger) -> Iterator[str]:
    """Make stream.yaml, champion.json and the exports of champion and previous what the ledger says."""
    state = stream.state(ledger)
    contract = parse(Contract, state.contract, "contract")
    if not stream.says(contract):
        settings = stream.settings
        stream.write_contract(contract, settings)
        yield f"{CONTRACT_FILE}: written anew from the ledger"
    stream.point(state)
    for model in filter(None, (state.champion, state.previous)):
        check_answers(stream, state, contract, model)
        export(stream, state, contract, model)
    yield f"champion {state.champion}, previous {state.previous}: their files are whole"


def named_model(model: str, known: list[str]) -> str:
    """Return the model whose id begins with the given letters."""
    found = [name for name in known if name.startswith(model)]
    if len(found) != 1:
        listing = ", ".join(known) or "none"
        raise ConfigError(f"{model!r} names {len(found)} models of this stream; known: {listing}")
    return found[0]


def make_champion(
    stream: StreamFolder, ledger: Ledger, contract: Contract, state: StreamState, model: str, *, by: str, reason: str
) -> StreamState:
    """Make a model that answers as it did when it was trained the champion; return the new state."""
    if model == state.champion:
        raise ConfigError(f"{model} is the champion already")
    if model in state.tainted:
        raise ConfigError(f"{model} was trained on a delivery that was retracted: choose a model that was not")
    check_answers(stream, state, contract, model)
    export(stream, state, contract, model)
    ledger.append("released", model=model, by=by, reason=reason)
    state = stream.state(ledger)
    stream.point(state)
    return state
