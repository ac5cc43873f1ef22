"""Images a second of a training step, exact and in bf16: `uv run python -m bench.training_step` (some minutes).

Each model takes SGD steps of 128 images of CIFAR-10's size, in turns of exact and bf16 within one process, so that a
machine that slows down slows both. The ratio of the medians is what counts.
"""

import argparse
import itertools
import statistics
import tempfile
import time
from pathlib import Path

import torch

from dash_core.comparison import Params
from dash_core.config import parse
from dash_core.data import ChunkPlan, Dataset
from dash_core.device import choose_device, describe_machine, prepare_device
from dash_core.errors import StopRequested
from dash_core.trajectory import Trajectory, Watch
from tests import toy

BATCH, SKIPPED = 128, 2  # images a step; steps that are not timed, at each start


def step_seconds(model: str, precision: str, steps: int, device: torch.device) -> list[float]:
    """Return the seconds of each of so many steps of a run's first chunk."""
    shape = {"side": 32, "channels": 3, "classes": 10}
    data = Dataset("bench", toy.images(BATCH * 8, **shape), toy.images(10, **shape))
    training = {"precision": precision, "batch_size": BATCH, "stop_accuracy": 1.0, "max_epochs": 1000}
    run = parse(Params, {"model": {"name": model}, "chunks": 1, "training": training}).run("warm", 0)
    plan = ChunkPlan.split(data.train, run.dataset, 1, 0)
    moments = []

    def stop() -> bool:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        moments.append(time.perf_counter())
        return len(moments) > steps + SKIPPED

    with tempfile.TemporaryDirectory() as folder:
        watch = Watch(stop=stop, seconds=1e9)
        moving = Trajectory(run, data, plan, Path(folder), device=device, watch=watch)
        try:
            moving.train(1)
        except StopRequested:
            return [end - start for start, end in itertools.pairwise(moments[SKIPPED:])]
    raise SystemExit(f"{model} learned the images before it was timed")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["mlp", "cnn3", "resnet18"])
    parser.add_argument("--steps", type=int, default=10, help="timed in a turn (default: 10)")
    parser.add_argument("--turns", type=int, default=3, help="of each precision (default: 3)")
    parser.add_argument("--threads", type=int, default=1, help="of torch (default: 1, as in a comparison)")
    given = parser.parse_args()

    device = choose_device("auto")
    prepare_device(device, given.threads)
    print(describe_machine(device, given.threads))
    for model in given.models:
        seconds = {"exact": [], "bf16": []}
        for _ in range(given.turns):
            for precision, found in seconds.items():
                found += step_seconds(model, precision, given.steps, device)
        rates = {precision: BATCH / statistics.median(found) for precision, found in seconds.items()}
        print(
            f"{model}: exact {rates['exact']:,.0f} images/s, bf16 {rates['bf16']:,.0f} images/s, "
            f"ratio {rates['bf16'] / rates['exact']:.2f}"
        )


if __name__ == "__main__":
    main()
