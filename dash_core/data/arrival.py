"""What a run has by each of its experiments: enough images to train on, and the test images of what has arrived."""

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
    """Return the test images that are used, None for all, and the chunk with which each one's class arrives.

    Where the protocol tests what has arrived they stand in the order of arrival; elsewhere their arrival is None.
    """
    used = evaluation_indices(dataset.test, run.dataset)
    if not run.protocol.tests_what_arrived:
        return used, None
    used = torch.arange(len(dataset.test)) if used is None else used
    arrivals, order = _arrivals(plan, dataset.train, dataset.test.labels[used]).sort(stable=True)
    return used[order], arrivals


def _arrivals(plan: ChunkPlan, train: ImageSet, labels: Tensor) -> Tensor:
    """Return for each label (N,) of test images the first chunk, from 1, that holds a training image of its class.

    ConfigError where there is none, or where no label is of a class in the first chunk.
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
