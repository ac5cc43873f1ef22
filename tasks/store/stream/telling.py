"""What happened in a stream, in sentences for a terminal."""

import time
from collections.abc import Iterator

from dash_core.stream.state import Arrival, ModelEntry, StreamState
from tasks.store.stream.folder import StreamFolder
from tasks.store.stream.inbox import Delivery


def told_arrival(stream: StreamFolder, state: StreamState, delivery: Delivery) -> Iterator[str]:
    """Say what a delivery brought."""
    arrival = state.arrivals[-1]
    if arrival.outcome == "duplicate":
        yield f"{delivery.source}: nothing new, its {len(delivery.items)} images are known"
        return
    parts = [f"{arrival.train} images to train on" + (f" (chunk {arrival.chunk})" if arrival.chunk else "")]
    parts.append(f"{arrival.held_out} held out")
    parts += [f"{arrival.known} known already"] if arrival.known else []
    yield f"{delivery.source}: {', '.join(parts)}"
    for reason, count in arrival.set_aside.items():
        yield f"  {count} set aside: {reason}"
    if arrival.set_aside:
        yield f"  to decide on them: dashpipe stream quarantine {stream.name}"


def told_model(state: StreamState) -> str:
    """Say how the latest model was trained."""
    model = state.latest
    ended = "" if model.converged else ", without reaching the stop accuracy"
    return (
        f"model {model.id}: chunk {model.chunk}, {model.images} images, {model.steps} steps in {model.seconds:.1f} s"
        f"{ended}; {100 * model.accuracy:.2f} % of the held-out images are right"
    )


def told_verdict(stream: StreamFolder, state: StreamState) -> Iterator[str]:
    """Say what the gate said last."""
    verdict = state.verdicts[-1]
    yield f"{verdict.verdict}: {' '.join(stream.verdict(verdict.model)['sentences'])}"
    if verdict.verdict == "pass":
        yield f"released: {verdict.model} is the champion (release {state.releases[-1].number})"
    else:
        yield f"the champion stays {state.champion}" if state.champion else "there is no champion yet"
        yield f'  to release it all the same: dashpipe stream release {stream.name} --because "..."'


def told_role(state: StreamState, model: str | None) -> str:
    """Say which model has a role, and since when."""
    if model is None:
        return "none"
    entry = state.models[model]
    return f"{model} (chunk {entry.chunk}, {100 * entry.accuracy:.2f} % right when it was trained)"


def told_time(at: int) -> str:
    """Return a time of the ledger as a person reads it."""
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(at))


def told_set_aside(arrival: Arrival) -> str:
    """Return the counts of what was set aside by reason."""
    return ", ".join(f"{count} {reason}" for reason, count in arrival.set_aside.items())


def told_cost(model: ModelEntry) -> str:
    """Return what a model's training cost."""
    return f"{model.steps} steps, {model.flops / 1e12:.4f} TFLOPs, {model.seconds:.1f} s"
