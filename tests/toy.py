"""Small real runs for tests: sets that take milliseconds to learn."""

import itertools
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from dash_core.checkpoint import CheckpointWriter
from dash_core.comparison import Params
from dash_core.config import RunConfig, merge, parse
from dash_core.data import ChunkPlan, Dataset, ImageSet
from dash_core.errors import ConfigError as ConfigError
from dash_core.errors import StopRequested
from dash_core.run_state import Watch
from dash_core.trajectory import Trajectory

CPU = torch.device("cpu")


def images(count: int, side: int = 8, channels: int = 1, classes: int = 4, seed: int = 0) -> ImageSet:
    """Return noisy images whose class shows as a bright row."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % classes
    pixels = torch.randint(0, 120, (count, side, side, channels), generator=generator)
    pixels[torch.arange(count), labels % side] += 100
    names = tuple(f"class {number}" for number in range(classes))
    return ImageSet(pixels.to(torch.uint8), labels, names, (0.3,) * channels, (0.2,) * channels)


def dataset(train: int = 64, test: int = 32, **shape: int) -> Dataset:
    return Dataset("toy", images(train, **shape), images(test, seed=1, **shape))


def params(**changes: object) -> Params:
    base = {"chunks": 3, "training": {"batch_size": 16, "max_epochs": 60}, "seeds": [0]}
    return parse(Params, merge(base, changes))


def trajectory(folder: Path, run: RunConfig, data: Dataset, **options: object) -> Trajectory:
    folder.mkdir(parents=True, exist_ok=True)
    plan = ChunkPlan.split(data.train, run.dataset, run.chunks, run.seed, run.protocol)
    return Trajectory(run, data, plan, folder, device=CPU, **options)


def advance(moving: Trajectory, chunks: int | None = None) -> Trajectory:
    """Do the next `chunks` pending experiments, or all of them and finish."""
    for _ in moving.pending[:chunks]:
        moving.advance()
    if not moving.pending:
        moving.finish({})
    return moving


def interrupted(folder: Path, run: RunConfig, data: Dataset, stops: Sequence[int]) -> Trajectory:
    """Carry a run out, asked to stop after so many steps each time; at last it is not, and ends."""
    for steps in stops:
        left = itertools.count(steps, -1)
        with pytest.raises(StopRequested):
            advance(trajectory(folder, run, data, watch=Watch(stop=lambda left=left: next(left) <= 1)))
    return advance(trajectory(folder, run, data))


def results(moving: Trajectory) -> list[dict]:
    return [record.result() for record in moving.records]


def save_checkpoint(path: Path, state: dict) -> None:
    """Save a state, and wait for it."""
    with CheckpointWriter(path) as writer:
        writer.save(state)
