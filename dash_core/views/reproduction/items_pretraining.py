"""Pre-training on a part of the data, then training on all: figures 2, 8 and 19."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from dash_core.spread import Spread
from dash_core.views.figures.look import STYLES
from dash_core.views.reproduction.claims import Above, Claim
from dash_core.views.reproduction.figures import RIGHT, Curve, curves_with_right_axis
from dash_core.views.reproduction.item import Item, Overlay, PageFigure, Scale, View
from dash_core.views.reproduction.orderings import NOT_WORSE, chain
from dash_core.views.reproduction.outcome import Outcome
from dash_core.views.reproduction.reading import LAST_ACCURACY, Reading, measured
from dash_core.views.reproduction.settings import FOUR, SEEDS, small, smoke, standard, thin
from dash_core.views.reproduction.views import lines_view, rows_table, setting
from dash_core.views.summary import MethodRuns

HALF = 0.5  # pre-train accuracy; up to here figure 2 shows no harm
GRID = (1, 2, 5, 10, 20, 50, 100, 200)  # pre-training epochs
SMALL_GRID = (1, 4, 16, 32)
SMALL_EPOCHS = 30  # on all of the data: cold starts fit them in fewer
IMAGENET_IS_FULL = "Put ImageNet-1k into the data root as docs/data.md says, and choose the scale full"
NARROW = "a ResNet-18 of a quarter of the width"
IMAGENET_GRID = (30, 50, 70, 150)
IMAGENET_OURS = "lr 0.1, batch 256, no augmentation: the paper's are UNKNOWN"


def _pretrained(base: Overlay, grid: Sequence[int], epochs: int, prefix: str) -> dict[str, Overlay]:
    """Return a comparison of the one method `warm` for each number of pre-training epochs, keys 'prefix, p=…'."""
    return {f"{prefix}, p={p}": _two_phase(base, ("warm",), p, epochs) for p in grid}


def _two_phase(base: Overlay, methods: Sequence[str], pretrain: int, epochs: int) -> Overlay:
    protocol = {"name": "two_phase", "share": 0.5, "pretrain_epochs": pretrain, "epochs": epochs}
    return {**base, "chunks": 2, "protocol": protocol, "compare": {"methods": list(methods)}}


def _epochs_of(key: str) -> int:
    return int(key.rpartition("=")[2])


def _group(key: str) -> str:
    return key.rpartition(", p=")[0]


def _by_group(keys: Sequence[str]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for key in keys:
        groups.setdefault(_group(key), []).append(key)
    return groups


def _view(outcome: Outcome) -> View:
    """Draw one figure per model: final accuracy, as the median over seeds, and pre-train accuracy on the right axis."""
    drawings, rows = [], []
    for group, keys in _by_group(list(outcome)).items():
        warm = {_epochs_of(key): outcome[key].method("warm") for key in keys}
        final = {p: [100 * run[-1].test_accuracy for run in m.runs.values()] for p, m in warm.items() if m.runs}
        first = {p: [100 * run[0].train_accuracy for run in m.runs.values()] for p, m in warm.items() if m.runs}
        medians = [Spread(statistics.median(values), statistics.pstdev(values)) for values in final.values()]
        before = [Spread.of(values) for values in first.values()]
        seeds = min(map(len, final.values()))
        line = Curve("final test accuracy, median", STYLES["warm"], list(final), medians, seeds)
        right = Curve("pre-train accuracy", RIGHT, list(first), before, seeds)
        axes = ("pre-training epochs", "final test accuracy (%)", "pre-train accuracy (%)")
        ticks = {"type": "log", "tickmode": "array", "tickvals": list(final)}
        figure = curves_with_right_axis([line], [right], axes).update_xaxes(ticks)
        caption = f"{setting(outcome[keys[0]])}. Median over seeds ± population std; right: mean ± population std."
        drawings.append(
            PageFigure(f"pretraining-{group}", f"Pre-training on half of the data: {group}", caption, figure)
        )
        for p, median, share in zip(final, medians, before, strict=True):
            numbers = (f"{s.mean:.2f} ({s.std:.2f})" for s in (median, share))
            rows.append((group, str(p), *numbers, str(len(final[p]))))
    headings = ("Setting", "Pre-training epochs", "Final acc. %, median", "Pre-train acc. %", "Seeds")
    return View(drawings, [rows_table("Final accuracy by pre-training epochs", headings, rows)])


def _damage(keys: Sequence[str], ours: str = "") -> list[Claim]:
    """Return one claim per model: the longest pre-training ends worse than the shortest."""
    claims = []
    for group, of_group in _by_group(keys).items():
        short, long = (measured("warm", LAST_ACCURACY, key, f"({key})") for key in (of_group[0], of_group[-1]))
        claims.append(Claim(f"{group}: long pre-training damages the final accuracy", [Above(short, long)], ours))
    return claims


def _harmless(keys: Sequence[str]) -> list[Claim]:
    """Return the claim that pre-training up to the accuracy HALF loses nothing against the shortest."""
    return [
        Claim(
            f"{group}: no harm until about 50 % pre-train accuracy",
            [Above(_until_half(of_group[1:]), measured("warm", LAST_ACCURACY, of_group[0], "shortest"), NOT_WORSE)],
            f"no harm: no more than {NOT_WORSE:g} point lost against the shortest pre-training, which stands for none, "
            "a margin of ours",
        )
        for group, of_group in _by_group(keys).items()
    ]


def _until_half(keys: Sequence[str]) -> Reading:
    """Return the final accuracy by seed after the longest pre-training that ends at HALF or below.

    A seed in which each of the keys' ends above has none.
    """

    def values(outcome: Outcome) -> Mapping[int, float]:
        found: dict[int, float] = {}
        for key in sorted(keys, key=_epochs_of):
            for seed, run in _runs(outcome[key].method("warm")):
                if run[0].train_accuracy <= HALF:
                    found[seed] = LAST_ACCURACY.measure(run) * LAST_ACCURACY.scale
        return found

    return Reading("longest up to 50 %", LAST_ACCURACY, values)


def _runs(method: MethodRuns) -> Any:
    return method.runs.items()


def _halves(model: str) -> Overlay:
    return standard("cifar10", model, seeds=[*range(SEEDS[0], SEEDS[0] + 10)])


def _thin_halves() -> Overlay:
    """Return the thin ResNet on 1,200 images of CIFAR-10, for two phases."""
    return thin(dataset={"train_size": 1200}, experiments=None, diagnostics=[])


FIGURE_2 = Item(
    name="figure-2",
    shows="pre-training on half of CIFAR-10 does no harm at first, then damages the final accuracy",
    setting="CIFAR-10 halves, MLP and ResNet-18: p epochs on one half, then 300 on all; 10 seeds, median",
    ours=(
        f"the grid of p: {', '.join(map(str, GRID))}",
        "seeds: 2021 to 2030",
        "lr 0.001 with ResNet-18 and 0.01 with the MLP, batch 128, as in the standard protocol",
    ),
    scales={
        "full": Scale(
            {
                key: overlay
                for model in ("mlp", "resnet18")
                for key, overlay in _pretrained(_halves(model), GRID, 300, model).items()
            }
        ),
        "small": Scale(
            {
                **_pretrained(small("mlp"), (1, 2, 4, 16, 64), 20, "mlp"),
                **_pretrained(_thin_halves(), SMALL_GRID, SMALL_EPOCHS, "resnet18"),
            },
            f"1,000 images of CIFAR-10 with the MLP and 20 epochs on all, 1,200 with {NARROW} and {SMALL_EPOCHS}, in "
            "place of 50,000 images and 300 epochs",
        ),
        "smoke": Scale(_pretrained(smoke(), (1, 3), 2, "cnn3_small")),
    },
    view=_view,
    claims=lambda keys: [*_harmless(keys), *_damage(keys)],
)


def _imagenet(**changes: Any) -> Overlay:
    given = {"dataset": {"name": "imagenet", "image_size": 224}, "model": {"name": "resnet18"}}
    protocol = {
        "optimizer": {"name": "sgd", "lr": 0.1, "momentum": 0.9},
        "training": {"batch_size": 256},
        "methods": {"shrink_perturb": {"shrink": 0.3, "sigma": 0.01}, "dash": {"alpha": 0.3, "floor": 0.3}},
        "seeds": list(SEEDS[:3]),
    }
    return {**given, **protocol, **changes}


FIGURE_8 = Item(
    name="figure-8",
    shows="the same on ImageNet-1k: 30, 50, 70 or 150 epochs on half of the data, then all of it",
    setting="ImageNet-1k, ResNet-18, 50 % of the data first",
    ours=(IMAGENET_OURS, "150 epochs on all of the data, as in figure 19", "3 seeds: 2021 to 2023"),
    scales={
        "full": Scale(_pretrained(_imagenet(), IMAGENET_GRID, 150, "resnet18")),
        "small": Scale(
            _pretrained(_thin_halves(), SMALL_GRID[1:], SMALL_EPOCHS, "cifar10, resnet18"),
            f"not ImageNet-1k: figure 2's runs of {NARROW} on 1,200 images of CIFAR-10. {IMAGENET_IS_FULL}",
        ),
        "smoke": Scale(_pretrained(smoke(), (1, 2), 2, "cnn3_small")),
    },
    view=_view,
    claims=lambda keys: _damage(keys, "figure 2's claim, at this scale; the figure's own words are UNKNOWN"),
)

FIGURE_19 = Item(
    name="figure-19",
    shows="ImageNet-1k: 150 epochs on half of the data, then 150 on all, with cold, warm, S&P and DASH",
    setting="ImageNet-1k, ResNet-18, λ = 0.3 for S&P and DASH; cold: 150 epochs on all",
    ours=(IMAGENET_OURS, "3 seeds: 2021 to 2023"),
    scales={
        "full": Scale({"imagenet": _two_phase(_imagenet(), FOUR, 150, 150)}),
        "small": Scale(
            {"cifar10": _two_phase(_thin_halves(), FOUR, SMALL_GRID[-1], SMALL_EPOCHS)},
            f"not ImageNet-1k: {NARROW} on 1,200 images of CIFAR-10, {SMALL_GRID[-1]} epochs on half of them and "
            f"{SMALL_EPOCHS} on all. {IMAGENET_IS_FULL}",
        ),
        "smoke": Scale({"digits": _two_phase(smoke(), FOUR, 2, 2)}),
    },
    view=lines_view,
    claims=lambda keys: [
        Claim(
            "DASH is above S&P and warm in last test accuracy",
            [check for other in ("shrink_perturb", "warm") for check in chain(keys[0], ("dash", other))],
            "the paper's numbers are UNKNOWN; this is its order in the standard setting",
        ),
        Claim(
            "warm ends below cold",
            chain(keys[0], ("cold", "warm")),
            "the paper's numbers are UNKNOWN; this is its order in the standard setting",
        ),
    ],
)

ITEMS = (FIGURE_2, FIGURE_8, FIGURE_19)
