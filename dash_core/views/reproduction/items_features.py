"""Weights and units: figures 14, 15 and 16."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from dash_core.records import ChunkRecord
from dash_core.spread import Spread
from dash_core.views.figures.look import STYLES
from dash_core.views.reproduction.claims import FIGURE_SHOWS, Above, Claim
from dash_core.views.reproduction.figures import Box, Curve, bars, boxes_with_line, method_styles
from dash_core.views.reproduction.item import Item, Overlay, PageFigure, Scale, View
from dash_core.views.reproduction.orderings import ordered
from dash_core.views.reproduction.outcome import Outcome
from dash_core.views.reproduction.reading import correlation, diagnosed, diagnosed_last, measured
from dash_core.views.reproduction.settings import (
    FOUR,
    OURS_PROTOCOL,
    small,
    smoke,
    standard,
    thin,
    thin_words,
    watched,
)
from dash_core.views.reproduction.views import SPREAD, lines_view, rows_table, setting, tables
from dash_core.views.summary import Column, MethodRuns

BLOCKS = "units/dead/"
QUANTILES = ("min", "q25", "median", "q75", "max")


@dataclass(frozen=True)
class _Size:
    """One training-set size of figure 14: the accuracy of its network, and the mean quantiles of its cosines."""

    images: int
    accuracy: Spread
    quantiles: Sequence[float]


def _sizes(cold: MethodRuns) -> list[_Size]:
    """Return the training-set sizes of a cold run, smallest first, without those that have no cosine above 0.1.

    Before its intervention, experiment j + 1 measures the alignment of the network that experiment j trained.
    """
    runs, found = list(cold.runs.values()), []
    for j in range(len(runs[0]) - 1 if runs else 0):
        parts = [diagnosed([run[j + 1] for run in runs], f"alignment/{part}") for part in QUANTILES]
        if all(parts):
            accuracy = Spread.of([100 * run[j].test_accuracy for run in runs])
            found.append(_Size(runs[0][j].images, accuracy, [statistics.fmean(values) for values in parts]))
    return found


def _alignment_view(outcome: Outcome) -> View:
    drawings, rows = [], []
    for key, one in outcome.items():
        sizes, seeds = _sizes(one.method("cold")), len(one.method("cold").runs)
        boxes = [Box(size.images, *size.quantiles) for size in sizes]
        line = Curve("test accuracy", STYLES["cold"], [s.images for s in sizes], [s.accuracy for s in sizes], seeds)
        axes = ("training images", "cos(−gradient, weights) above 0.1", "test accuracy (%)")
        caption = (
            f"{setting(one)}, a network from scratch for each size. Boxes: quartiles of the cosines above 0.1; "
            "whiskers: their ends; each the mean over seeds."
        )
        figure = boxes_with_line(boxes, line, axes)
        drawings.append(PageFigure(f"alignment-{key}", f"Alignment by training-set size: {key}", caption, figure))
        for size in sizes:
            numbers = (f"{size.accuracy.mean:.2f}", *(f"{value:.3f}" for value in size.quantiles))
            rows.append((key, f"{size.images:,}", *numbers))
    headings = ("Setting", "Images", "Test acc. %", *QUANTILES)
    return View(drawings, [rows_table("Cosines above 0.1 by training-set size", headings, rows)])


def _median(record: ChunkRecord) -> float | None:
    return record.diagnostics.get("alignment/median")


def _alignment_claims(keys: Sequence[str]) -> list[Claim]:
    key, words = keys[0], "correlation of size and median cosine"
    r = correlation(key, ["cold"], lambda record: record.images, _median, words)
    growth = Column("last_accuracy", "points", lambda run: run[-1].test_accuracy - run[0].test_accuracy, 2, 100)
    rise = measured("cold", growth, key, "rise")
    return [
        Claim("test accuracy rises with the training-set size", [Above(rise, 0.0)], FIGURE_SHOWS),
        Claim("with more data the weights align better with the negative gradient", [Above(r, 0.0)], FIGURE_SHOWS),
    ]


def _sizes_of(overlay: Overlay) -> Overlay:
    return watched(overlay, "alignment")


FIGURE_14 = Item(
    name="figure-14",
    shows="alignment of filters and negative gradient by training-set size, with test accuracy",
    setting="three-layer CNN, several training-set sizes",
    ours=(
        "the CNN (64-128-256, BatchNorm): the paper's architecture is UNKNOWN",
        "the sizes: a tenth to nine tenths of CIFAR-10; the gradient is DASH's, of the chunks so far and the next",
        "5 seeds: 2021 to 2025; lr 0.01",
    ),
    scales={
        "full": Scale({"cifar10": _sizes_of(standard("cifar10", "cnn3", ("cold",), chunks=10))}),
        "small": Scale(
            {"cifar10": _sizes_of(small("cnn3_small", compared=("cold",), training={"max_epochs": 10}))},
            "200 to 800 images of CIFAR-10 and a CNN of a quarter of the width, at most 10 epochs a size",
        ),
        "smoke": Scale({"digits": _sizes_of(smoke(("cold",), chunks=3))}),
    },
    view=_alignment_view,
    claims=_alignment_claims,
)


LAYER = {"model": {"normalisation": "layer"}, "experiments": 2, "diagnostics": []}

FIGURE_15 = Item(
    name="figure-15",
    shows="the loss of plasticity is not BatchNorm's: the same with LayerNorm",
    setting="CIFAR-10, ResNet-18 with LayerNorm instead of BatchNorm, standard protocol",
    ours=OURS_PROTOCOL,
    scales={
        "full": Scale({"cifar10": standard("cifar10", "resnet18", FOUR, model={"normalisation": "layer"})}),
        "small": Scale({"cifar10": thin(compared=FOUR, **LAYER)}, thin_words(experiments=2)),
        "smoke": Scale({"digits": smoke(FOUR, model={"name": "resnet18", "normalisation": "layer"})}),
    },
    view=lines_view,
    claims=lambda keys: ordered(
        keys, ("dash", "shrink_perturb", "cold", "warm"), ours="the order of the standard setting, with BatchNorm"
    ),
)


def _blocks(method: MethodRuns) -> dict[str, Spread]:
    """Return the share of dead units (%) of each block after the last experiment."""
    last = [run[-1].diagnostics for run in method.runs.values()]
    names = [name for name in (last[0] if last else ()) if name.startswith(BLOCKS)]
    whole = [name for name in names if "/" not in name.removeprefix(BLOCKS)]  # not the single calls within a block
    return {name.removeprefix(BLOCKS): Spread.of([100 * values[name] for values in last]) for name in whole}


def _units_view(outcome: Outcome) -> View:
    drawings = []
    for key, one in outcome.items():
        groups = {method.label: _blocks(method) for method in one.methods if method.runs}
        caption = f"{setting(one)}. Units that are 0 on every image, after the last experiment. {SPREAD}."
        figure = bars(groups, method_styles(one.methods), "block", "dead units (%)")
        drawings.append(PageFigure(f"dead-{key}", f"Dead units by block: {key}", caption, figure))
    return View(drawings, tables(outcome))


DEAD = Column("units/dead", "points", lambda run: run[-1].diagnostics["units/dead"], 2, 100)
NO_MORE = 1.0  # points of dead units; our margin

FIGURE_16 = Item(
    name="figure-16",
    shows="dead units after each block: they do not explain what warm starts lose",
    setting="CIFAR-10, ResNet-18, standard protocol",
    ours=OURS_PROTOCOL,
    scales={
        "full": Scale({"cifar10": watched(standard("cifar10", "resnet18", FOUR), "units")}),
        "small": Scale({"cifar10": thin(compared=FOUR)}, thin_words()),
        "smoke": Scale({"digits": watched(smoke(("cold", "warm")), "units")}),
    },
    view=_units_view,
    claims=lambda keys: [
        Claim(
            "warm has no more dead units than cold",
            [Above(diagnosed_last("cold", DEAD, keys[0]), diagnosed_last("warm", DEAD, keys[0]), NO_MORE)],
            f"what the figure shows, with a margin of ours of {NO_MORE:g} point of the units",
        )
    ],
)

ITEMS = (FIGURE_14, FIGURE_15, FIGURE_16)
