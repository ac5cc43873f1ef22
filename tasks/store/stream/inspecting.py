"""Look at an arrival before it is trained on: does it look like earlier ones, and which labels look wrong?

Both are judged by the champion, which has not seen these images. They inform; nothing is removed. With the setting
`drift: hold`, a model that was trained on a conspicuous arrival is released by a person only.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dash_core.data.arrived import CHUNKS, joined, read_arrived
from dash_core.files import replaced_when_done, write_atomically
from dash_core.stream.contract import Contract
from dash_core.stream.drift import drift
from dash_core.stream.predicted import Predicted
from dash_core.stream.predicting import probabilities, widened
from dash_core.stream.state import StreamState
from dash_core.stream.suspects import label_suspects
from dash_core.stream.verdict import Check
from tasks.store.stream.folder import StreamFolder
from tasks.store.stream.models import load_model


def inspection_file(stream: StreamFolder, arrival: int) -> Path:
    """Return the file with what was found in an arrival."""
    return stream.evaluations / f"arrival-{arrival:04d}.json"


def inspect(stream: StreamFolder, state: StreamState, contract: Contract) -> Iterator[str]:
    """Judge the newest chunk by the champion; write what is found, and yield what a person should know."""
    arrival = state.untrained
    if arrival is None or state.champion is None or inspection_file(stream, arrival.number).exists():
        return
    before = _predicted_before(stream, state.champion, len(contract.classes))
    if before is None:
        return
    chunk = read_arrived(stream.numbered(CHUNKS, arrival.chunk, arrival.chain))
    images = joined([chunk], contract.classes)
    model = load_model(stream, state, contract, state.champion)
    said = probabilities(model, contract.model.name, images, torch.device("cpu"))
    new = Predicted(widened(said, len(contract.classes)), images.labels.numpy())
    history = [found["drift"]["distance"] for found in inspections(stream, state) if found["number"] < arrival.number]
    drifted = drift(new, before, history, contract.classes)
    suspects = label_suspects(new, contract.classes, _recall(before))
    listed = [
        {
            "row": one.index,
            "id": bytes(chunk.ids[one.index]).hex(),
            "file": chunk.files[one.index],
            "given": contract.classes[one.given],
            "suggested": contract.classes[one.suggested],
            "score": one.score,
        }
        for one in suspects.listed
    ]
    found = {
        "number": arrival.number,
        "chunk": arrival.chunk,
        "model": state.champion,
        "accuracy": float((new.probabilities.argmax(1) == new.labels).mean()),
        "images": len(new),
        "drift": vars(drifted),
        "suspects": {
            "count": suspects.count,
            "share": suspects.share,
            "many": suspects.many,
            "sentence": suspects.sentence,
            "listed": listed,
        },
    }
    with (
        replaced_when_done(inspection_file(stream, arrival.number).with_suffix(".npz")) as file,
        file.open("xb") as out,
    ):
        np.savez(out, ids=chunk.ids, labels=new.labels, probabilities=new.probabilities)
    write_atomically(inspection_file(stream, arrival.number), (json.dumps(found, indent=2) + "\n").encode())
    if drifted.flagged:
        yield f"  {drifted.sentence}"
    if suspects.count:
        yield f"  {suspects.sentence}"


def inspections(stream: StreamFolder, state: StreamState) -> list[dict[str, Any]]:
    """Return what was found in each arrival in use that was inspected, oldest first."""
    files = [inspection_file(stream, arrival.number) for arrival in state.arrivals if arrival.retracted is None]
    return [json.loads(file.read_text(encoding="utf-8")) for file in files if file.exists()]


def checks_of_arrivals(stream: StreamFolder, state: StreamState, model: str) -> list[Check]:
    """Return a check that holds for each conspicuous arrival since the last release that a model was trained on."""
    released = [state.models[release.model].chunk for release in state.releases]
    since = max(released, default=0)
    checks = []
    for found in inspections(stream, state):
        if not since < found["chunk"] <= state.models[model].chunk:
            continue
        if found["drift"]["flagged"]:
            checks.append(Check("drift", "hold", found["drift"]["sentence"]))
        if found["suspects"]["many"]:
            checks.append(Check("labels", "hold", found["suspects"]["sentence"]))
    return checks


def _predicted_before(stream: StreamFolder, model: str, classes: int) -> Predicted | None:
    """Return what a model said about the last hold-out that it was measured on."""
    files = sorted(stream.evaluations.glob(f"{model}-g*.npz"), key=lambda file: int(file.stem.rpartition("-g")[2]))
    if not files:
        return None
    with np.load(files[-1]) as content:
        return Predicted(widened(content["probabilities"], classes), content["labels"])


def _recall(before: Predicted) -> list[float | None]:
    right = before.probabilities.argmax(1) == before.labels
    members = [before.labels == label for label in range(before.probabilities.shape[1])]
    return [float(right[one].mean()) if one.any() else None for one in members]
