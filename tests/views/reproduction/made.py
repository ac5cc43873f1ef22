"""Outcomes made by hand: no training, every number a literal or plain arithmetic."""

from collections.abc import Mapping, Sequence

from dash_core.cost import Cost
from dash_core.records import ChunkRecord
from dash_core.views.reproduction.item import Item
from dash_core.views.reproduction.outcome import Measured
from dash_core.views.reproduction.reproduced import Reproduced
from dash_core.views.summary import MethodRuns
from flows.command_line.reproduction import settings_of
from flows.reproduce import command_of
from tests import toy

MACHINE = {"device": "a processor", "device_type": "cpu", "cores": 2, "workers": 2, "threads": 1, "python": "3.11"}
INSIDE = {
    "gradient_norm/all": 5.0,
    "alignment/min": 0.1,
    "alignment/q25": 0.2,
    "alignment/median": 0.3,
    "alignment/q75": 0.4,
    "alignment/max": 0.5,
    "units/dead": 0.01,
    "units/dead/layer1.0": 0.01,
    "units/dead/layer1.0/1": 0.02,
    **{f"previous_accuracy/epoch_{epoch}": 0.5 + epoch / 10 for epoch in range(6)},
    **{f"previous_accuracy_batch/epoch_{epoch}": 0.6 + epoch / 15 for epoch in range(6)},
}


def record(
    experiment: int, accuracy: float, steps: int = 100, diagnostics: Mapping[str, float] | None = None
) -> ChunkRecord:
    """Return an experiment that cost 1 TFLOP and 0.1 s a step."""
    return ChunkRecord(
        experiment=experiment,
        images=60 * experiment,
        test_accuracy=accuracy,
        test_loss=1.0,
        class_accuracy=(accuracy, accuracy),
        train_accuracy=1.0,
        train_loss=0.01,
        steps=steps,
        epochs=10,
        converged=True,
        cost={"train": Cost(steps / 10, steps * 10**12, 2**30)},
        diagnostics=diagnostics or {},
    )


def runs(label: str, last: Sequence[float], steps: Sequence[int] | None = None) -> MethodRuns:
    """Return runs of two experiments, a seed for each last accuracy; the first experiment has 0.1 less."""
    steps = steps or [100] * len(last)
    return MethodRuns(
        label,
        label,
        {seed: [record(1, a - 0.1), record(2, a, s)] for seed, (a, s) in enumerate(zip(last, steps, strict=True))},
    )


def measured(*methods: MethodRuns) -> Measured:
    return Measured(toy.params(), methods, [MACHINE])


def reproduced(item: Item, scale: str) -> Reproduced:
    """Return an item whose every run gave the same made-up numbers."""
    outcome = {}
    for key, params in settings_of(item, scale).items():
        if item.simulated:
            from dash_core.views.reproduction.items_theory import simulated

            outcome[key] = Measured(params, simulated(params.theory), [MACHINE])
            continue
        count = len(params.run(params.compare.methods[0], 0).schedule)
        methods = []
        for number, label in enumerate(params.compare.methods):
            by_seed = {
                seed: [record(j, 0.5 + 0.01 * number, 100 + j, INSIDE) for j in range(1, count + 1)]
                for seed in params.seeds
            }
            methods.append(MethodRuns(label, params.method(label).intervention, by_seed))
        outcome[key] = Measured(params, methods, [MACHINE])
    return Reproduced(item, scale, outcome, 12.0, command_of(item, scale))
