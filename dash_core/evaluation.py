"""Exact test metrics: means over all images, not means of batch means; in batches that fit in memory."""

import logging
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from dash_core.learner import Learner
from dash_core.loading import ResidentSet
from dash_core.memory import is_out_of_memory, layer_bytes
from dash_core.shrinking import in_mode

logger = logging.getLogger(__name__)
EVALUATION_BATCH = 512  # images in one forward pass, at most
EVALUATION_BYTES = 2**30  # of the largest layer's input and output in one forward pass


@dataclass(frozen=True)
class Evaluation:
    """Test accuracy in [0, 1], mean cross-entropy in nats, and the accuracy of each class, None if it has no image.

    batch: images in one forward pass.
    """

    accuracy: float
    loss: float
    class_accuracy: tuple[float | None, ...]
    batch: int = EVALUATION_BATCH


def evaluate(learner: Learner, data: ResidentSet, classes: int) -> Evaluation:
    """Return accuracy and loss on `data`, in eval mode; the model's modes are left as found.

    Batches have EVALUATION_BATCH images or as many as `evaluation_batch` says. If they do not fit in memory, all are
    taken anew with half as many. Several ranks share the batches: each batch is computed whole, with the bits of one
    process, and all ranks return the same.
    """
    size = evaluation_batch(learner.model, data.normalise(data.images[:2]))
    while True:
        sums = None
        try:
            sums = _sums(learner, data, classes, size)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error) or size == 1:
                raise
        if not learner.ranks.any(sums is None):
            return _evaluation(learner.ranks.sum(sums).tolist(), data, classes, size)
        size //= 2
        if learner.device.type == "cuda":
            torch.cuda.empty_cache()
        logger.warning(
            "evaluation: batches of %d images do not fit in the memory of %s: they have %d from here on, the same up "
            "to rounding",
            2 * size,
            learner.device,
            size,
        )


def evaluation_batch(model: nn.Module, few: Tensor) -> int:
    """Return the number of images in one forward pass, given a few inputs (B, ...).

    The number depends on the model and the size of the images, not on the free memory, so that equal runs give equal
    bits.
    """
    return max(1, min(EVALUATION_BATCH, EVALUATION_BYTES // max(1, layer_bytes(model, few) // len(few))))


@torch.no_grad()
def _sums(learner: Learner, data: ResidentSet, classes: int, size: int) -> Tensor:
    """Return, for this rank's batches, the summed loss and the right answers of each class, (1 + classes,), float64."""
    model, ranks = learner.model, learner.ranks
    loss = torch.zeros((), dtype=torch.float64, device=learner.device)
    hits = torch.zeros(len(data), dtype=torch.bool, device=learner.device)
    with in_mode(model, training=False):
        for start in range(ranks.rank * size, len(data), ranks.size * size):
            labels = data.labels[start : start + size]
            with learner.meter.counted(("evaluate", len(labels))):
                outputs = model(data.normalise(data.images[start : start + size]))
            loss += functional.cross_entropy(outputs, labels, reduction="sum").double()
            hits[start : start + size] = outputs.argmax(1) == labels
    right = torch.bincount(data.labels[hits], minlength=classes)
    return torch.cat([loss[None], right.double()])


def _evaluation(sums: list[float], data: ResidentSet, classes: int, size: int) -> Evaluation:
    loss, *right = sums
    present = torch.bincount(data.labels, minlength=classes).tolist()
    by_class = tuple(hit / count if count else None for hit, count in zip(right, present, strict=True))
    return Evaluation(sum(right) / len(data), loss / len(data), by_class, size)
