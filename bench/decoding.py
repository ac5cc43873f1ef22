"""Images decoded per second, with 1 thread and with one for each core: `uv run python -m bench.decoding` (seconds).

JPEGs of ImageNet's usual size (500x375, about 100 kB) are made in a temporary folder, decoded and cut to 224x224 in
turns of 1 thread and of all, so that a machine that slows down slows both. The ratio of the medians is what counts.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from bench.sections import write_section
from dash_core.data import silent
from dash_core.data.decoding import ImageFiles
from dash_core.device import describe_machine, usable_cores

SIZE, COARSE = (500, 375), (125, 94)  # width and height; of the noise, so that its JPEG is as large as a photograph's


def make_images(folder: Path, count: int) -> ImageFiles:
    """Write so many JPEGs of smoothed noise; return them as a dataset of which one image is the test set."""
    random = np.random.default_rng(0)
    files = [folder / f"{number}.JPEG" for number in range(count)]
    for file in files:
        noise = Image.fromarray(random.integers(0, 256, (*COARSE[::-1], 3), dtype=np.uint8))
        noise.resize(SIZE, Image.Resampling.BICUBIC).save(file, quality=95)
    return ImageFiles("bench", ("any",), files, torch.zeros(count, dtype=torch.int64), count - 1, size=224)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=256, help="decoded in a turn, 2 or more (default: 256)")
    parser.add_argument("--turns", type=int, default=9, help="of each number of threads (default: 9)")
    given = parser.parse_args()

    cores = usable_cores()
    with tempfile.TemporaryDirectory() as folder:
        found = make_images(Path(folder), given.images)
        size = statistics.mean(file.stat().st_size for file in found.files)
        seconds: dict[int, list[float]] = {1: [], cores: []}
        for _ in range(given.turns):
            for threads, taken in seconds.items():
                start = time.perf_counter()
                found.decoded(silent, lambda block: None, threads)
                taken.append(time.perf_counter() - start)
    one, every = (given.images / statistics.median(taken) for taken in (seconds[1], seconds[cores]))
    lines = [
        f"JPEGs of {size / 1000:.0f} kB: 1 thread {one:,.0f} images/s, {cores} threads {every:,.0f} images/s, "
        f"ratio {every / one:.2f}",
    ]
    machine = describe_machine(torch.device("cpu"), cores)
    write_section("Decoding a folder", "uv run python -m bench.decoding", machine, lines)


if __name__ == "__main__":
    main()
