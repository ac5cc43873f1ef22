"""A rehearsal: two short experiments on a few images, in which what may not fit does once what it does in a run."""

import tempfile
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

import torch

from dash_core.config import RunConfig
from dash_core.data import ChunkPlan, Dataset, ImageSet
from dash_core.loss import check_own_loss
from dash_core.parts import LOSSES, METHODS, MODELS, explained, is_torchvision
from dash_core.trajectory import Trajectory

IMAGES = 16  # of training, in two chunks, and as many of test
_rehearsed: set[str] = set()  # digests of the runs that this process has rehearsed


def rehearse(run: RunConfig, dataset: Dataset) -> None:
    """Train two experiments of one epoch on the CPU, where a run has parts that may not fit the data or each other.

    These are own models, methods and losses, transforms of torchvision, and learning rates of layers. PartError says
    what an own part did wrong, ConfigError which setting does not fit. Other runs are not rehearsed, and equal ones
    once in a process. The rehearsal has one seed, the standard protocol and a few images, and leaves nothing behind.
    """
    own = run.model.source or run.method.source or run.training.loss_source
    if not (own or run.optimizer.lr_multipliers or is_torchvision(run.training.augmentation or "none")):
        return
    short = _shortened(run, dataset)
    if short.digest in _rehearsed:
        return
    if own:
        check_own_loss(run.training.loss, dataset.train.classes)
    plan = ChunkPlan.split(dataset.train, short.dataset, short.chunks, short.seed)
    what = "a rehearsal of two experiments with a few images"
    rehearsing = explained(*_rehearsed_part(run), what) if own else nullcontext()
    with tempfile.TemporaryDirectory(prefix="dashpipe-rehearsal-") as folder, rehearsing:
        trajectory = Trajectory(short, dataset, plan, Path(folder), device=torch.device("cpu"))
        while trajectory.pending:
            trajectory.advance()
        trajectory.finish({})
    _rehearsed.add(short.digest)


def rehearse_on(image_shape: tuple[int, int, int], classes: Sequence[str], run: RunConfig) -> None:
    """Rehearse a run for images (C, H, W) that are not there yet: on noise."""
    channels, height, width = image_shape
    count = max(2 * IMAGES, 2 * len(classes))
    noise = torch.randint(256, (count, height, width, channels), generator=torch.Generator().manual_seed(0))
    images = ImageSet(
        noise.to(torch.uint8),
        torch.arange(count) % len(classes),
        tuple(classes),
        (0.5,) * channels,
        (0.25,) * channels,
    )
    rehearse(run, Dataset("noise", images, images))


def _shortened(run: RunConfig, dataset: Dataset) -> RunConfig:
    """Return the run with two chunks of a few images and one epoch each, in fp32, and without diagnostics."""
    images = run.dataset.model_copy(
        update={
            "train_size": min(IMAGES, len(dataset.train)),
            "test_size": min(IMAGES, len(dataset.test)),
            "label_noise": 0.0,
            "plan": None,
            "plan_source": None,
        }
    )
    training = run.training.model_copy(
        update={
            "batch_size": min(run.training.batch_size, IMAGES),
            "max_epochs": 1,
            "warmup_epochs": 0,
            "precision": "exact",
            "compile": False,
            "stop": "train_accuracy",
            "validation_share": None,
        }
    )
    update = {"dataset": images, "training": training, "chunks": 2, "experiments": None, "seed": 0, "diagnostics": []}
    fields = type(run).model_fields
    return run.model_copy(update={**update, "protocol": fields["protocol"].default})


def _rehearsed_part(run: RunConfig) -> tuple[str, str]:
    """Return kind and name of the part that an error is most likely of: the method, the loss, the model."""
    if run.method.source:
        return METHODS, run.method.intervention
    if run.training.loss_source:
        return LOSSES, run.training.loss
    return MODELS, run.model.name
