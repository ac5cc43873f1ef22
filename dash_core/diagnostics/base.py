"""The form of a diagnostic: a named measure of the learner at fixed times of an experiment, without a change to it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from dash_core.evaluation import evaluation_batch
from dash_core.interventions import Intervention
from dash_core.learner import Learner
from dash_core.loading import GrowingData
from dash_core.shrinking import batch_bounds, in_mode

When = Literal["before_intervention", "before_training", "after_epoch", "after_training"]

# The images of a measure in a forward pass. They are more than the widest layer of features (4,096 in vgg16_bn), which
# bounds the rank; they give an accuracy a standard error of 0.7 points; they cost a thirtieth of an epoch on 50,000.
MOST_IMAGES = 5_000


@dataclass(frozen=True)
class Subject:
    """The subject of a measure: the learner and its data at one time of an experiment.

    batch_size: of training. epoch: epochs trained so far in this experiment.
    """

    learner: Learner
    data: GrowingData
    intervention: Intervention
    batch_size: int
    epoch: int = 0

    def draw(self, images: int) -> Tensor:
        """Return positions of at most MOST_IMAGES of the first `images`: seeded, the same throughout an experiment."""
        draws = self.learner.generator("diagnose", self.data.experiment)
        return torch.randperm(images, generator=draws)[:MOST_IMAGES]

    def batches(self, positions: Tensor, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (model inputs, labels) at the positions, batch by batch, without augmentation."""
        positions = positions.to(self.learner.device)
        bounds = batch_bounds(len(positions), size)
        for images, labels in self.data.batches([positions[start:end] for start, end in bounds]):
            yield self.data.normalise(images), labels

    @torch.no_grad()
    def predict(self, positions: Tensor, size: int | None = None) -> tuple[Tensor, Tensor]:
        """Return outputs (N, classes) and labels (N,) at the positions in eval mode; modes are left as found.

        size: images of a batch; None: as many as an evaluation takes.
        """
        outputs, labels = [], []
        if size is None:
            few, _ = next(self.batches(positions[:2], 2))
            size = evaluation_batch(self.learner.model, few)
        with in_mode(self.learner.model, training=False):
            for inputs, given in self.batches(positions, size):
                with self.learner.meter.counted(("evaluate", len(given))):
                    outputs.append(self.learner.model(inputs))
                labels.append(given)
        return torch.cat(outputs), torch.cat(labels)


@dataclass(frozen=True)
class Diagnostic:
    """A named measure: `measure` returns values by the name of a part, or none if there is nothing to measure.

    A value is recorded as `<name>/<part>`. Model, modes, buffers, gradients, optimiser and generators are left as
    found. when: the times of an experiment. source: paper, equation or figure.
    """

    name: str
    summary: str
    source: str
    when: tuple[When, ...]
    measure: Callable[[Subject], dict[str, float]]
