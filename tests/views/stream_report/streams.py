"""A stream of a few deliveries, as its page reads it."""

from dataclasses import replace

from dash_core.stream.gate import decide
from dash_core.stream.gate_config import GateConfig
from dash_core.stream.state import Arrival, Generation, Look, ModelEntry, Release, StreamState, VerdictEntry
from dash_core.views.stream_report.content import StreamContent
from tests.stream.answers import NAMES, champion, changed

START = 1_795_000_000
CONFIG = GateConfig(margin=0.02)
CONTRACT = {
    "classes": list(NAMES),
    "image_size": 64,
    "channels": 3,
    "model": {"name": "resnet18"},
    "method": {"label": "dash"},
    "hold_out": {"share": 0.2},
    "gate": CONFIG.model_dump(),
    "parent": "latest",
}


def identity(number):
    return f"{number:x}" * 12


def entry(number, accuracy):
    parent = identity(number - 1) if number > 1 else None
    return ModelEntry(
        id=identity(number),
        weights_sha256=identity(number) * 5,
        chunk=number,
        chain="c" * 64,
        parent=parent,
        experiment=number,
        accuracy=accuracy,
        images=800 * number,
        steps=300 + 40 * number,
        epochs=12,
        converged=True,
        seconds=21.5 + number,
        flops=10**12 * number,
        code="code",
        at=START + 90_000 * number,
    )


def arrival(number, **more):
    fields = {"outcome": "admitted", "train": 800, "held_out": 200, "chunk": number, "chain": "c" * 64} | more
    return Arrival(number, "d" * 64, f"delivery-{number:02d}", at=START + 90_000 * number - 600, **fields)


def verdicts():
    """Return what the gate says of a better model, a worse one and one that is for a person."""
    old = champion()
    found = {}
    for number, challenger in {2: changed(old, wins=30, losses=6), 3: changed(old, losses=40)}.items():
        found[number] = decide(
            old, challenger, old, looks_before=number - 2, parent="latest", config=CONFIG, class_names=NAMES
        ).as_dict()
    small = champion(images=300)
    found[4] = decide(small, small, looks_before=2, parent="latest", config=CONFIG, class_names=NAMES).as_dict()
    return found


def stream(models=4, name="photos", **changes):
    """Return the content of a stream with so many models: released, released, failed, held."""
    results = ["pass", "pass", "fail", "hold"][:models]
    entries = [entry(number, accuracy) for number, accuracy in zip(range(1, 5), (0.9, 0.924, 0.88, 0.91), strict=True)]
    releases = [Release(1, identity(1), None, "first", "", START + 90_100)]
    releases += [Release(2, identity(2), identity(1), "gate", "", START + 180_100)] if models > 1 else []
    arrivals = [arrival(number) for number in range(1, models + 1)]
    if models > 2:
        reasons = {"unreadable image": 2, "two labels": 4, "unknown class": 31}
        arrivals[2] = replace(arrivals[2], known=12, set_aside=reasons)
        duplicate = {"outcome": "duplicate", "train": 0, "held_out": 0, "chunk": None, "chain": None, "known": 1000}
        arrivals.append(arrival(models + 1, **duplicate))
    state = StreamState(
        name,
        CONTRACT,
        "e" * 64,
        "f" * 64,
        "a" * 64,
        arrivals=tuple(arrivals),
        models={one.id: one for one in entries[:models]},
        generations=(Generation(1, 1, models, 1000, START, looks=models - 1),) if models else (),
        looks=tuple(
            Look(number - 1, 1, identity(number), identity(min(number, 2)), START, results[number - 1])
            for number in range(2, models + 1)
        ),
        verdicts=tuple(
            VerdictEntry(identity(number + 1), result, "", number or None, 1, START)
            for number, result in enumerate(results)
        ),
        releases=tuple(releases[: min(models, 2)]),
        champion=identity(min(models, 2)) if models else None,
        previous=identity(1) if models > 1 else None,
        anchor=identity(2) if models > 1 else None,
    )
    sentences = ["The first model: 90 % of 1,000 hold-out images are right."]
    told = {1: {"verdict": "pass", "sentences": sentences, "numbers": {}}} | verdicts()
    said = {identity(number): content for number, content in told.items() if number <= models}
    suspect = {"given": "dog", "suggested": "cat"}
    listed = [{"file": f"dog/IMG_{number}.jpg", "score": number / 50 - 0.9, **suspect} for number in range(9)]
    inspection = {
        "drift": {"sentence": "No drift. Largest distance of the predictions from earlier ones: 0.041 (class owl)."},
        "suspects": {"sentence": "9 labels look wrong, 1.1 % of the judged images.", "listed": listed},
    }
    inspections = {models: inspection} if models > 1 else {}
    return StreamContent(replace(state, **changes), said, inspections)
