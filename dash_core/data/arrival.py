"""Check that each experiment of a run has images to train on; choose the test images of the arrived classes."""

import torch
from torch import Tensor

from dash_core.config import RunConfig
from dash_core.data.chunks import ChunkPlan
from dash_core.data.imageset import Dataset, ImageSet
from dash_core.data.training_set import evaluation_indices
from dash_core.errors import ConfigError


def check_plan(plan: ChunkPlan, run: RunConfig, dataset: Dataset) -> None:
    """Raise ConfigError unless every experiment of the run has enough images to train on, and some to be tested on."""
    plan.check_trainable(run.schedule)
    tested_images(plan, run, dataset)


def tested_images(plan: ChunkPlan, run: RunConfig, dataset: Dataset) -> tuple[Tensor | None, Tensor | None]:
    """Return the indices of the used test images (None: all), and for each the chunk in which its class arrives.

    Where the protocol tests only classes that have arrived, the images are in the order of arrival. Elsewhere the
    second value is None.
    """
    used = evaluation_indices(dataset.test, run.dataset)
    if not run.protocol.tests_what_arrived:
        return used, None
    used = torch.arange(len(dataset.test)) if used is None else used
    arrivals, order = _arrivals(plan, dataset.train, dataset.test.labels[used]).sort(stable=True)
    return used[order], arrivals


def _arrivals(plan: ChunkPlan, train: ImageSet, labels: Tensor) -> Tensor:
    """Return for each test label (N,) the first chunk, counted from 1, with a training image of its class.

    ConfigError if no chunk has one, or if no test label is of a class in the first chunk.
    """
    first = torch.zeros(train.classes, dtype=torch.int64)
    for number in range(len(plan), 0, -1):
        first[train.labels[plan.chunks[number - 1]]] = number
    arrived = first[labels]
    if not arrived.all():
        name = train.class_names[int(labels[arrived == 0][0])]
        raise ConfigError(f"dataset: no training image that is used is of the class {name}, which is tested")
    if 1 not in arrived:
        name = train.class_names[int(train.labels[plan.chunks[0][0]])]
        raise ConfigError(f"dataset: no test image that is used is of the class {name}, which comes first")
    return arrived
