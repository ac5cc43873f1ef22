"""What saving a run's state costs: `uv run python -m bench.checkpoints` (about five minutes on two cores).

Trains the paper's ResNet-18 with SGD and momentum on images of CIFAR-10's size, saving at the default interval, and
prints the seconds of each phase as the cost meter has them; then saves ten times at once, for the spread of one save.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch

from bench.sections import write_section
from dash_core.checkpoint import CheckpointWriter
from dash_core.comparison import CompareConfig, Params
from dash_core.config import parse
from dash_core.data import ChunkPlan
from dash_core.device import choose_device, describe_machine, prepare_device
from dash_core.run_state import Watch
from dash_core.trajectory import Trajectory
from tests import toy


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=6000, help="of the second chunk's training set (default: 6000)")
    parser.add_argument("--epochs", type=int, default=8, help="of each of the two chunks (default: 8)")
    parser.add_argument("--threads", type=int, default=2, help="of torch (default: 2)")
    given = parser.parse_args()

    device, interval = choose_device("auto"), CompareConfig().checkpoint_seconds
    prepare_device(device, given.threads)
    data = toy.Dataset(
        "cifar10",
        toy.images(given.images, side=32, channels=3, classes=10),
        toy.images(100, side=32, channels=3, classes=10, seed=1),
    )
    settings = {"model": {"name": "resnet18"}, "training": {"max_epochs": given.epochs, "stop_accuracy": 1.0}}
    run = parse(Params, {**settings, "chunks": 2}).run("warm", 0)
    plan = ChunkPlan.split(data.train, run.dataset, run.chunks, run.seed)
    machine = describe_machine(device, given.threads)
    with tempfile.TemporaryDirectory() as folder:
        moving = Trajectory(run, data, plan, Path(folder), device=device, watch=Watch(seconds=interval))
        toy.advance(moving, 2)
        spent = {name: sum(record.cost[name].seconds for record in moving.records) for name in moving.records[0].cost}
        spent["checkpoint"] += moving.learner.meter.take()["checkpoint"].seconds
        share = spent["checkpoint"] / spent["train"]
        path, state = Path(folder) / "bench.ckpt", {"learner": moving.learner.state_dict()}
        writer, waits, writes = CheckpointWriter(path), [], []
        for _ in range(10):
            started = time.perf_counter()
            writer.save(state)
            waits.append(time.perf_counter() - started)
            writer.wait()
            writes.append(time.perf_counter() - started)
        size = path.stat().st_size / 2**20
    lines = [
        f"Saved every {interval:.0f} s and at each chunk's end: {share:.2%} of {spent['train']:.0f} s of training of "
        f"ResNet-18. One save of {size:.0f} MiB delays the training by {statistics.median(waits):.2f} s (at most "
        f"{max(waits):.2f}) and is on disk after {statistics.median(writes):.2f} s (at most {max(writes):.2f}); "
        f"{len(writes)} saves.",
    ]
    write_section("Saving a run's state", "uv run python -m bench.checkpoints", machine, lines)


if __name__ == "__main__":
    torch.manual_seed(0)
    main()
