"""The effect of hyperparameters: figures 17 and 18, and SAM's ρ."""

from collections.abc import Mapping, Sequence
from itertools import product

from dash_core.config import merge
from dash_core.spread import Spread
from dash_core.views.reproduction.claims import FIGURE_SHOWS, Above, Claim
from dash_core.views.reproduction.figures import Curve, Grid, curves, heat_maps, method_styles
from dash_core.views.reproduction.item import Item, Overlay, PageFigure, Scale, View
from dash_core.views.reproduction.orderings import at_least, chain
from dash_core.views.reproduction.outcome import Measured, Outcome
from dash_core.views.reproduction.reading import (
    AVERAGE_ACCURACY,
    AVERAGE_STEPS,
    LAST_ACCURACY,
    Reading,
    measured,
)
from dash_core.views.reproduction.settings import (
    DIGITS,
    FOUR,
    OURS_PROTOCOL,
    small_digits,
    smoke,
    standard,
    thin,
    thin_words,
)
from dash_core.views.reproduction.views import SPREAD, lines_view, setting, tables
from dash_core.views.summary import Column

ALPHAS, FLOORS = (0.1, 0.3, 0.5, 0.7), (0.05, 0.1, 0.3, 0.5)
SMALL_ALPHAS, SMALL_FLOORS = (0.1, 0.3), (0.05, 0.3, 0.6)
RHOS = (0.05, 0.1, 0.2)
SHOWN = (  # quantities of figure 17, and their number formats
    (LAST_ACCURACY, "last accuracy (%)", ".1f"),
    (AVERAGE_ACCURACY, "average accuracy (%)", ".1f"),
    (AVERAGE_STEPS, "steps", ",.0f"),
)


def _label(alpha: float, floor: float) -> str:
    """Return the label of a pair: dash_a0p3_f0p05."""
    return f"dash_a{alpha:g}_f{floor:g}".replace(".", "p")


def _grid(overlay: Overlay, alphas: Sequence[float], floors: Sequence[float]) -> Overlay:
    """Return a comparison of warm and DASH at each pair of (α, λ)."""
    pairs = {_label(a, f): {"intervention": "dash", "alpha": a, "floor": f} for a, f in product(alphas, floors)}
    return {**overlay, "methods": pairs, "compare": {"methods": ["warm", *pairs]}}


def _grid_view(outcome: Outcome) -> View:
    drawings = []
    for key, one in outcome.items():
        pairs = {label: one.params.methods[label] for label in one.params.compare.methods if label != "warm"}
        alphas = sorted({given["alpha"] for given in pairs.values()})
        floors = sorted({given["floor"] for given in pairs.values()})
        grids = [
            Grid(title, [[_mean(one, _label(a, f), column) for a in alphas] for f in floors], digits)
            for column, title, digits in SHOWN
        ]
        warm = ", ".join(f"{title} {_mean(one, 'warm', column):,.1f}" for column, title, _ in SHOWN)
        caption = f"{setting(one)}. Mean over {len(one.params.seeds)} seeds; warm: {warm}."
        figure = heat_maps(grids, ("α", alphas), ("λ", floors))
        drawings.append(PageFigure(f"grid-{key}", f"DASH over (α, λ): {key}", caption, figure))
    return View(drawings, tables(outcome))


def _mean(one: Measured, label: str, column: Column) -> float:
    runs = one.method(label).runs.values()
    return Spread.of([column.measure(run) * column.scale for run in runs]).mean if runs else float("nan")


def _worst(key: str) -> Reading:
    """Return the last accuracy by seed of the pair (α, λ) that is worst on average over seeds."""

    def values(outcome: Outcome) -> Mapping[int, float]:
        one = outcome[key]
        complete = [method for method in one.methods if method.intervention == "dash" and method.runs]
        worst = min(complete, key=lambda method: _mean(one, method.label, LAST_ACCURACY), default=None)
        return measured(worst.label, LAST_ACCURACY, key).values(outcome) if worst else {}

    return Reading("worst pair", LAST_ACCURACY, values)


SHORT = {"experiments": 2, "diagnostics": []}
FIGURE_17 = Item(
    name="figure-17",
    shows="heat maps over DASH's (α, λ): last accuracy, average accuracy, steps",
    setting="CIFAR-10, ResNet-18, standard protocol",
    ours=(
        *OURS_PROTOCOL,
        f"the grid: α in {', '.join(map(str, ALPHAS))}; λ in {', '.join(map(str, FLOORS))}",
        "dataset and model",
    ),
    scales={
        "full": Scale({"cifar10": _grid(standard("cifar10", "resnet18"), ALPHAS, FLOORS)}),
        "small": Scale({"cifar10": _grid(thin(**SHORT), SMALL_ALPHAS, SMALL_FLOORS)}, thin_words(experiments=2)),
        "smoke": Scale({"digits": _grid(smoke(), (0.1, 0.5), (0.05, 0.3))}),
    },
    view=_grid_view,
    claims=lambda keys: [
        Claim(
            "DASH does not depend on its hyperparameters: even the worst pair is above warm in last test accuracy",
            [Above(_worst(keys[0]), measured("warm", LAST_ACCURACY, keys[0]))],
            FIGURE_SHOWS,
        )
    ],
)

SIGMAS = {
    "shrink_perturb": {"shrink": 0.3, "sigma": 0.01},
    "noisier": {"intervention": "shrink_perturb", "shrink": 0.3, "sigma": 0.1},
}
FIGURE_18 = Item(
    name="figure-18",
    shows="S&P with σ = 0.1 (noisier) against σ = 0.01",
    setting="CIFAR-10, ResNet-18, standard protocol",
    ours=(*OURS_PROTOCOL, "dataset and model"),
    scales={
        "full": Scale({"cifar10": standard("cifar10", "resnet18", ("warm", *SIGMAS), methods=SIGMAS)}),
        "small": Scale({"cifar10": thin(compared=("warm", *SIGMAS), methods=SIGMAS)}, thin_words()),
        "smoke": Scale({"digits": smoke(("warm", *SIGMAS), methods=SIGMAS)}),
    },
    view=lines_view,
    claims=lambda keys: [
        at_least(keys[0], "shrink_perturb", ("noisier",), "σ = 0.01, which the paper fixes, is no worse than σ = 0.1")
    ],
)


def _rhos(overlay: Overlay) -> dict[str, Overlay]:
    return {f"rho={rho:g}": merge(overlay, {"optimizer": {"name": "sam", "rho": rho}}) for rho in RHOS}


def _rho_view(outcome: Outcome) -> View:
    rhos = [one.params.optimizer.rho for one in outcome.values()]
    first = next(iter(outcome.values()))
    lines = []
    for label, style in method_styles(first.methods).items():
        runs = [one.method(label).runs.values() for one in outcome.values()]
        spreads = [Spread.of([100 * run[-1].test_accuracy for run in of_rho]) for of_rho in runs if of_rho]
        lines.append(Curve(label, style, rhos[: len(spreads)], spreads, len(first.method(label).runs)))
    figure = curves(lines, "SAM's ρ", "last test accuracy (%)")
    caption = f"{setting(first)}. {SPREAD}."
    return View([PageFigure("rho", "Last test accuracy by SAM's ρ", caption, figure)], tables(outcome))


SAM_RHO = Item(
    name="sam-rho",
    shows="SAM's ρ, whose value the paper leaves UNKNOWN: what it decides",
    setting="not an item of the paper; CIFAR-10, ResNet-18, standard protocol, SAM",
    ours=(*OURS_PROTOCOL, f"the values of ρ: {', '.join(map(str, RHOS))}"),
    scales={
        "full": Scale(_rhos(standard("cifar10", "resnet18", FOUR))),
        "small": Scale(_rhos(small_digits(("cold", "warm"))), DIGITS),
        "smoke": Scale(_rhos(smoke(("cold", "warm")))),
    },
    view=_rho_view,
    claims=lambda keys: [
        Claim(
            f"{key}: cold is above warm in last test accuracy, whatever ρ is",
            chain(key, ("cold", "warm")),
            "the order of the standard setting",
        )
        for key in keys
    ],
)

ITEMS = (FIGURE_17, FIGURE_18, SAM_RHO)
