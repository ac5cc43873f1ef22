"""Exact test metrics: means over all images, not means of batch means."""

from dataclasses import dataclass

import torch
from torch.nn import functional

from dash_core.learner import Learner
from dash_core.loading import ResidentSet
from dash_core.shrinking import in_mode

EVALUATION_BATCH = 512  # images in one forward pass


@dataclass(frozen=True)
class Evaluation:
    """Test accuracy in [0, 1], mean cross-entropy in nats, and the accuracy of each class, None if it has no image."""

    accuracy: float
    loss: float
    class_accuracy: tuple[float | None, ...]


@torch.no_grad()
def evaluate(learner: Learner, data: ResidentSet, classes: int) -> Evaluation:
    """Return accuracy and loss on `data`, in eval mode; the model's modes are left as found."""
    model = learner.model
    loss = torch.zeros((), dtype=torch.float64, device=learner.device)
    hits = torch.zeros(len(data), dtype=torch.bool, device=learner.device)
    with in_mode(model, training=False):
        for start in range(0, len(data), EVALUATION_BATCH):
            labels = data.labels[start : start + EVALUATION_BATCH]
            with learner.meter.counted(("evaluate", len(labels))):
                outputs = model(data.normalise(data.images[start : start + EVALUATION_BATCH]))
            loss += functional.cross_entropy(outputs, labels, reduction="sum").double()
            hits[start : start + EVALUATION_BATCH] = outputs.argmax(1) == labels
    present = torch.bincount(data.labels, minlength=classes).tolist()
    right = torch.bincount(data.labels[hits], minlength=classes).tolist()
    by_class = tuple(hit / count if count else None for hit, count in zip(right, present, strict=True))
    return Evaluation(sum(right) / len(data), float(loss) / len(data), by_class)
