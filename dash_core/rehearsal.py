"""A rehearsal: two short experiments on a few images, in which each own part does once what it does in a run."""

import tempfile
from pathlib import Path

import torch

from dash_core.config import RunConfig
from dash_core.data import ChunkPlan, Dataset
from dash_core.loss import check_own_loss
from dash_core.parts import LOSSES, METHODS, MODELS, explained
from dash_core.trajectory import Trajectory
from dash_core.transforms import check_transforms, is_torchvision

IMAGES = 16  # of training, in two chunks, and as many of test
_rehearsed: set[str] = set()  # digests of the runs that this process has rehearsed


def rehearse(run: RunConfig, dataset: Dataset) -> None:
    """Raise PartError if an own model, method or loss of the run fails in two experiments of one epoch on the CPU.

    Nothing is done for a run without own parts, and once in a process for an equal one. The rehearsal has one seed, the
    standard protocol and a few images, and leaves nothing behind. ConfigError if transforms of torchvision do not fit
    the images.
    """
    if run.training.augmentation and is_torchvision(run.training.augmentation):
        check_transforms(run.training.augmentation, dataset.train.image_shape)
    if not (run.model.source or run.method.source or run.training.loss_source):
        return
    short = _shortened(run, dataset)
    if short.digest in _rehearsed:
        return
    check_own_loss(run.training.loss, dataset.train.classes)
    kind, path = _rehearsed_part(run)
    plan = ChunkPlan.split(dataset.train, short.dataset, short.chunks, short.seed)
    rehearsing = explained(kind, path, "a rehearsal of two experiments with a few images")
    with tempfile.TemporaryDirectory(prefix="dashpipe-rehearsal-") as folder, rehearsing:
        trajectory = Trajectory(short, dataset, plan, Path(folder), device=torch.device("cpu"))
        while trajectory.pending:
            trajectory.advance()
        trajectory.finish({})
    _rehearsed.add(short.digest)


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
