"""How training starts, and how much it keeps: figures 6 and 13."""

import statistics
from collections.abc import Sequence

from dash_core.records import ChunkRecord
from dash_core.spread import Spread
from dash_core.views.reproduction.claims import FIGURE_SHOWS, Above, Claim
from dash_core.views.reproduction.figures import Curve, curves, method_styles, scatter
from dash_core.views.reproduction.item import Item, PageFigure, Scale, View
from dash_core.views.reproduction.outcome import Outcome
from dash_core.views.reproduction.reading import correlation, diagnosed, measured
from dash_core.views.reproduction.settings import OURS_PROTOCOL, small, smoke, standard, watched
from dash_core.views.reproduction.views import SPREAD, setting, tables
from dash_core.views.summary import Column, MethodRuns, Records

NORM = "gradient_norm/all"
EPOCHS = range(6)  # of figure 13: right after the intervention, and after each of five epochs
INSIDE = ("warm", "shrink_perturb", "dash_low", "shrink")
LOW = {"dash_low": {"intervention": "dash", "floor": 0.05}, "shrink": {"shrink": 0.05}}
SETTING = "CIFAR-10, ResNet-18, standard protocol"
STANDS_IN = "1,000 images of CIFAR-10 and an MLP in 5 chunks stand in for ResNet-18 in 50"


def _initial_norm(record: ChunkRecord) -> float | None:
    return record.diagnostics.get(NORM)


def _measured_norms(method: MethodRuns) -> MethodRuns:
    """Return the method with only the experiments that measured the gradient."""
    runs = {seed: [record for record in run if NORM in record.diagnostics] for seed, run in method.runs.items()}
    return MethodRuns(method.label, method.intervention, runs)


def _norm_view(outcome: Outcome) -> View:
    drawings = [
        PageFigure(
            f"gradient-norm-{key}",
            f"Initial gradient norm against steps: {key}",
            f"{setting(one)}. A point an experiment and seed; norm of the summed gradients of all mini-batches "
            "before training.",
            scatter(
                [_measured_norms(one.method(label)) for label in ("cold", "warm")],
                ("initial gradient norm", _initial_norm),
                ("steps", lambda record: record.steps),
            ),
        )
        for key, one in outcome.items()
    ]
    return View(drawings, tables(outcome))


def _norm_claims(keys: Sequence[str]) -> list[Claim]:
    def pearson(label: str) -> Claim:
        words = f"correlation of initial gradient norm and steps, {label}"
        r = correlation(keys[0], [label], _initial_norm, lambda record: record.steps, words)
        text = f"{label}: the larger the initial gradient norm, the more steps"
        return Claim(text, [Above(r, 0.0)], FIGURE_SHOWS)

    return [pearson("cold"), pearson("warm")]


FIGURE_6 = Item(
    name="figure-6",
    shows="initial gradient norm against steps to converge, a point an experiment, warm and cold",
    setting=f"{SETTING}; norm over Conv2d and Linear weights, train mode",
    ours=OURS_PROTOCOL,
    scales={
        "full": Scale(
            {"cifar10": watched(standard("cifar10", "resnet18", ("cold", "warm")), "gradient_norm")},
        ),
        "small": Scale(
            {"cifar10": watched(small(compared=("cold", "warm")), "gradient_norm", "previous_accuracy")},
            STANDS_IN,
        ),
        "smoke": Scale({"digits": watched(smoke(("cold", "warm"), chunks=3), "gradient_norm")}),
    },
    view=_norm_view,
    claims=_norm_claims,
)


def _previous(epoch: int) -> Column:
    """Return the accuracy on the previous data after `epoch` epochs: the mean over the experiments that measured it.

    One that ended earlier counts with its last value, or the late epochs would be those of slow experiments alone.
    """
    names = [f"previous_accuracy/epoch_{number}" for number in range(epoch + 1)]

    def mean(records: Records) -> float:
        known = [[r.diagnostics[name] for name in names if name in r.diagnostics] for r in records]
        return statistics.fmean(values[-1] for values in known if values)

    return Column(names[-1], "points", mean, 2, 100)


def _retained(method: MethodRuns) -> list[Spread]:
    """Return the previous-data accuracy (%) after 0, 1, … epochs: the mean over experiments, spread over seeds."""
    found = []
    for column in map(_previous, EPOCHS):
        known = [run for run in method.runs.values() if diagnosed(run, _previous(0).key)]
        if known:
            found.append(Spread.of([column.measure(run) * column.scale for run in known]))
    return found


def _previous_view(outcome: Outcome) -> View:
    drawings = []
    for key, one in outcome.items():
        shown = [method for method in one.methods if method.label != "cold"]
        styles = method_styles(shown)
        found = {method.label: _retained(method) for method in shown}
        lines = [
            Curve(m.label, styles[m.label], range(len(found[m.label])), found[m.label], len(m.runs)) for m in shown
        ]
        figure = curves(lines, "epochs after the intervention", "accuracy on the previous data (%)", dtick=1)
        caption = (
            f"{setting(one)}. Mean over the experiments from the second on, each that has ended with its last value. "
            f"{SPREAD}."
        )
        drawings.append(PageFigure(f"previous-{key}", f"Accuracy on the previous data: {key}", caption, figure))
    return View(drawings, tables(outcome))


def _previous_claims(keys: Sequence[str]) -> list[Claim]:
    def above(a: str, b: str, epoch: int) -> Above:
        return Above(measured(a, _previous(epoch), keys[0]), measured(b, _previous(epoch), keys[0]))

    why = "the paper's words are UNKNOWN; the authors' logs show this order after the first epoch"
    recovers = [above("dash_low", "shrink_perturb", 1)]
    remembers = [above("warm", "dash_low", 1)]
    return [
        Claim("after one epoch DASH has recovered more of the previous data than S&P", recovers, why),
        Claim("after one epoch warm remembers more of the previous data than DASH", remembers, why),
    ]


FIGURE_13 = Item(
    name="figure-13",
    shows="accuracy on the previous data in the first epochs after each intervention",
    setting=f"{SETTING}; DASH with λ = 0.05, S&P, weights × 0.05, warm",
    ours=OURS_PROTOCOL,
    scales={
        "full": Scale({"cifar10": watched(standard("cifar10", "resnet18", INSIDE, methods=LOW), "previous_accuracy")}),
        "small": Scale(
            {"cifar10": watched(small(compared=INSIDE, methods=LOW), "gradient_norm", "previous_accuracy")},
            STANDS_IN,
        ),
        "smoke": Scale({"digits": watched(smoke(INSIDE, methods=LOW), "previous_accuracy")}),
    },
    view=_previous_view,
    claims=_previous_claims,
)

ITEMS = (FIGURE_6, FIGURE_13)
