"""The loss of training: cross-entropy, with weights of the classes and label smoothing where they are set."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from dash_core.config import TrainingConfig

Loss = Callable[[Tensor, Tensor], Tensor]  # outputs (B, classes), labels (B,) → the mean over the batch


def training_loss(config: TrainingConfig, labels: Tensor) -> Loss:
    """Return the loss of an experiment whose training images have these labels (N,).

    It is the mean over the batch of w_y · CE_ε(outputs, y). CE_ε is the cross-entropy with the target
    (1 − ε) one_hot(y) + ε/classes, ε = `label_smoothing`; w is 1, or `balanced_weights` if `class_weights` says so.
    The mean divides by the number of images, not by the sum of their weights. So the mean over all batches of an epoch
    is the mean over all images, and the gradients of parts of a batch add up to that of the batch.
    """
    smoothing = config.label_smoothing
    if config.class_weights == "none":
        if not smoothing:
            return functional.cross_entropy
        return lambda outputs, labels: functional.cross_entropy(outputs, labels, label_smoothing=smoothing)
    weights = balanced_weights(labels)

    def weighted(outputs: Tensor, labels: Tensor) -> Tensor:
        each = functional.cross_entropy(outputs, labels, reduction="none", label_smoothing=smoothing)
        return (each * weights[labels]).mean()

    return weighted


def balanced_weights(labels: Tensor) -> Tensor:
    """Return w_c = N / (K n_c) for each class c, float32; n_c of the N labels are c, and K classes are present.

    The weights of all images have the mean 1. They are those of scikit-learn's class_weight="balanced".
    """
    counts = torch.bincount(labels)
    return len(labels) / (int((counts > 0).sum()) * counts.clamp(min=1).float())
