"""What the ranks of a test do; the same functions with `ALONE` are what they are compared with."""

import itertools
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dash_core.config import OptimizerConfig, TrainingConfig
from dash_core.data import ChunkPlan
from dash_core.errors import StopRequested
from dash_core.evaluation import evaluate
from dash_core.interventions import build_intervention
from dash_core.learner import Learner
from dash_core.loading import GrowingData, Normalisation, ResidentSet
from dash_core.loss import training_loss
from dash_core.models import build_model
from dash_core.optim import build_optimizer
from dash_core.parallel import ALONE, Ranks, joining
from dash_core.parallel.ranks import loopback_environment
from dash_core.recipes import resolve
from dash_core.run_state import Watch
from dash_core.training import Observers, train_chunk
from dash_core.trajectory import Trajectory
from tests import toy

CHUNKS = (101, 57, 1, 33)  # images; one chunk has fewer than there are ranks
SHAPE, CLASSES = (1, 8, 8), 4
Result = dict[str, Any]


def normalised(dtype: torch.dtype, device: torch.device = toy.CPU) -> Callable[[Tensor], Tensor]:
    normalise = Normalisation([0.3], [0.2], device)
    return lambda images: normalise(images).to(dtype)


def growing(
    chunks: tuple[int, ...] = CHUNKS, dtype: torch.dtype = torch.float64, device: torch.device = toy.CPU
) -> GrowingData:
    images = toy.images(sum(chunks))
    plan = ChunkPlan("toy", images.digest, 0, torch.arange(sum(chunks)).split(chunks))
    resident = ResidentSet.of(images.images, images.labels, normalised(dtype, device), device)
    return GrowingData(resident, plan, len(chunks))


def learner_of(
    ranks: Ranks,
    training: TrainingConfig,
    optimizer: OptimizerConfig,
    dtype: torch.dtype,
    device: torch.device = toy.CPU,
) -> Learner:
    return Learner(
        build=lambda seed: build_model("cnn3_small", SHAPE, CLASSES, seed=seed).to(dtype),
        make_optimizer=lambda made: build_optimizer(made, optimizer),
        seed=0,
        device=device,
        loss=partial(training_loss, training),
        ranks=ranks,
    )


def train(
    ranks: Ranks = ALONE,
    *,
    method: str = "warm",
    dtype: torch.dtype = torch.float64,
    optimizer: dict[str, Any] | None = None,
    device: str = "cpu",
    images: int = 99,  # with batches of 24 three remain, fewer than two for each rank
    **training: Any,
) -> Result:
    """Train on one chunk; return the curve, the outcome, the weights and what an evaluation finds."""
    given = TrainingConfig(**{"batch_size": 24, "max_epochs": 3, "precision": "exact", **training})
    chosen, config = resolve(OptimizerConfig(**{"lr": 0.05, **(optimizer or {})}), given, "toy")
    place = torch.device(device)
    learner = learner_of(ranks, config, chosen, dtype, place)
    reports = []
    with learner.meter.phase("train"):
        observers = Observers(after_epoch=reports.append)
        outcome = train_chunk(
            learner, growing((images,), dtype, place), config, build_intervention(method, {}), observers
        )
    test = toy.images(1100, seed=1)
    held = ResidentSet.of(test.images, test.labels, normalised(dtype, place), place)
    found = evaluate(learner, held, CLASSES)
    return {
        "curve": torch.tensor([[report.train_accuracy, report.train_loss] for report in reports], dtype=torch.float64),
        "outcome": (outcome.steps, outcome.epochs, outcome.converged),
        "weights": learner.model.state_dict(),
        "test": (found.accuracy, found.loss, found.class_accuracy),
        "flops": int(ranks.sum(torch.tensor(learner.meter.take()["train"].flops))),
    }


def shrink(ranks: Ranks = ALONE, *, dtype: torch.dtype = torch.float64, **parameters: Any) -> Result:
    """Apply DASH to a network whose running statistics are not those of its weights."""
    config = TrainingConfig(batch_size=24, precision="exact")
    learner = learner_of(ranks, config, OptimizerConfig(), dtype)
    draws = torch.Generator().manual_seed(3)
    for name, buffer in learner.model.named_buffers():
        if buffer.is_floating_point():
            shift = torch.rand(buffer.shape, generator=draws, dtype=torch.float64).to(dtype)
            buffer.copy_(shift + (0.5 if name.endswith("var") else -0.5))
    learner.averaging(lambda: normalised(dtype)(toy.images(2).images.permute(0, 3, 1, 2)))  # its hooks keep silent
    dash = build_intervention("dash", parameters)
    gradient = dash.gradient(learner, growing(dtype=dtype))
    report = dash.before_chunk(learner, growing(dtype=dtype))
    return {"gradient": gradient, "weights": learner.model.state_dict(), "report": report}


def run_of(**changes: Any) -> Any:
    small = {"batch_size": 16, "max_epochs": 12, "precision": "exact"}
    return toy.params(chunks=2, training=small | changes.pop("training", {}), **changes).run("dash", 0)


def trajectory(ranks: Ranks, folder: Path, run: Any, **options: Any) -> Trajectory:
    if ranks.first:
        folder.mkdir(parents=True, exist_ok=True)
    ranks.wait()
    data = toy.dataset(train=90, test=40)
    plan = ChunkPlan.split(data.train, run.dataset, run.chunks, run.seed, run.protocol)
    return Trajectory(run, data, plan, folder, device=toy.CPU, ranks=ranks, **options)


def carry_out(
    ranks: Ranks, folder: Path, run: Any, stop_on: tuple[int, int] | None = None, seconds: float = 60
) -> Result:
    """Carry a run out; stop_on: (rank, step) at which that rank alone is asked to stop."""
    steps = itertools.count(1)

    def stop() -> bool:
        return stop_on is not None and next(steps) >= stop_on[1] and ranks.rank == stop_on[0]

    moving = trajectory(ranks, folder, run, watch=Watch(stop=stop, seconds=seconds))
    try:
        toy.advance(moving)
    except StopRequested:
        return {"stopped": True, "done": next(steps) - 1}
    return {
        "records": [record.result() for record in moving.records],
        "process_seconds": [record.process_seconds for record in moving.records],
        "seconds": [record.total_cost.seconds for record in moving.records],
        "weights": moving.learner.model.state_dict(),
        "files": sorted(path.name for path in folder.iterdir()) if ranks.first else None,
    }


def run_rank(rank: int, size: int, folder: Path, scenario: Callable[[Ranks, Path], Result], device: str) -> None:
    """Carry a scenario out as one of several ranks, and leave its result in the folder."""
    torch.set_num_threads(1)
    os.environ |= loopback_environment()
    with joining(torch.device(device), folder / "store", rank, size, "gloo") as ranks:
        torch.save(scenario(ranks, folder), folder / f"{rank}.pt")


def in_ranks(size: int, folder: Path, scenario: Callable[[Ranks, Path], Result], device: str = "cpu") -> list[Result]:
    """Return the results of a scenario on each of several ranks, all on one device."""
    torch.multiprocessing.spawn(run_rank, (size, folder, scenario, device), nprocs=size)
    return [torch.load(folder / f"{rank}.pt", weights_only=False, map_location="cpu") for rank in range(size)]
