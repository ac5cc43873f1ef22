"""Accuracy on the previous data: how much of it an intervention keeps, and how fast the rest is learned again."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from dash_core.diagnostics.base import Subject

LAST_EPOCH = 5  # measured, as in the paper's figure 13: methods differ in the first epochs


def previous_accuracy(subject: Subject) -> dict[str, float]:
    """Return the accuracy in [0, 1] on the previous data as `epoch_<k>`, for k = 0 (before any step) to LAST_EPOCH.

    It is the accuracy in eval mode over at most MOST_IMAGES previous images, not the running train accuracy.
    """
    if not _is_measured(subject):
        return {}
    return _accuracy(subject, *subject.predict(_positions(subject)))


def previous_accuracy_batch(subject: Subject) -> dict[str, float]:
    """Return `previous_accuracy` with BatchNorm's statistics of each batch instead of its running statistics.

    Right after weights have shrunk, the running statistics still belong to the larger weights, and eval mode shows
    their mismatch as well as what the weights have lost. Here the images are normalised as in training, in batches of
    the training's size; dropout is off. A model without BatchNorm gives what `previous_accuracy` gives. A single
    previous image is left out: BatchNorm has no variance for it.
    """
    if not _is_measured(subject) or subject.data.previous_images == 1:
        return {}
    with batch_statistics(subject.learner.model):
        return _accuracy(subject, *subject.predict(_positions(subject), subject.batch_size))


@contextmanager
def batch_statistics(model: nn.Module) -> Iterator[None]:
    """Have BatchNorm normalise by the statistics of its batch in eval mode; its buffers are left as found."""
    layers = [part for part in model.modules() if isinstance(part, _BatchNorm)]
    running = [(layer.running_mean, layer.running_var) for layer in layers]
    try:
        for layer in layers:
            layer.running_mean = layer.running_var = None
        yield
    finally:
        for layer, (mean, variance) in zip(layers, running, strict=True):
            layer.running_mean, layer.running_var = mean, variance


def _is_measured(subject: Subject) -> bool:
    return subject.data.previous_images > 0 and subject.epoch <= LAST_EPOCH


def _positions(subject: Subject) -> Tensor:
    return subject.draw(subject.data.previous_images)


def _accuracy(subject: Subject, outputs: Tensor, labels: Tensor) -> dict[str, float]:
    return {f"epoch_{subject.epoch}": float((outputs.argmax(1) == labels).double().mean())}
