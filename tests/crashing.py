"""A run in a process of its own, which may be killed at any moment; light to import but for torch."""

from pathlib import Path

from dash_core.config import RunConfig
from dash_core.data import ChunkPlan, load_dataset
from dash_core.run_state import Watch
from dash_core.trajectory import Trajectory
from tests import toy

SAVE = 0.2  # seconds between two saves: far more often than a user's, so that a kill meets every kind of moment


def train_run(run: RunConfig, folder: Path) -> None:
    """Take the run on from where it stopped, to its end."""
    toy.torch.set_num_threads(1)
    data = load_dataset(run.dataset, data_root=folder, cache=folder)
    plan = ChunkPlan.split(data.train, run.dataset, run.chunks, run.seed, run.protocol)
    folder.mkdir(parents=True, exist_ok=True)
    toy.advance(Trajectory(run, data, plan, folder, device=toy.CPU, watch=Watch(seconds=SAVE)))
