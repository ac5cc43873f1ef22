"""What happened in a stream, in sentences for a terminal."""

import time
from collections.abc import Iterator

from dash_core.stream.harm import Harm
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
    if model.stopped:
        ended = f", stopped at its budget ({model.stopped.replace('_', ' ')})"
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


def told_advice(state: StreamState, found: Harm | None) -> Iterator[str]:
    """Say what a person should do about the champion."""
    if found and found.shown:
        yield f'take it back: dashpipe stream rollback {state.name} --because "..."'
    if state.champion in state.tainted:
        yield (
            f"the champion {state.champion} was trained on a delivery that was retracted, and no earlier release was "
            f"not: the next pass trains one, or release another: dashpipe stream release {state.name}"
        )


def told_retraction(before: StreamState, state: StreamState) -> Iterator[str]:
    """Say what a retraction changed."""
    gone = next(new for old, new in zip(before.arrivals, state.arrivals, strict=True) if old != new)
    yield f"{gone.source}: {gone.train} training images and {gone.held_out} held-out images are used no more"
    marked = sorted(state.tainted - before.tainted)
    yield f"trained on them, and not used again: {', '.join(marked) or 'no model'}"
    if state.champion != before.champion:
        yield f"champion    {told_role(state, state.champion)}"
    yield from told_advice(state, None)
    if state.untrained:
        parent = state.parent
        begins = f"continues from {parent.id} (chunk {parent.chunk})" if parent else "begins from scratch"
        yield f"the next pass trains without them and {begins}: dashpipe stream arrive {state.name}"


def told_time(at: int) -> str:
    """Return a time of the ledger as a person reads it."""
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(at))


def told_set_aside(arrival: Arrival) -> str:
    """Return the counts of what was set aside by reason."""
    return ", ".join(f"{count} {reason}" for reason, count in arrival.set_aside.items())


def told_cost(model: ModelEntry) -> str:
    """Return what a model's training cost."""
    return f"{model.steps} steps, {model.flops / 1e12:.4f} TFLOPs, {model.seconds:.1f} s"
