"""The settings that items share: the paper's protocols, and their replacements on two CPU cores.

Each is an overlay over the defaults of Params; `changes` are laid over it.
"""

from collections.abc import Sequence
from typing import Any

from dash_core.config import merge
from dash_core.views.reproduction.item import Overlay

METHODS = ("cold", "warm", "warm_rm", "shrink_perturb", "dash")  # of the paper's tables
FOUR = ("cold", "warm", "shrink_perturb", "dash")  # of its figures
DATASETS = ("cifar10", "cifar100", "svhn", "tiny_imagenet")
MODELS = ("resnet18", "vgg16_bn", "mlp")
OPTIMISERS = ("sgd", "sam")
SEEDS = (2021, 2022, 2023, 2024, 2025)
SMALL_SEEDS = (0, 1, 2, 3, 4)
SMALL_TEST = 2000  # test images of a small scale
WATCHED = ("gradient_norm", "previous_accuracy", "previous_accuracy_batch", "units")  # by runs that items share
DIGITS = "the digits with a thin ResNet-10 in 5 chunks"

OURS_PROTOCOL = (
    "max_epochs of an experiment (200 with ResNet-18, else 500), which the paper does not name",
    "seeds: 2021 and 2022 are in the authors' logs, the rest counts on from there",
    "DASH's λ: 0.05 with ResNet-18, which fits the authors' results, else 0.3; S&P's λ = 0.3, the default",
    "mode in which DASH collects gradients: eval, as in the authors' released code",
    "precision: auto, so bf16 where the hardware has it (`bench.precision` compares both); the authors' is fp32",
)


def standard(data: str, network: str, compared: Sequence[str] = METHODS, **changes: Any) -> Overlay:
    """Return the paper's standard protocol: 50 chunks, SGD, no augmentation, weight decay or schedule."""
    resnet = network == "resnet18"
    base = {
        "dataset": {"name": data, "train_size": 50_000 if data == "svhn" else None},
        "chunks": 50,
        "model": {"name": network},
        "optimizer": {"name": "sgd", "lr": 0.001 if resnet else 0.01, "momentum": 0.9},
        "training": {"batch_size": 128, "stop_accuracy": 0.999, "max_epochs": 200 if resnet else 500},
        "methods": _methods(0.05 if resnet else 0.3),
        "seeds": list(SEEDS[:3] if data == "tiny_imagenet" else SEEDS),
        "compare": {"methods": list(compared)},
    }
    return merge(base, changes)


def sota(data: str, compared: Sequence[str] = METHODS, **changes: Any) -> Overlay:
    """Return the paper's SoTA protocol: schedule, warm-up, weight decay and augmentation (recipe `sota`)."""
    base = {
        "dataset": {"name": data},
        "chunks": 50,
        "model": {"name": "resnet18_sota"},
        "optimizer": {"name": "sgd", "lr": 0.1, "momentum": 0.9},
        "training": {"recipe": "sota", "batch_size": 128, "stop_accuracy": 0.999, "max_epochs": 260},
        "methods": _methods(0.3),
        "seeds": list(SEEDS[:3]),
        "compare": {"methods": list(compared)},
    }
    return merge(base, changes)


def thin(data: str = "cifar10", compared: Sequence[str] = METHODS, **changes: Any) -> Overlay:
    """Return the standard protocol for two cores: a ResNet-18 of a quarter of the width, three of five chunks.

    The preset cifar10-resnet18-thin, up to its third experiment: by then cold and warm are some ten points below DASH.
    Its runs have the diagnostics WATCHED, so that all items which compare a method in this setting share its runs.
    """
    base = {
        "dataset": {"name": data, "train_size": 2000, "test_size": SMALL_TEST},
        "chunks": 5,
        "experiments": 3,
        "model": {"name": "resnet18", "width": 16},
        "optimizer": {"name": "sgd", "lr": 0.001, "momentum": 0.9},
        "training": {"batch_size": 32, "stop_accuracy": 0.999, "max_epochs": 100},
        "methods": _methods(0.3),
        "seeds": list(SMALL_SEEDS),
        "diagnostics": list(WATCHED),
        "compare": {"methods": list(compared)},
    }
    return merge(base, changes)


def small(network: str = "mlp", data: str = "cifar10", compared: Sequence[str] = METHODS, **changes: Any) -> Overlay:
    """Return the standard protocol for an MLP or a small CNN on two cores: 1,000 real images in five chunks."""
    base = {
        "dataset": {"name": data, "train_size": 1000, "test_size": SMALL_TEST},
        "chunks": 5,
        "model": {"name": network},
        "optimizer": {"name": "sgd", "lr": 0.01, "momentum": 0.9},
        "training": {"batch_size": 64, "stop_accuracy": 0.999, "max_epochs": 40, "precision": "auto"},
        "methods": _methods(0.3),
        "seeds": list(SMALL_SEEDS),
        "compare": {"methods": list(compared)},
    }
    return merge(base, changes)


def small_digits(compared: Sequence[str] = METHODS) -> Overlay:
    """Return the setting of params.yaml: the embedded digits, a thin ResNet-10, five chunks, five seeds."""
    return {
        "dataset": {"name": "digits"},
        "chunks": 5,
        "model": {"name": "resnet10"},
        "optimizer": {"lr": 0.01},
        "training": {"batch_size": 64, "max_epochs": 500},
        "methods": _methods(0.3),
        "seeds": [30, 31, 32, 33, 34],
        "compare": {"methods": list(compared)},
    }


def thin_words(data: str = "CIFAR-10", experiments: int = 3) -> str:
    """Return in words what `thin` trains on, for `Scale.stands_in`."""
    return f"a ResNet-18 of a quarter of the width on the first {experiments} of 5 chunks of 2,000 images of {data}"


def smoke(compared: Sequence[str] = METHODS, **changes: Any) -> Overlay:
    """Return a setting of seconds that shows that an item runs: the embedded digits, two chunks, one seed."""
    base = {
        "dataset": {"name": "digits", "train_size": 120, "test_size": 100},
        "chunks": 2,
        "model": {"name": "cnn3_small"},
        "training": {"batch_size": 32, "max_epochs": 3},
        "methods": _methods(0.3),
        "seeds": [0],
        "compare": {"methods": list(compared)},
    }
    return merge(base, changes)


def watched(overlay: Overlay, *names: str) -> Overlay:
    """Return the overlay with these diagnostics."""
    return {**overlay, "diagnostics": list(names)}


def _methods(floor: float) -> dict[str, Any]:
    return {
        "shrink_perturb": {"shrink": 0.3, "sigma": 0.01},
        "dash": {"alpha": 0.3, "floor": floor, "mode": "eval"},
    }
