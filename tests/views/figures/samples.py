"""Records small enough to work out by hand."""

from collections.abc import Sequence

import plotly.graph_objects as go

from dash_core.cost import Cost
from dash_core.records import ChunkRecord
from dash_core.views.figures import draw
from dash_core.views.summary import MethodRuns

CLASSES = ("cat", "dog")


def record(
    experiment=1, accuracy=0.5, steps=10, converged=True, classes=(0.25, 0.75), cost=None, diagnostics=None
) -> ChunkRecord:
    return ChunkRecord(
        experiment=experiment,
        images=experiment,
        test_accuracy=accuracy,
        test_loss=1.0,
        class_accuracy=tuple(classes),
        train_accuracy=1.0,
        train_loss=0.0,
        steps=steps,
        epochs=1,
        converged=converged,
        cost=cost or {"train": Cost(3.0, 2 * 10**12, 1), "evaluate": Cost(1.0, 10**12, 1)},
        diagnostics=diagnostics or {},
    )


def method(label: str, *runs: Sequence[ChunkRecord], intervention: str | None = None) -> MethodRuns:
    return MethodRuns(label, intervention or label, dict(enumerate(runs or ([record(1), record(2)],))))


TWO_SEEDS = method(
    "dash",
    [record(1, 0.2, 10, classes=(0.5, None)), record(2, 0.5, 30, classes=(0.4, None))],
    [record(1, 0.4, 20, classes=(0.5, None)), record(2, 0.7, 50, classes=(0.8, None))],
)


def diagnosed(scale: float) -> list[ChunkRecord]:
    """Two experiments with every diagnostic: the first has nothing before it; all values go with `scale`."""
    trained = {
        "distance/total": 10 * scale,
        "feature_rank/effective": 4 * scale,
        "norms/weights": 3 * scale,
        "norms/features": 2 * scale,
        "units/dead": 0.1 * scale,
        "units/dead/block1": 0.0,
        "units/dead/block2": 0.2 * scale,
        "units/dead/block2/1": 0.5,
        "units/dormant": 0.3 * scale,
    }
    first = {"gradient_norm/all": 5 * scale, **trained}
    quartiles = {"alignment/q25": 0.2 * scale, "alignment/median": 0.3 * scale, "alignment/q75": 0.5 * scale}
    accuracies = {f"previous_accuracy/epoch_{k}": (0.1 + 0.2 * k) * scale for k in range(3)}
    accuracies |= {f"previous_accuracy_batch/epoch_{k}": (0.3 + 0.2 * k) * scale for k in range(3)}
    norms = {f"gradient_norm/{part}": value * scale for part, value in (("all", 6), ("previous", 4), ("new", 3))}
    second = {**quartiles, "alignment/above_0.1": 0.4 * scale, **norms, **accuracies, **trained}
    return [record(1, diagnostics=first), record(2, diagnostics=second)]


MEASURED = method("dash", diagnosed(1.0), diagnosed(0.5))


def figure(name: str, *methods: MethodRuns, class_names=CLASSES) -> go.Figure:
    return draw(methods, class_names)[name]


def curves(drawn: go.Figure, label: str, panel: int = 1) -> list[go.Scatter]:
    """The traces of a method on a panel that show data, legend entries left out."""
    axis = "x" if panel == 1 else f"x{panel}"
    return [t for t in drawn.data if t.legendgroup == label and (t.xaxis or "x") == axis and t.showlegend is False]


def legend(drawn: go.Figure) -> list[str]:
    return [trace.name for trace in drawn.data if trace.showlegend is not False]
