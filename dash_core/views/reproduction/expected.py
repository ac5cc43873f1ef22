"""Estimate how long an item takes on this machine: its FLOPs over a rate that is measured for a second."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

import torch
from torch.nn import functional

from dash_core.comparison import Params
from dash_core.config import RunConfig
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
        return sum(map(simulation_seconds, every))
    runs = {run.id: run for params in every for run in params.runs()}
    return sum(RUN_OVERHEAD + run_flops(run) / rate for run in runs.values()) / workers


def simulation_seconds(params: Params) -> float:
    """Return the estimated seconds of a simulation."""
    theory = params.theory
    return len(theory.seeds) * theory.points * theory.experiments**2 / THEORY_POINTS


@dataclass(frozen=True)
class Work:
    """The estimated work of runs: images of training steps, images of tests, and FLOPs of both."""

    trained: float = 0.0
    tested: float = 0.0
    flops: float = 0.0

    def __add__(self, other: "Work") -> "Work":
        return Work(self.trained + other.trained, self.tested + other.tested, self.flops + other.flops)


def run_work(run: RunConfig) -> Work:
    """Return the estimated work of a run, with the epochs of EPOCHS per experiment."""
    spec = dataset_spec(run.dataset.name)
    images = run.dataset.train_size or spec.train_size or 0
    tested = (run.dataset.test_size or spec.test_size or 0) * len(run.schedule)
    slower = NARROW if run.model.width else 1
    assumed = min(slower * EPOCHS.get(run.method.intervention, OTHERWISE), run.training.max_epochs)
    trained = 0.0
    for experiment in run.schedule:
        share = (experiment.last - experiment.first + 1) / run.chunks
        trained += images * share * (experiment.epochs or assumed)
    twice = 2 if run.optimizer.name == "sam" else 1
    shape, classes = image_shape(run), spec.classes or 10
    forward = _forward(run.model.name, run.model.normalisation, run.model.width, shape, classes)
    return Work(trained, tested, forward * (BACKWARD * twice * trained + tested))


def run_flops(run: RunConfig) -> float:
    """Return the estimated FLOPs of a run, training and tests."""
    return run_work(run).flops


def image_shape(run: RunConfig) -> tuple[int, int, int]:
    """Return (channels, height, width) of a run's images; 3x32x32 if only the data tell."""
    channels, height, width = dataset_spec(run.dataset.name).image_shape or (3, 32, 32)
    side = run.dataset.image_size
    return (channels, side, side) if side else (channels, height, width)


@cache
def _forward(name: str, normalisation: str, width: int | None, shape: tuple[int, int, int], classes: int) -> float:
    model = build_model(name, shape, classes, seed=0, normalisation=normalisation, width=width)
    return float(forward_flops(model, shape))
