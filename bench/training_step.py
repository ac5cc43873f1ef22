"""Images a second of a training step, the authors' way, exact and in bf16: `uv run python -m bench.training_step`.

Each model takes SGD steps of 128 images of CIFAR-10's size, all ways in turns, each in a process of its own that waits
while another works, so that a machine that slows down slows all. The ratio of the medians is what counts. The authors'
way is that of bench/authors_way.py, its batches in memory already: how images are loaded is not measured here. bf16
is measured where the device has instructions for it.
"""

import argparse
import itertools
import multiprocessing
import statistics
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import torch
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from bench import authors_way
from bench.sections import table, write_section
from dash_core.comparison import Params
from dash_core.config import parse
from dash_core.data import ChunkPlan, Dataset
from dash_core.device import choose_device, describe_machine, prepare_device
from dash_core.errors import StopRequested
from dash_core.precision import has_bf16
from dash_core.run_state import Watch
from dash_core.trajectory import Trajectory
from tests import toy

BATCH, SKIPPED = 128, 2  # images a step; steps that are not timed, at each start
SHAPE = {"side": 32, "channels": 3, "classes": 10}
PEAK = 2048  # side of the square matrices whose product is the peak


def our_steps(model: str, precision: str, steps: int) -> list[float]:
    """Return the seconds of each of so many steps of a run's first chunk."""
    device = choose_device("auto")
    data = Dataset("bench", toy.images(BATCH * 8, **SHAPE), toy.images(10, **SHAPE))
    training = {"precision": precision, "batch_size": BATCH, "stop_accuracy": 1.0, "max_epochs": 1000}
    run = parse(Params, {"model": {"name": model}, "chunks": 1, "training": training}).run("warm", 0)
    plan = ChunkPlan.split(data.train, run.dataset, 1, 0)
    moments = []

    def stop() -> bool:
        moments.append(_now(device))
        return len(moments) > steps + SKIPPED

    with tempfile.TemporaryDirectory() as folder:
        moving = Trajectory(run, data, plan, Path(folder), device=device, watch=Watch(stop=stop, seconds=1e9))
        try:
            moving.advance()
        except StopRequested:
            return [end - start for start, end in itertools.pairwise(moments[SKIPPED:])]
    raise SystemExit(f"{model} learned the images before it was timed")


def their_steps(model: str, _: str, steps: int) -> list[float]:
    """Return the seconds of each of so many steps in the authors' way."""
    device = choose_device("auto")
    network = authors_way.build(model).to(device).train()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9, foreach=False)
    inputs, labels = torch.randn(BATCH, 3, 32, 32, device=device), torch.arange(BATCH, device=device) % 10
    moments = []
    for _ in range(steps + SKIPPED + 1):
        moments.append(_now(device))
        optimizer.zero_grad()
        outputs = network(inputs)
        loss = functional.cross_entropy(outputs, labels)
        loss.backward()
        optimizer.step()
        (outputs.argmax(1) == labels).sum().item()
        loss.item()
    return [end - start for start, end in itertools.pairwise(moments[SKIPPED:])]


def peak(_: str, precision: str, steps: int) -> list[float]:
    """Return the seconds of each of so many products of square matrices."""
    device = choose_device("auto")
    a, b = (torch.randn(PEAK, PEAK, device=device, dtype=KINDS[precision]) for _ in range(2))
    moments = []
    for _ in range(steps + SKIPPED + 1):
        moments.append(_now(device))
        a @ b
    return [end - start for start, end in itertools.pairwise(moments[SKIPPED:])]


def step_flops(model: str) -> int:
    """Return the floating-point operations of one step."""
    network = authors_way.build(model)
    with FlopCounterMode(display=False) as counter:
        functional.cross_entropy(network(torch.zeros(BATCH, 3, 32, 32)), torch.zeros(BATCH).long()).backward()
    return counter.get_total_flops()


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def _ours(threads: int) -> None:
    prepare_device(choose_device("auto"), threads)


KINDS = {"exact": torch.float32, "bf16": torch.bfloat16}
WAYS = (
    ("authors' way", their_steps, ""),
    ("exact", our_steps, "exact"),
    ("exact peak", peak, "exact"),
    ("bf16", our_steps, "bf16"),
    ("bf16 peak", peak, "bf16"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["mlp", "cnn3", "resnet18"])
    parser.add_argument("--steps", type=int, default=8, help="timed in a turn (default: 8)")
    parser.add_argument("--turns", type=int, default=3, help="of each way (default: 3)")
    parser.add_argument("--threads", type=int, default=1, help="of torch (default: 1, as in a comparison)")
    given = parser.parse_args()

    context, rows = multiprocessing.get_context("spawn"), []
    start = {"authors' way": torch.set_num_threads}
    ways = [way for way in WAYS if way[2] != "bf16" or has_bf16(choose_device("auto"))]
    workers = {way: ProcessPoolExecutor(1, context, start.get(way, _ours), (given.threads,)) for way, *_ in ways}
    for model in given.models:
        seconds = {way: [] for way, *_ in ways}
        for _ in range(given.turns):
            for way, function, precision in ways:
                seconds[way] += workers[way].submit(function, model, precision, given.steps).result()
        middle = {way: statistics.median(found) for way, found in seconds.items()}
        rows.append(_row(model, middle))
        print(rows[-1], flush=True)
    for worker in workers.values():
        worker.shutdown()
    headings = ["model", "authors' way", "exact", "×", "of peak", "bf16", "×", "of peak"]
    lines = [
        f"Images/s of SGD steps of {BATCH} images of 3×32×32, {given.threads} thread(s); ×: against the authors' way; "
        f"the peak is that of {PEAK}² matrix products in the same precision, measured in the same turns; a "
        "step's FLOPs are those of the direct convolutions, of which not all are made. –: the device has no bf16.",
        "",
        *table(headings, rows),
    ]
    write_section(
        f"A training step, {given.threads} thread(s)",
        f"uv run python -m bench.training_step --threads {given.threads}",
        describe_machine(choose_device("auto"), given.threads),
        lines,
    )


def _row(model: str, middle: dict[str, float]) -> list[str]:
    flops, theirs = step_flops(model), middle["authors' way"]
    cells = [model, f"{BATCH / theirs:,.0f}"]
    for way in KINDS:
        if way not in middle:
            cells += ["–"] * 3
            continue
        share = (flops / middle[way]) / (2 * PEAK**3 / middle[f"{way} peak"])
        cells += [f"{BATCH / middle[way]:,.0f}", f"{theirs / middle[way]:.1f}", f"{share:.0%}"]
    return cells


if __name__ == "__main__":
    main()
