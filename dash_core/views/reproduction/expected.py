"""Estimate how long an item takes on this machine: its FLOPs over a rate that is measured for a second."""

import time
from collections.abc import Mapping
from functools import cache

import torch
from torch.nn import functional

from dash_core.comparison import Params
from dash_core.config import ModelConfig, RunConfig
from dash_core.data import dataset_spec
from dash_core.models import build_model, forward_flops
from dash_core.views.reproduction.item import Item

EPOCHS: Mapping[str, int] = {"cold": 15, "warm": 5, "warm_rm": 5, "shrink_perturb": 15, "dash": 15}
OTHERWISE = 12  # epochs per experiment of another method, about those of the authors' logs
NARROW = 2  # times as many epochs where a ResNet is narrower than its own width: measured with cifar10-resnet18-thin
BACKWARD = 3  # a training step takes about three times a forward pass
RUN_OVERHEAD = 3.0  # seconds of a run beside its training
MEASURED_SECONDS = 1.0
MEASURED_BATCH = 64
THEORY_POINTS = 2.5e6  # points per second of the simulation, over experiments and methods


def training_rate(device: torch.device) -> float:
    """Return the training FLOPs per second of one process, measured for a second on steps of cnn3 with 32x32 images."""
    shape = (3, 32, 32)
    model = build_model("cnn3", shape, 10, seed=0).to(device)
    images = torch.zeros(MEASURED_BATCH, *shape, device=device)
    labels = torch.zeros(MEASURED_BATCH, dtype=torch.long, device=device)
    steps, started = -1, time.perf_counter()  # the first step is not counted
    while steps < 1 or time.perf_counter() - started < MEASURED_SECONDS:
        model.zero_grad()
        functional.cross_entropy(model(images), labels).backward()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        steps += 1
        if steps == 0:
            started = time.perf_counter()
    seconds = time.perf_counter() - started
    return steps * MEASURED_BATCH * BACKWARD * forward_flops(model.cpu(), shape) / seconds


def expected_seconds(item: Item, scale: str, rate: float, workers: int) -> float:
    """Return the estimated seconds of an item with `workers` runs at once, each at `rate` FLOPs per second."""
    every = item.scales[scale].params().values()
    if item.simulated:
        return sum(map(_simulated_seconds, every))
    runs = {run.id: run for params in every for run in params.runs()}
    return sum(RUN_OVERHEAD + run_flops(run) / rate for run in runs.values()) / workers


def _simulated_seconds(params: Params) -> float:
    theory = params.theory
    return len(theory.seeds) * theory.points * theory.experiments**2 / THEORY_POINTS


def run_flops(run: RunConfig) -> float:
    """Return the estimated FLOPs of a run, training and tests, with the epochs of EPOCHS per experiment."""
    spec = dataset_spec(run.dataset.name)
    images = run.dataset.train_size or spec.train_size or 0
    tested = run.dataset.test_size or spec.test_size or 0
    slower = NARROW if run.model.width else 1
    assumed = min(slower * EPOCHS.get(run.method.intervention, OTHERWISE), run.training.max_epochs)
    passes = 0.0
    for experiment in run.schedule:
        share = (experiment.last - experiment.first + 1) / run.chunks
        passes += images * share * (experiment.epochs or assumed)
    twice = 2 if run.optimizer.name == "sam" else 1
    shape = spec.image_shape or (3, 32, 32)
    return _forward(run.model, shape, spec.classes or 10) * (BACKWARD * twice * passes + tested * len(run.schedule))


@cache
def _forward(model: ModelConfig, shape: tuple[int, int, int], classes: int) -> float:
    return float(forward_flops(build_model(model.name, shape, classes, seed=0, **model.options), shape))
