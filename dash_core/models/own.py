"""Models of your own: built by a function (image shape, classes) → module, and checked before anything trains."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from dash_core.parts import MODELS, PartError, explained
from dash_core.seeding import borrowed_global_generator

CPU = torch.device("cpu")
CHECKED_IMAGES = 2  # in the batch that an own model must take; BatchNorm needs two


def build_own(
    path: str, builder: Callable[..., nn.Module], image_shape: tuple[int, int, int], classes: int
) -> nn.Module:
    """Return builder(image_shape, classes); PartError if it fails, or returns no module on the CPU with parameters."""
    with explained(MODELS, path, f"building it for images of {image_shape} (C, H, W) and {classes} classes"):
        model = builder(image_shape, classes)
    if not isinstance(model, nn.Module):
        raise PartError(f"{MODELS} {path}: it must return a torch.nn.Module, got {type(model).__name__}")
    parameters = [*model.parameters()]
    if any(isinstance(parameter, nn.parameter.UninitializedParameter) for parameter in parameters):
        raise PartError(f"{MODELS} {path}: it has lazy layers; give each its sizes, which follow from the image shape")
    if not any(parameter.requires_grad for parameter in parameters):
        raise PartError(f"{MODELS} {path}: it has no parameters to train")
    if any(parameter.device.type not in ("cpu", "meta") for parameter in parameters):
        raise PartError(f"{MODELS} {path}: it must be built on the CPU; dashpipe moves it to the device")
    return model


def classifier_of(model: nn.Module, classes: int) -> tuple[str, ...]:
    """Return the name of a model's last linear or convolutional layer with an output a class; none if it has none."""
    names = [
        name
        for name, module in model.named_modules()
        if name and classes in (getattr(module, "out_features", None), getattr(module, "out_channels", None))
    ]
    return (names[-1],) if names else ()


def check_own_model(
    path: str, build: Callable[[int], nn.Module], image_shape: tuple[int, int, int], classes: int
) -> None:
    """Raise PartError unless equal seeds give equal weights, and a batch of two images outputs of (2, classes).

    build: seed → model. The batch passes forward and backward in train mode, and forward in eval mode.
    """
    model = build(0)
    first, second = model.state_dict(), build(0).state_dict()
    if first.keys() != second.keys() or any(not _equal(first[name], second[name]) for name in first):
        raise PartError(
            f"{MODELS} {path}: two models of one seed differ: draw its weights from torch's global generator alone, "
            "which dashpipe seeds, and not from NumPy's or Python's"
        )
    images = torch.rand(CHECKED_IMAGES, *image_shape, generator=torch.Generator().manual_seed(0))
    shape = "x".join(map(str, image_shape))
    passing = partial(explained, MODELS, path, f"a batch of {CHECKED_IMAGES} images of {shape}")
    with borrowed_global_generator(CPU, 0):
        with passing():
            outputs = model.train()(images)
        _check_outputs(path, outputs, classes)
        with passing():
            outputs.float().sum().backward()
        with passing(), torch.no_grad():
            outputs = model.eval()(images)
        _check_outputs(path, outputs, classes)


def _check_outputs(path: str, outputs: object, classes: int) -> None:
    found = tuple(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
    if found != (CHECKED_IMAGES, classes):
        raise PartError(
            f"{MODELS} {path}: for {CHECKED_IMAGES} images it must return a tensor of ({CHECKED_IMAGES}, {classes}), "
            f"one row an image and one logit a class, and returns {found}"
        )


def _equal(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and one.dtype == other.dtype and torch.equal(one, other)
