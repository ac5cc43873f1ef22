"""Exact test metrics: over all images, not a mean of batch means."""

from dataclasses import dataclass

import torch
from torch.nn import functional

from dash_core.learner import Learner
from dash_core.loading import ResidentSet
from dash_core.shrinking import in_mode

BATCH = 512


@dataclass(frozen=True)
class Evaluation:
    """accuracy in [0, 1]; loss: mean cross-entropy in nats; class_accuracy: by class, None where it has no image."""

    accuracy: float
    loss: float
    class_accuracy: tuple[float | None, ...]


@torch.no_grad()
def evaluate(learner: Learner, data: ResidentSet, classes: int) -> Evaluation:
    """Return test accuracy and loss in eval mode; the model's modes are left as found."""
    model = learner.model
    loss = torch.zeros((), dtype=torch.float64, device=learner.device)
    hits = torch.zeros(len(data), dtype=torch.bool, device=learner.device)
    with in_mode(model, training=False):
        for start in range(0, len(data), BATCH):
            labels = data.labels[start : start + BATCH]
            with learner.meter.counted(("evaluate", len(labels))):
                outputs = model(data.normalise(data.images[start : start + BATCH]))
            loss += functional.cross_entropy(outputs, labels, reduction="sum").double()
            hits[start : start + BATCH] = outputs.argmax(1) == labels
    present = torch.bincount(data.labels, minlength=classes).tolist()
    right = torch.bincount(data.labels[hits], minlength=classes).tolist()
    by_class = tuple(hit / count if count else None for hit, count in zip(right, present, strict=True))
    return Evaluation(sum(right) / len(data), float(loss) / len(data), by_class)
