"""Other ways for data to arrive: discarded (figures 20 and 21), continuous (22), class by class (23)."""

from collections.abc import Mapping, Sequence
from typing import Any

from dash_core.config import merge
from dash_core.views.reproduction.claims import Claim
from dash_core.views.reproduction.item import Item, Overlay, Scale
from dash_core.views.reproduction.orderings import chain, ordered
from dash_core.views.reproduction.settings import FOUR, OURS_PROTOCOL, smoke, standard, thin
from dash_core.views.reproduction.views import lines_view

RESNET = "CIFAR-10, ResNet-18"
OURS = (*OURS_PROTOCOL, "dataset and model: CIFAR-10 and ResNet-18", "5 seeds")
LAST = "an intervention right after the last experiment that may have one (40 of 50 here, epoch 500 there) is left out"
THIRD = {"methods": {"dash": {"floor": 0.3}}}  # λ = 0.3 in these settings, for S&P as well
FEWER_TESTS = {"dataset": {"test_size": 1000}}  # after each of 40 epochs
NARROW = "a ResNet-18 of a quarter of the width on CIFAR-10"
KEPT = ("warm", "shrink_perturb", "dash")
READING = "the paper's words are UNKNOWN; this is its order in the standard setting"


def _whole(train_size: int, chunks: int) -> Overlay:
    """Return the thin ResNet on all chunks of so many images of CIFAR-10, without diagnostics."""
    return thin(dataset={"train_size": train_size}, chunks=chunks, experiments=None, diagnostics=[])


def _thin_discarding() -> Overlay:
    return _whole(train_size=1600, chunks=8)


def _discarding(base: Overlay, compared: Sequence[str], interval: int, last: int) -> Overlay:
    protocol = {"name": "discarding", "interval": interval, "last_intervention": last}
    return merge(base, {"protocol": protocol, "compare": {"methods": list(compared)}})


def _intervals(base: Overlay, intervals: Sequence[int], last: int) -> dict[str, Overlay]:
    return {f"every {number}": _discarding(base, KEPT, number, last) for number in intervals}


FIGURE_20 = Item(
    name="figure-20",
    shows="discarding: each experiment trains on its own chunk alone; DASH and S&P every 10, 15 or 20",
    setting=f"{RESNET}; 50 chunks, none kept; λ = 0.3, no intervention after experiment 40",
    ours=(*OURS, LAST, "figure 20 holds the intervals, 21 the best of each: which is which is UNKNOWN"),
    scales={
        "full": Scale(_intervals(standard("cifar10", "resnet18", **THIRD), (10, 15, 20), 40)),
        "small": Scale(
            _intervals(_thin_discarding(), (2, 3), 6),
            f"{NARROW}, 1,600 images in 8 chunks, DASH and S&P every 2 or 3 up to experiment 6",
        ),
        "smoke": Scale(_intervals(smoke(chunks=3), (1, 2), 3)),
    },
    view=lines_view,
    claims=lambda keys: ordered(
        keys, ("dash", "warm", "shrink_perturb"), ours="the paper's order, at the best interval of each, held to at all"
    ),
)


def _best(base: Overlay, perturb: int, dash: int, last: int) -> dict[str, Overlay]:
    """Return S&P and DASH, each with its own interval, and warm, which has none, beside both."""
    return {
        f"S&P every {perturb}": _discarding(base, ("warm", "shrink_perturb"), perturb, last),
        f"DASH every {dash}": _discarding(base, ("warm", "dash"), dash, last),
    }


def _best_claims(keys: Sequence[str]) -> Sequence[Claim]:
    perturb, dash = keys
    return [
        Claim("DASH at its best interval is above warm in last test accuracy", chain(dash, ("dash", "warm"))),
        Claim(
            "S&P at its best interval is below warm in last test accuracy", chain(perturb, ("warm", "shrink_perturb"))
        ),
    ]


FIGURE_21 = Item(
    name="figure-21",
    shows="discarding: S&P and DASH, each at the interval that suits it best, against warm",
    setting=f"{RESNET}; 50 chunks, none kept; S&P λ = 0.3 every 20, DASH λ = 0.3 every 15, none after experiment 40",
    ours=(*OURS, LAST, "figure 20 holds the intervals, 21 the best of each: which is which is UNKNOWN"),
    scales={
        "full": Scale(_best(standard("cifar10", "resnet18", **THIRD), 20, 15, 40)),
        "small": Scale(
            _best(_thin_discarding(), 3, 2, 6),
            f"{NARROW}, 1,600 images in 8 chunks, S&P every 3 and DASH every 2 up to experiment 6",
        ),
        "smoke": Scale(_best(smoke(chunks=3), 2, 1, 3)),
    },
    view=lines_view,
    claims=_best_claims,
)


def _continuous(base: Overlay, interval: int, final_epochs: int) -> Mapping[str, Any]:
    protocol = {"name": "continuous", "interval": interval, "final_epochs": final_epochs}
    return merge(base, {"protocol": protocol, "compare": {"methods": list(FOUR)}})


FIGURE_22 = Item(
    name="figure-22",
    shows="continuous: an epoch brings a slice of the data, DASH and S&P every 50, then as many epochs on all",
    setting=f"{RESNET}; 500 slices, one an epoch, then 500 epochs on all; every 50 epochs, λ = 0.3; cold: 1000 on all",
    ours=(*OURS, LAST),
    scales={
        "full": Scale({"cifar10": _continuous(standard("cifar10", "resnet18", chunks=500, **THIRD), 50, 500)}),
        "small": Scale(
            {"cifar10": _continuous(merge(_whole(train_size=1000, chunks=20), FEWER_TESTS), 5, 20)},
            f"{NARROW}, 1,000 images in 20 slices, then 20 epochs; DASH and S&P every 5",
        ),
        "smoke": Scale({"digits": _continuous(smoke(chunks=4), 2, 2)}),
    },
    view=lines_view,
    claims=lambda keys: ordered(keys, ("dash", "shrink_perturb", "warm"), ours=READING),
)


def _by_class(base: Overlay, classes_per_chunk: int = 1) -> Overlay:
    protocol = {"name": "class_incremental", "classes_per_chunk": classes_per_chunk}
    chunks = -(-10 // classes_per_chunk)
    return merge(base, {"chunks": chunks, "protocol": protocol, "compare": {"methods": list(FOUR)}})


FIGURE_23 = Item(
    name="figure-23",
    shows="class-incremental: each chunk brings a class, data are kept, tested on the classes seen",
    setting=f"{RESNET}; 10 chunks, one a class",
    ours=OURS,
    scales={
        "full": Scale({"cifar10": _by_class(standard("cifar10", "resnet18"))}),
        "small": Scale(
            {"cifar10": _by_class(thin(diagnostics=[]), 2)},
            f"{NARROW}, 2,000 images, two classes a chunk, up to experiment 3 of 5",
        ),
        "smoke": Scale({"digits": _by_class(smoke())}),
    },
    view=lines_view,
    claims=lambda keys: ordered(keys, ("dash", "shrink_perturb", "warm"), ours=READING),
)

ITEMS = (FIGURE_20, FIGURE_21, FIGURE_22, FIGURE_23)
