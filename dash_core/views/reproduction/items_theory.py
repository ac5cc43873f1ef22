"""The discrete feature-learning simulation: figure 3, and figures 9 to 11, which vary its constants."""

from collections.abc import Iterable, Mapping, Sequence

from dash_core.records import ChunkRecord
from dash_core.spread import Spread
from dash_core.theory import METHODS, TheoryConfig, TheoryPoint, simulate
from dash_core.views.figures.theory import theory_figure
from dash_core.views.reproduction.claims import Above, Claim, Near
from dash_core.views.reproduction.item import Item, Overlay, PageFigure, Scale, View
from dash_core.views.reproduction.orderings import NOT_WORSE
from dash_core.views.reproduction.outcome import Measured, Outcome
from dash_core.views.reproduction.reading import LAST_ACCURACY, LAST_STEPS, measured
from dash_core.views.reproduction.views import rows_table
from dash_core.views.summary import Column, MethodRuns

FEATURES, MEMORISED = "learned_features", "memorised"
LEARNED = Column(FEATURES, "features", lambda records: records[-1].diagnostics[FEATURES], 1)
TRAINING_TIME = Column(LAST_STEPS.key, "points", LAST_STEPS.measure, 1)
TINY = {"points": 100, "experiments": 4, "features": 20, "gamma": 5, "test_points": 1000, "seeds": [0, 1]}
FEW = {"seeds": [0, 1, 2]}


def simulated(config: TheoryConfig) -> list[MethodRuns]:
    """Return the simulation as runs, one record per experiment; steps are the training time, |N| at the start.

    Learned features and memorised points are diagnostics; images are the points so far.
    """
    by_seed = {seed: simulate(config.model_copy(update={"seeds": [seed]})) for seed in config.seeds}
    return [
        MethodRuns(method, method, {seed: _records(points, method, config) for seed, points in by_seed.items()})
        for method in METHODS
    ]


def _records(points: Sequence[TheoryPoint], method: str, config: TheoryConfig) -> list[ChunkRecord]:
    return [
        ChunkRecord(
            experiment=point.experiment,
            images=config.points * point.experiment,
            test_accuracy=point.test_accuracy.mean / 100,
            test_loss=0.0,
            class_accuracy=(),
            train_accuracy=1.0,
            train_loss=0.0,
            steps=round(point.nonzero_gradient.mean),
            epochs=1,
            converged=True,
            diagnostics={FEATURES: point.learned_features.mean, MEMORISED: point.memorised.mean},
        )
        for point in points
        if point.method == method
    ]


def points_of(measured: Measured) -> list[TheoryPoint]:
    """Return the runs as the simulation's points over seeds, the form that figure 3 draws."""
    return [
        TheoryPoint(
            records[0].experiment,
            method.label,
            len(records),
            Spread.of([100 * record.test_accuracy for record in records]),
            Spread.of([record.diagnostics[FEATURES] for record in records]),
            Spread.of([float(record.steps) for record in records]),
            Spread.of([record.diagnostics[MEMORISED] for record in records]),
        )
        for method in measured.methods
        for records in zip(*method.runs.values(), strict=True)
    ]


def _view(outcome: Outcome) -> View:
    drawings, rows = [], []
    for key, one in outcome.items():
        points = points_of(one)
        caption = "Mean over seeds with a band of ± population std; training time: points with a non-zero gradient."
        drawings.append(PageFigure(f"theory-{key}", f"Feature learning, {key}", caption, theory_figure(points)))
        last = [point for point in points if point.experiment == one.params.theory.experiments]
        rows += [(key, p.method, *map(_written, _quantities(p)), str(p.seeds)) for p in last]
    headings = ("Setting", "Start", "Test acc. %", "Features", "Training time", "Seeds")
    note = "the last experiment; mean (population std) over seeds"
    return View(drawings, [rows_table("The simulation's last experiment", headings, rows, note)])


def _quantities(point: TheoryPoint) -> tuple[Spread, ...]:
    return point.test_accuracy, point.learned_features, point.nonzero_gradient


def _written(spread: Spread) -> str:
    return f"{spread.mean:,.2f} ({spread.std:,.2f})"


def _claims(keys: Sequence[str]) -> list[Claim]:
    return [claim for key in keys for claim in _claims_of(key, f"{key}: " if len(keys) > 1 else "")]


def _claims_of(key: str, words: str) -> Iterable[Claim]:
    last = {method: measured(method, LAST_ACCURACY, key) for method in METHODS}
    time = {method: measured(method, TRAINING_TIME, key) for method in METHODS}
    yield Claim(f"{words}warm starts generalise worse than random ones", [Above(last["random"], last["warm"])])
    yield Claim(
        f"{words}ideal starts generalise as well as random ones",
        [Above(last["ideal"], last["random"], NOT_WORSE)],
        f"as well: no more than {NOT_WORSE:g} point lost, a margin of ours",
    )
    yield Claim(
        f"{words}training time: warm below ideal, ideal below random",
        [Above(time["ideal"], time["warm"]), Above(time["random"], time["ideal"])],
    )


def _known(method: str, column: Column, value: float, std: float) -> Claim:
    text = f"{method}, {column.title} at experiment 50: {value:,.{column.digits}f} ({std:,.{column.digits}f})"
    return Claim(
        text, [Near(measured(method, column, "figure 3"), value, std)], "a reference simulation's, not printed"
    )


NUMBERS = (  # of the simulation of section 6 at its defaults, ten seeds
    _known("random", LAST_ACCURACY, 94.27, 0.73),
    _known("warm", LAST_ACCURACY, 75.28, 1.56),
    _known("ideal", LAST_ACCURACY, 94.31, 0.66),
    _known("random", LEARNED, 91.8, 2.2),
    _known("warm", LEARNED, 32.0, 0.8),
    _known("warm", TRAINING_TIME, 491.8, 30.1),
    _known("ideal", TRAINING_TIME, 5793.1, 730.5),
)


def _theory(**changes: object) -> Overlay:
    return {"theory": changes}


def _varied(letter: str, name: str, values: Sequence[int], **smoke: Sequence[int]) -> Mapping[str, Scale]:
    """Return the scales of a figure that varies one constant of the simulation."""
    tiny = smoke[name]
    return {
        "full": Scale({f"{letter} = {value}": _theory(**{name: value}) for value in values}),
        "small": Scale(
            {f"{letter} = {value}": _theory(**{**FEW, name: value}) for value in values}, "3 of the 10 seeds"
        ),
        "smoke": Scale({f"{letter} = {value}": _theory(**{**TINY, name: value}) for value in tiny}),
    }


FIGURE_3 = Item(
    name="figure-3",
    shows="simulation of feature learning: accuracy, learned features and training time of random, warm, ideal",
    setting="C = 2, K = 50, 1000 points an experiment, 50 experiments, γ = 50, τ = 3, seeds 0 to 9",
    ours=(),
    scales={
        "full": Scale({"figure 3": _theory()}),
        "small": Scale({"figure 3": _theory(**FEW)}, "3 of the 10 seeds"),
        "smoke": Scale({"figure 3": _theory(**TINY)}),
    },
    view=_view,
    claims=_claims,
    numbers=NUMBERS,
    simulated=True,
)


def _constant(number: int, letter: str, words: str, scales: Mapping[str, Scale]) -> Item:
    values = ", ".join(key.rpartition(" ")[2] for key in scales["full"].comparisons)
    return Item(
        name=f"figure-{number}",
        shows=f"the simulation of figure 3 where {words} vary ({letter})",
        setting="figures 9 to 11 vary C, γ and τ",
        ours=(f"values of {letter}: {values}", "which of figures 9 to 11 varies which: in the order of the text"),
        scales=scales,
        view=_view,
        claims=_claims,
        simulated=True,
    )


FIGURES_9_TO_11 = (
    _constant(9, "C", "the classes", _varied("C", "classes", (2, 5, 10), classes=(2, 5))),
    _constant(10, "γ", "the points that make a feature learnable", _varied("γ", "gamma", (25, 50, 100), gamma=(5, 10))),
    _constant(11, "τ", "the features that make a point right", _varied("τ", "tau", (2, 3, 5), tau=(2, 3))),
)

ITEMS = (FIGURE_3, *FIGURES_9_TO_11)
