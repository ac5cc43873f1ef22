"""Compare the latest model with the champion on the hold-out, and release it if the gate says so.

The look is in the ledger before the hold-out is read, so that a crash gives no look for free: the next pass finishes
the same look. The verdict and the release are one entry. Every input is a file, so the same verdict comes out.
"""

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn

from dash_core.data.arrived import joined
from dash_core.device import choose_device
from dash_core.errors import DashError
from dash_core.files import replaced_when_done, write_atomically
from dash_core.models import build_model, forward_flops, parameter_count
from dash_core.stream.contract import Contract
from dash_core.stream.gate import budget_checks, decide
from dash_core.stream.holdout_size import Prospect, prospect
from dash_core.stream.outcomes import Outcomes
from dash_core.stream.predicting import outcomes, probabilities, widened
from dash_core.stream.state import Arrival, StreamState
from dash_core.stream.verdict import Check, Verdict
from tasks.store.place import Place
from tasks.store.stream.exported import export
from tasks.store.stream.folder import StreamFolder
from tasks.store.stream.inspecting import checks_of_arrivals
from tasks.store.stream.ledger import Ledger
from tasks.store.stream.models import check_answers, held_out_parts, load_model, tested_arrivals

WARM_UP_IMAGES, LATENCY_IMAGES = 5, 50  # single images of a measurement of the latency


def judge(stream: StreamFolder, ledger: Ledger, contract: Contract, place: Place) -> StreamState:
    """Say whether the latest model may be released, and release it; return the new state."""
    state = stream.state(ledger)
    model = state.models[state.unfinished_look.challenger] if state.unfinished_look else state.unjudged
    if model is None:
        return state
    if state.champion is None:
        verdict = _first(stream, state, contract, place, model.id)
        _record(stream, ledger, model.id, verdict)
    elif state.unfinished_look is None and model.stopped:
        checks = budget_checks(contract.budget, _cost(stream, state, contract, model.id), model.stopped)
        _record(stream, ledger, model.id, Verdict(checks))  # no look: a person decides, whatever the hold-out says
    elif state.unfinished_look is None and (unable := _open_generation(stream, ledger, contract)):
        _record(stream, ledger, model.id, Verdict([unable]))
    else:
        if stream.state(ledger).unfinished_look is None:
            ledger.append("look", challenger=model.id, champion=state.champion)
        verdict = _compare(stream, stream.state(ledger), contract, place)
        _record(stream, ledger, model.id, verdict)
    state = stream.state(ledger)
    stream.point(state)
    return state


def outlook(stream: StreamFolder, state: StreamState, contract: Contract) -> Prospect:
    """Return what the hold-out can show about the next challenger: the current generation, or the next one."""
    exhausted = state.generation is None or state.looks_left <= 0
    arrivals = state.unseen() if exhausted else tested_arrivals(state)
    used = 0 if exhausted else contract.gate.looks - state.looks_left
    return _outlook(stream, arrivals, contract, used, _disagreement(stream, state))


def _outlook(
    stream: StreamFolder, arrivals: Sequence[Arrival], contract: Contract, looks: int, disagreement: float | None
) -> Prospect:
    counts = np.zeros(len(contract.classes), dtype=np.int64)
    for part in held_out_parts(stream, arrivals) if arrivals else []:
        counts += np.bincount(part.labels, minlength=len(counts))
    return prospect(
        counts.tolist(),
        looks_before=looks,
        parent=contract.parent,
        config=contract.gate,
        class_names=contract.classes,
        disagreement=disagreement,
    )


def _disagreement(stream: StreamFolder, state: StreamState) -> float | None:
    """Return the share of images on which the last two compared models differed."""
    for verdict in reversed(state.verdicts):
        if verdict.look is not None:
            return stream.verdict(verdict.model)["numbers"].get("disagreement")
    return None


def _open_generation(stream: StreamFolder, ledger: Ledger, contract: Contract) -> Check | None:
    """Open a generation of the hold-out if none has a look left; return why no comparison is possible, or None."""
    state = stream.state(ledger)
    found = outlook(stream, state, contract)
    if state.generation is None or state.looks_left <= 0:
        unseen = state.unseen()
        if not found.can_pass:
            return Check("size", "hold", " ".join(found.sentences), found.numbers)
        ledger.append("generation", last=len(state.arrivals), images=sum(arrival.held_out for arrival in unseen))
        return None
    return None if found.can_pass else Check("size", "hold", " ".join(found.sentences), found.numbers)


def _first(stream: StreamFolder, state: StreamState, contract: Contract, place: Place, model: str) -> Verdict:
    arrivals = tested_arrivals(state)
    found = outcomes_of(stream, state, contract, place, model, arrivals, 0)
    return decide(
        None,
        found,
        looks_before=0,
        parent=contract.parent,
        config=contract.gate,
        class_names=contract.classes,
        budget=contract.budget,
        cost=_cost(stream, state, contract, model),
        stopped=state.models[model].stopped,
        faults=_faults(stream, state, contract, model),
    )


def _compare(stream: StreamFolder, state: StreamState, contract: Contract, place: Place) -> Verdict:
    look, arrivals = state.unfinished_look, tested_arrivals(state)
    names = {"challenger": look.challenger, "champion": look.champion, "anchor": state.anchor or look.champion}
    found = {
        role: outcomes_of(stream, state, contract, place, model, arrivals, look.generation)
        for role, model in names.items()
    }
    return decide(
        found["champion"],
        found["challenger"],
        found["anchor"],
        looks_before=look.number - 1,
        parent=contract.parent,
        config=contract.gate,
        class_names=contract.classes,
        budget=contract.budget,
        cost=_cost(stream, state, contract, look.challenger),
        faults=_faults(stream, state, contract, look.challenger),
    )


def outcomes_of(
    stream: StreamFolder,
    state: StreamState,
    contract: Contract,
    place: Place,
    model: str,
    arrivals: Sequence[Arrival],
    generation: int,
) -> Outcomes:
    """Return what a model answers on the held-out images of arrivals, and keep it in a file."""
    parts = held_out_parts(stream, arrivals)
    images = joined(parts, contract.classes)
    device = choose_device(place.device)
    loaded = load_model(stream, state, contract, model).to(device)
    said = widened(probabilities(loaded, contract.model.name, images, device), len(contract.classes))
    ids = np.concatenate([part.ids for part in parts])
    labels = images.labels.numpy()
    with replaced_when_done(stream.evaluations / f"{model}-g{generation}.npz") as file, file.open("xb") as out:
        np.savez(out, ids=ids, labels=labels, probabilities=said)
    return outcomes([bytes(row).hex() for row in ids], labels, said)


def _faults(stream: StreamFolder, state: StreamState, contract: Contract, model: str) -> list[str]:
    """Return what is wrong with a model's files: it must load, answer its golden images, and be exported."""
    try:
        check_answers(stream, state, contract, model)
        export(stream, state, contract, model)
    except DashError as error:
        return [str(error)]
    return []


def _cost(stream: StreamFolder, state: StreamState, contract: Contract, model: str) -> Mapping[str, float]:
    """Return what the model and its training cost; the latency is measured if it is bounded."""
    config, entry = contract.model, state.models[model]
    network = build_model(config.name, contract.image_shape, len(contract.classes), seed=0, **config.options)
    found = {
        "parameters": parameter_count(network),
        "forward_flops": forward_flops(network, contract.image_shape),
        "training_steps": entry.steps,
        "training_flops": entry.flops,
        "training_seconds": entry.seconds,
    }
    if contract.budget.latency_ms is not None:
        found["latency_ms"] = _latency(load_model(stream, state, contract, model), contract)
    return found


@torch.no_grad()
def _latency(model: nn.Module, contract: Contract) -> float:
    """Return the median time of one image on the CPU, in milliseconds."""
    image = torch.zeros((1, *contract.image_shape))
    times = []
    for _ in range(WARM_UP_IMAGES + LATENCY_IMAGES):
        began = time.perf_counter()
        model(image)
        times.append(1000 * (time.perf_counter() - began))
    return float(np.median(times[WARM_UP_IMAGES:]))


def _record(stream: StreamFolder, ledger: Ledger, model: str, verdict: Verdict) -> None:
    """Write the verdict's sentences and numbers to a file, then the verdict to the ledger."""
    if stream.settings["drift"] == "hold":
        verdict = Verdict(
            [*verdict.checks, *checks_of_arrivals(stream, stream.state(ledger), model)], verdict.moves_anchor
        )
    content = (json.dumps(verdict.as_dict(), indent=2) + "\n").encode()
    write_atomically(verdict_file(stream, model), content)
    anchor = verdict.moves_anchor or not stream.state(ledger).releases
    moved = {"anchor": True} if anchor and verdict.verdict == "pass" else {}
    details = hashlib.sha256(content).hexdigest()[:32]
    ledger.append("verdict", model=model, verdict=verdict.verdict, details=details, **moved)


def verdict_file(stream: StreamFolder, model: str) -> Path:
    """Return the file with a verdict's sentences and numbers."""
    return stream.evaluations / f"verdict-{model}.json"
