"""DASH's pass, ours against the authors' way: `uv run python -m bench.dash_pass` (some minutes).

Seconds and peak memory of one pass over a growing number of chunks of random images of CIFAR-10's size, each measured
in a process of its own; ours with and without a cutoff, in fp32 as always. Random pixels cost what real ones do.
"""

import argparse
import multiprocessing
import resource
import time
from concurrent.futures import ProcessPoolExecutor

import torch

from bench import authors_way
from bench.sections import table, write_section
from dash_core import dash_
from dash_core.convolution import use_fast_convolutions_
from dash_core.device import choose_device, describe_machine, prepare_device
from dash_core.models import build_model

MICRO = 128  # images of a micro-batch, ours


def measured(way: str, model: str, chunks: int, images: int) -> tuple[float, float]:
    """Return seconds and MiB of peak memory above those before the pass."""
    draws = torch.Generator().manual_seed(0)
    data = [(torch.randn(images, 3, 32, 32, generator=draws), torch.arange(images) % 10) for _ in range(chunks)]
    if way == "authors' way":
        torch.set_num_threads(1)
        network = authors_way.build(model).eval()
    else:
        prepare_device(choose_device("cpu"), 1)
        network = build_model(model, (3, 32, 32), 10, seed=0).to(memory_format=torch.channels_last)
        use_fast_convolutions_(network)
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
    if way == "authors' way":
        authors_way.dash(network, data)
    else:
        dash_(network, data, cutoff=0.001 if way == "cutoff" else 0.0, micro_batch_size=MICRO)
    seconds = time.perf_counter() - started
    return seconds, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--images", type=int, default=250, help="of a chunk (default: 250)")
    parser.add_argument("--chunks", type=int, nargs="+", default=[1, 4, 40], help="(default: 1 4 40)")
    given = parser.parse_args()

    context, rows = multiprocessing.get_context("spawn"), []
    for chunks in given.chunks:
        cells = [str(chunks)]
        for way in ("authors' way", "ours", "cutoff"):
            with ProcessPoolExecutor(1, context) as worker:
                seconds, memory = worker.submit(measured, way, given.model, chunks, given.images).result()
            cells += [f"{seconds:.1f}", f"{memory:,.0f}"]
        rows.append(cells)
        print(cells, flush=True)
    lines = [
        f"{given.model}, chunks of {given.images} images, 1 thread, fp32; ours in micro-batches of {MICRO}. Memory is "
        "the rise of the peak during the pass, without the data.",
        "",
        *table(["chunks", "authors' way, s", "MiB", "ours, s", "MiB", "cutoff 0.001, s", "MiB"], rows),
    ]
    command = f"uv run python -m bench.dash_pass --model {given.model} --images {given.images}"
    write_section("DASH's pass", command, describe_machine(choose_device("cpu"), 1), lines)


if __name__ == "__main__":
    main()
