"""The loss of training: by name, with weights of the classes and label smoothing where they are set; or your own."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from dash_core.config import TrainingConfig
from dash_core.parts import LOSSES as OWN_LOSSES
from dash_core.parts import PartError, callable_part, explained, part_path

Loss = Callable[[Tensor, Tensor], Tensor]  # outputs (B, classes), labels (B,) → the mean over the batch
CHECKED_IMAGES = 4  # in the batch that an own loss must take
TOLERANCE = 1e-4  # relative, between the loss of a batch and the mean over its halves


def training_loss(config: TrainingConfig, labels: Tensor) -> Loss:
    """Return the loss of an experiment whose training images have these labels (N,).

    It is the mean over the batch of w_y · ℓ(outputs, y). ℓ is the loss that `loss` names; the cross-entropy has the
    target (1 − ε) one_hot(y) + ε/classes, ε = `label_smoothing`. w is 1, or `balanced_weights` if `class_weights` says
    so.
    The mean divides by the number of images, not by the sum of their weights. So the mean over all batches of an epoch
    is the mean over all images, and the gradients of parts of a batch add up to that of the batch. An own loss is used
    as it is.
    """
    if path := part_path(OWN_LOSSES, config.loss):
        return callable_part(OWN_LOSSES, path)
    smoothing = config.label_smoothing
    if config.class_weights == "none" and config.loss == "cross_entropy":
        if not smoothing:
            return functional.cross_entropy
        return lambda outputs, labels: functional.cross_entropy(outputs, labels, label_smoothing=smoothing)
    each_image = EACH_IMAGE[config.loss]
    weights = balanced_weights(labels) if config.class_weights != "none" else None

    def mean(outputs: Tensor, labels: Tensor) -> Tensor:
        each = each_image(outputs, labels, smoothing)
        return (each if weights is None else each * weights[labels]).mean()

    return mean


def balanced_weights(labels: Tensor) -> Tensor:
    """Return w_c = N / (K n_c) for each class c, float32; n_c of the N labels are c, and K classes are present.

    The weights of all images have the mean 1. They are those of scikit-learn's class_weight="balanced".
    """
    counts = torch.bincount(labels)
    return len(labels) / (int((counts > 0).sum()) * counts.clamp(min=1).float())


def _cross_entropy(outputs: Tensor, labels: Tensor, smoothing: float) -> Tensor:
    return functional.cross_entropy(outputs, labels, reduction="none", label_smoothing=smoothing)


def _squared_error(outputs: Tensor, labels: Tensor, smoothing: float) -> Tensor:
    """Return Σ_c (outputs_c − one_hot(y)_c)² / classes of each image (Hui & Belkin, ICLR 2021)."""
    return (outputs - functional.one_hot(labels, outputs.shape[1])).square().mean(1)


def _one_against_rest(outputs: Tensor, labels: Tensor, smoothing: float) -> Tensor:
    """Return the binary cross-entropy of each image, summed over the classes: a logistic regression for each class."""
    targets = functional.one_hot(labels, outputs.shape[1]).to(outputs.dtype)
    return functional.binary_cross_entropy_with_logits(outputs, targets, reduction="none").sum(1)


EACH_IMAGE: dict[str, Callable[[Tensor, Tensor, float], Tensor]] = {  # (B, classes), (B,), smoothing → (B,)
    "cross_entropy": _cross_entropy,
    "squared_error": _squared_error,
    "one_against_rest": _one_against_rest,
}


def check_own_loss(name: str, classes: int) -> None:
    """Raise PartError unless an own loss returns the mean over a batch as a scalar with gradients; else do nothing.

    A sum over the images would grow with the size of each batch, and its gradient with that of each chunk in DASH.
    """
    path = part_path(OWN_LOSSES, name)
    if path is None:
        return
    loss = callable_part(OWN_LOSSES, path)
    random = torch.Generator().manual_seed(0)
    outputs = torch.randn(CHECKED_IMAGES, classes, generator=random, requires_grad=True)
    labels = torch.randint(classes, (CHECKED_IMAGES,), generator=random)
    half = CHECKED_IMAGES // 2
    with explained(OWN_LOSSES, path, f"its call with outputs ({CHECKED_IMAGES}, {classes}) and labels"):
        values = [loss(outputs, labels), loss(outputs[:half], labels[:half]), loss(outputs[half:], labels[half:])]
    for value in values:
        if not isinstance(value, Tensor) or value.shape != () or not value.requires_grad:
            found = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise PartError(
                f"{OWN_LOSSES} {path}: it must return a scalar tensor with a gradient, the mean over the batch, got "
                f"{found}"
            )
    whole, *halves = (float(value.detach()) for value in values)
    if abs(whole - sum(halves) / 2) > TOLERANCE * max(abs(whole), 1e-6):
        raise PartError(
            f"{OWN_LOSSES} {path}: the loss of {CHECKED_IMAGES} images is {whole:.6g}, and the mean of the losses of "
            f"its halves {sum(halves) / 2:.6g}: it must be the mean over the images, whatever the size of a batch"
        )
