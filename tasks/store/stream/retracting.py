"""Retract a delivery that was wrong: its images leave training and hold-out for all that follows.

Nothing in the ledger or on the disk is removed. Models that were trained on the delivery are marked, and are neither
continued nor released again; if the champion is one of them, the last release that is not takes its place at once. The
next pass trains from the last model that is not, or from where the person says.
"""

from dash_core.errors import ConfigError
from dash_core.stream.contract import Contract
from dash_core.stream.history import state_of
from dash_core.stream.state import SCRATCH, Arrival, StreamState
from tasks.store.stream.exported import export
from tasks.store.stream.folder import StreamFolder
from tasks.store.stream.ledger import Ledger
from tasks.store.stream.models import check_answers
from tasks.store.stream.releasing import named_model


def retract(
    stream: StreamFolder, ledger: Ledger, contract: Contract, delivery: str, reason: str, start: str | None = None
) -> StreamState:
    """Take a delivery out of everything that follows; return the new state.

    delivery: its name, or its number. start: the model that the next one continues from, or "scratch"; None: the last
    model that was not trained on the delivery. ConfigError for what cannot be.
    """
    state = stream.state(ledger)
    arrival = _named(state, delivery)
    _check_rest(state, arrival)
    entry: dict = {"arrival": arrival.number, "reason": reason}
    after = _after(ledger, entry)
    if start is not None:
        usable = [model for model in state.models if model not in after.tainted]
        entry["start"] = SCRATCH if start == SCRATCH else named_model(start, usable)
    if state.champion in after.tainted and after.returnable:
        entry["champion"] = after.returnable[-1]
        check_answers(stream, state, contract, entry["champion"])
        export(stream, state, contract, entry["champion"])
    ledger.append("retracted", **entry)
    state = stream.state(ledger)
    stream.point(state)
    return state


def _after(ledger: Ledger, entry: dict) -> StreamState:
    """Return the state that a retraction would lead to."""
    return state_of([*ledger.entries, {"kind": "retracted", "at": 0, **entry}], [*ledger.hashes, ""])


def _named(state: StreamState, delivery: str) -> Arrival:
    """Return the arrival with a name or a number; ConfigError if it is none, not one, or not in use."""
    used = [one for one in state.arrivals if one.train or one.held_out]
    by_number = [one for one in used if delivery == str(one.number)]
    found = by_number or [one for one in used if delivery == one.source]
    usable = [one for one in found if one.retracted is None]
    if len(usable) == 1:
        return usable[0]
    if found and not usable:
        raise ConfigError(f"{delivery}: it was retracted already")
    known = ", ".join(f"{one.number} ({one.source})" for one in used if one.retracted is None)
    raise ConfigError(
        f"{delivery!r} names {len(usable)} deliveries with images in use: give its number; known: {known or 'none'}"
    )


def _check_rest(state: StreamState, gone: Arrival) -> None:
    """Raise ConfigError if nothing to train on, or nothing to test on, would be left."""
    rest = [one for one in state.arrivals if one.retracted is None and one.number != gone.number]
    for side, left in (("train on", sum(one.train for one in rest)), ("test on", sum(one.held_out for one in rest))):
        if not left:
            raise ConfigError(f"{gone.source}: without it no image to {side} is left; deliver others first")
    last = state.generation
    if last and not any(one.held_out and last.first <= one.number <= last.last for one in rest):
        raise ConfigError(
            f"{gone.source}: it is the whole hold-out of the present generation, which the champion is compared on; "
            "the next generation begins when its looks are used"
        )
