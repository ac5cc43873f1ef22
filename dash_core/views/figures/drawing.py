"""The registry of figures: name, builder, title and caption."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import plotly.graph_objects as go

from dash_core.views.figures import plasticity
from dash_core.views.figures.classes import class_accuracy
from dash_core.views.figures.lines import accuracy_and_steps, seconds
from dash_core.views.figures.phases import cost_by_phase
from dash_core.views.figures.theory import theory_figure
from dash_core.views.figures.traces import ComparedMethods
from dash_core.views.figures.tradeoff import accuracy_by_flops, accuracy_by_steps
from dash_core.views.summary import MethodRuns


class FigureKind(NamedTuple):
    """A kind of figure: its builder, title, caption of one sentence, and the diagnostic that it shows, if any."""

    build: Callable[[Any], go.Figure]
    title: str
    caption: str
    diagnostic: str = ""


_MEAN = "mean over seeds with a band of ± population std"
FIGURES: dict[str, FigureKind] = {
    "accuracy_and_steps": FigureKind(
        accuracy_and_steps,
        "Test accuracy and steps by experiment",
        "Each experiment's test accuracy and steps: mean over seeds with a band of ± population std.",
    ),
    "accuracy_by_steps": FigureKind(
        accuracy_by_steps,
        "Accuracy against steps",
        "Test accuracy of the last experiment against the steps of all experiments: "
        "mean ± population std over seeds, and one small point per seed.",
    ),
    "accuracy_by_flops": FigureKind(
        accuracy_by_flops,
        "Accuracy against FLOPs",
        "Test accuracy of the last experiment against the counted FLOPs of all experiments and phases: "
        "mean ± population std over seeds, and one small point per seed.",
    ),
    "cost_by_phase": FigureKind(
        cost_by_phase,
        "Cost by phase",
        "Mean cost of a whole run over seeds, stacked by phase, in seconds and in TFLOPs.",
    ),
    "seconds": FigureKind(
        seconds,
        "Seconds by experiment",
        "Wall-clock seconds of each experiment, all phases: mean over seeds with a band of ± population std.",
    ),
    "class_accuracy": FigureKind(
        class_accuracy,
        "Test accuracy by class",
        "Test accuracy of the last experiment, class by class: mean over seeds.",
    ),
    "previous_accuracy": FigureKind(
        plasticity.previous_accuracy,
        "Accuracy on the previous data",
        "Accuracy on the data of the experiment before, right after each intervention, and over the first epochs of "
        f"the last experiment: {_MEAN}.",
        "previous_accuracy",
    ),
    "previous_accuracy_batch": FigureKind(
        partial(plasticity.previous_accuracy, name="previous_accuracy_batch"),
        "Accuracy on the previous data with batch statistics",
        "As above, with BatchNorm's statistics of each batch instead of its running statistics, which still belong to "
        f"the weights before the intervention: {_MEAN}.",
        "previous_accuracy_batch",
    ),
    "gradient_norm": FigureKind(
        plasticity.gradient_norm,
        "Gradient norm before training",
        f"Norm of the sum of all mini-batches' mean gradients before an experiment's first step: {_MEAN}.",
        "gradient_norm",
    ),
    "alignment": FigureKind(
        plasticity.alignment,
        "Alignment of weights and negative gradient",
        "Cosines of weight vectors with the averaged negative gradient before each intervention: the median of those "
        "above 0.1 with a band from lower to upper quartile, and the share above 0.1, means over seeds.",
        "alignment",
    ),
    "units": FigureKind(
        plasticity.units,
        "Dead and dormant units",
        "Share of the units that give 0 for every image, and of those whose mean is at most 0.025 of their layer's, "
        f"after training: {_MEAN}.",
        "units",
    ),
    "norms": FigureKind(
        plasticity.norms,
        "Norms of weights and features",
        f"Norm of all weights together, and mean norm of an image's features, after training: {_MEAN}.",
        "norms",
    ),
    "feature_rank": FigureKind(
        plasticity.feature_rank,
        "Effective rank of the features",
        f"Exponential of the entropy of the features' normalised singular values, after training: {_MEAN}.",
        "feature_rank",
    ),
    "distance": FigureKind(
        plasticity.distance,
        "Distance from the first initialisation",
        f"Euclidean distance of all parameters from where the run began, after training: {_MEAN}.",
        "distance",
    ),
}
THEORY = FigureKind(
    theory_figure,
    "Simulation of feature learning",
    "Test accuracy, learned features and training time (points with a non-zero gradient) of random, warm and ideal "
    "starts by experiment: mean over seeds with a band of ± population std.",
)


def draw(methods: Sequence[MethodRuns], class_names: Sequence[str]) -> dict[str, go.Figure]:
    """Return every figure of FIGURES, in its order, of the methods that have a complete run.

    A method with fewer seeds than others is drawn from its own seeds. The figure of a diagnostic is drawn only if the
    diagnostic was recorded. Raises ValueError if no method has a run, or if the number of classes in the records is not
    the number of names.
    """
    compared = ComparedMethods.of(methods, class_names)
    recorded = plasticity.recorded(compared)
    wanted = {name: one for name, one in FIGURES.items() if not one.diagnostic or one.diagnostic in recorded}
    return {name: drawing.build(compared) for name, drawing in wanted.items()}
