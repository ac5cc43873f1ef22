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
from dash_core.views.reproduction.settings import OURS_PROTOCOL, smoke, standard, thin, thin_words, watched
from dash_core.views.reproduction.views import SPREAD, rows_table, setting, tables
from dash_core.views.summary import Column, MethodRuns, Records

NORM = "gradient_norm/all"
EPOCHS = range(6)  # of figure 13: right after the intervention, and after each of five epochs
INSIDE = ("warm", "shrink_perturb", "dash_low", "shrink")
LOW = {"dash_low": {"intervention": "dash", "floor": 0.05}, "shrink": {"shrink": 0.05}}
SETTING = "CIFAR-10, ResNet-18, standard protocol"
PREVIOUS = {  # diagnostic: what BatchNorm normalises with while it is measured, and where else that is done
    "previous_accuracy": ("running statistics", "as in the paper"),
    "previous_accuracy_batch": ("statistics of each batch", "as in training"),
}


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
            {"cifar10": thin(compared=("cold", "warm"))},
            thin_words(),
        ),
        "smoke": Scale({"digits": watched(smoke(("cold", "warm"), chunks=3), "gradient_norm")}),
    },
    view=_norm_view,
    claims=_norm_claims,
)


def _previous(epoch: int, diagnostic: str = "previous_accuracy") -> Column:
    """Return the accuracy on the previous data after `epoch` epochs: the mean over the experiments that measured it.

    One that ended earlier counts with its last value, or the late epochs would be those of slow experiments alone.
    """
    names = [f"{diagnostic}/epoch_{number}" for number in range(epoch + 1)]

    def mean(records: Records) -> float:
        known = [[r.diagnostics[name] for name in names if name in r.diagnostics] for r in records]
        return statistics.fmean(values[-1] for values in known if values)

    return Column(names[-1], "points", mean, 2, 100)


def _retained(method: MethodRuns, diagnostic: str) -> list[Spread]:
    """Return the previous-data accuracy (%) after 0, 1, … epochs: the mean over experiments, spread over seeds."""
    found = []
    for column in (_previous(epoch, diagnostic) for epoch in EPOCHS):
        known = [run for run in method.runs.values() if diagnosed(run, f"{diagnostic}/epoch_0")]
        if known:
            found.append(Spread.of([column.measure(run) * column.scale for run in known]))
    return found


def _previous_view(outcome: Outcome) -> View:
    """Draw the accuracy with BatchNorm's running statistics and with those of each batch, and list both.

    Running statistics are out of date right after weights have shrunk: where the second is higher, that part of what
    the first shows is BatchNorm's and not the weights'.
    """
    drawings, rows = [], []
    for key, one in outcome.items():
        shown = [method for method in one.methods if method.label != "cold"]
        styles = method_styles(shown)
        for diagnostic, (batch_norm, where) in PREVIOUS.items():
            how = f"{batch_norm}, {where}"
            found = {m.label: (_retained(m, diagnostic), len(m.runs)) for m in shown}
            lines = [
                Curve(label, styles[label], range(len(spreads)), spreads, seeds)
                for label, (spreads, seeds) in found.items()
            ]
            figure = curves(lines, "epochs after the intervention", "accuracy on the previous data (%)", dtick=1)
            caption = (
                f"{setting(one)}; BatchNorm with {how}. Mean over the experiments from the second on, each that has "
                f"ended with its last value. {SPREAD}."
            )
            title = f"Accuracy on the previous data: {key}, {how}"
            drawings.append(PageFigure(f"{diagnostic}-{key}", title, caption, figure))
            rows += [
                (key, batch_norm, line.label, *(f"{s.mean:.1f} ({s.std:.1f})" for s in line.spreads)) for line in lines
            ]
    headings = ("Setting", "BatchNorm with", "Method", *(f"epoch {epoch}" for epoch in EPOCHS))
    rows = [row for row in rows if len(row) == len(headings)]
    return View(drawings, [rows_table("Accuracy on the previous data (%)", headings, rows), *tables(outcome)])


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
        "full": Scale({"cifar10": watched(standard("cifar10", "resnet18", INSIDE, methods=LOW), *PREVIOUS)}),
        "small": Scale(
            {"cifar10": thin(compared=(*INSIDE, "dash"), methods=LOW)},
            f"{thin_words()}; DASH with λ = 0.3 is added",
        ),
        "smoke": Scale({"digits": watched(smoke(INSIDE, methods=LOW), *PREVIOUS)}),
    },
    view=_previous_view,
    claims=_previous_claims,
)

ITEMS = (FIGURE_6, FIGURE_13)
