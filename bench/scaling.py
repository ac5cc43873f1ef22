"""How time grows with chunks, images, methods and workers: `uv run python -m bench.scaling` (ten minutes).

Runs of the MLP on images that arrive in chunks, the epochs of each chunk given, so that the work is known; seconds
of the command's trainings side by side, without the start of its services.
"""

import argparse
import multiprocessing
import statistics
import tempfile
import time
from pathlib import Path

from bench.sections import table, write_section
from dash_core.comparison import Params
from dash_core.config import RunConfig, parse
from dash_core.data import ChunkPlan, Dataset
from dash_core.device import choose_device, describe_machine, prepare_device
from dash_core.trajectory import Trajectory
from tests import toy

METHODS = ("cold", "warm", "shrink_perturb", "dash")
EPOCHS = 4  # of each chunk
TURNS = 3


def train(job: tuple[RunConfig, int]) -> None:
    """Train one run on a number of images."""
    run, images = job
    prepare_device(choose_device("cpu"), 1)
    shape = {"side": 32, "channels": 3, "classes": 10}
    data = Dataset("bench", toy.images(images, **shape), toy.images(500, **shape))
    plan = ChunkPlan.split(data.train, run.dataset, run.chunks, run.seed)
    with tempfile.TemporaryDirectory() as folder:
        toy.advance(Trajectory(run, data, plan, Path(folder), device=toy.CPU))


def seconds(chunks: int = 5, images: int = 2000, methods: int = 4, workers: int = 2) -> float:
    """Return the seconds of all runs, one for each method."""
    training = {"stop_accuracy": 1.0, "max_epochs": EPOCHS}
    params = parse(Params, {"chunks": chunks, "model": {"name": "mlp"}, "training": training})
    jobs = [(params.run(METHODS[number % len(METHODS)], number), images) for number in range(methods)]
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        pool.map(int, range(workers))  # the processes are there
        started = time.perf_counter()
        pool.map(train, jobs, chunksize=1)
        return time.perf_counter() - started


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    axes = {"chunks": (5, 10, 20), "images": (1000, 2000, 4000), "methods": (2, 4, 8), "workers": (1, 2)}
    points = [(name, value) for name, values in axes.items() for value in values]
    turns = [{point: seconds(**dict([point])) for point in points} for _ in range(TURNS)]
    middle = {point: statistics.median(turn[point] for turn in turns) for point in points}
    rows = [
        [name, ", ".join(map(str, values)), ", ".join(f"{middle[name, value]:.1f}" for value in values)]
        for name, values in axes.items()
    ]
    lines = [
        f"`mlp`, {EPOCHS} epochs of each chunk; where not varied 5 chunks, 2,000 images of 3×32×32, 4 methods, 2 "
        f"workers of one thread; medians of {TURNS}, taken in turns. The images of all experiments together are "
        "images × (chunks + 1) / 2.",
        "",
        *table(["varied", "values", "seconds"], rows),
    ]
    machine = describe_machine(choose_device("cpu"), 1)
    write_section("Scaling", "uv run python -m bench.scaling", machine, lines)


if __name__ == "__main__":
    main()
