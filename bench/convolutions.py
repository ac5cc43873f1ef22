"""The fastest way to compute each convolution: `uv run python -m bench.convolutions`.

Forward and backward pass of the convolutions of ResNet-18 and of the 3-layer CNN, one thread, in turns: torch's,
products of columns, one product where the output is one position, and minimal filtering (dash_core/convolution), which
is for fp32 alone. bf16 is measured where the processor has instructions for it. `--thin` measures those of ResNets of a
quarter of the width instead, in a section of its own: they have fewer channels than filtering and columns are used for.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from bench.convolution_ways import take
from bench.sections import table, write_section
from dash_core.convolution import use_fast_convolutions_
from dash_core.device import choose_device, describe_machine, prepare_device
from dash_core.precision import has_bf16

IMAGES, TURNS = (128, 32), 5
THIN_IMAGES, THIN_TURNS = (64, 32), 60  # they take a millisecond, so the fastest turn tells and not the median
SHAPES = (  # channels in and out, side of the map, kernel, stride
    (64, 64, 32, 3, 1),
    (64, 64, 16, 3, 1),
    (64, 128, 16, 3, 1),
    (128, 128, 8, 3, 1),
    (128, 256, 8, 3, 1),
    (128, 256, 8, 3, 2),
    (256, 256, 4, 3, 1),
    (256, 512, 4, 3, 2),
    (256, 512, 4, 1, 2),
    (512, 512, 2, 3, 1),
)
THIN = (
    (16, 16, 16, 3, 1),
    (16, 32, 16, 3, 2),
    (32, 32, 8, 3, 1),
    (32, 64, 8, 3, 2),
    (64, 64, 4, 3, 1),
    (64, 128, 4, 3, 2),
    (128, 128, 2, 3, 1),
    (16, 16, 4, 3, 1),
    (32, 32, 2, 3, 1),
    (64, 64, 1, 3, 1),
    (128, 128, 1, 3, 1),
    (64, 128, 2, 3, 2),
)
KINDS = {"fp32": ("torch", "columns", "filtering", "single"), "bf16": ("torch", "columns", "single")}


def milliseconds(layer: nn.Conv2d, images: Tensor, gradient: Tensor, way: str, bf16: bool) -> float:
    """Return the time of a forward and backward pass in one way."""
    take(way)
    layer.weight.grad = images.grad = None
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        started = time.perf_counter()
        output = layer(images)
    output.backward(gradient.to(output.dtype))
    return 1000 * (time.perf_counter() - started)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--thin", action="store_true", help="the convolutions of thin ResNets")
    thin = parser.parse_args().thin
    device = choose_device("cpu")
    prepare_device(device, 1)
    kinds = [kind for kind in KINDS if kind == "fp32" or has_bf16(device)]
    headings = ["convolution", "map", "images", *(f"{kind} {way}, ms" for kind in kinds for way in KINDS[kind])]
    counts, shapes = (THIN_IMAGES, THIN) if thin else (IMAGES, SHAPES)
    turns, typical = (THIN_TURNS, min) if thin else (TURNS, statistics.median)
    rows = [measured(shape, images, kinds, turns, typical) for images in counts for shape in shapes]
    what = f"the fastest of {turns} turns" if thin else f"the median of {turns} turns"
    lines = [f"Forward and backward pass, one thread, {what}; the fastest way in bold.", "", *table(headings, rows)]
    title = "Convolutions of thin networks" if thin else "Convolutions"
    command = "uv run python -m bench.convolutions" + (" --thin" if thin else "")
    write_section(title, command, describe_machine(device, 1), lines)


def measured(
    shape: tuple[int, ...], count: int, kinds: list[str], turns: int, typical: Callable[[list[float]], float]
) -> list[str]:
    """Return a row of the table: one convolution of `count` images, and the typical time of its turns."""
    inputs, outputs, side, kernel, stride = shape
    layer = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False).to(memory_format=torch.channels_last)
    use_fast_convolutions_(layer)
    images = torch.randn(count, inputs, side, side).to(memory_format=torch.channels_last).requires_grad_()
    gradient = torch.randn_like(layer(images))
    cells = [f"{inputs}→{outputs}, {kernel}×{kernel}/{stride}", f"{side}×{side}", str(count)]
    for kind in kinds:
        possible = {"filtering": (kernel, stride) == (3, 1), "single": gradient[0, 0].numel() == 1}
        taken = {way: [] for way in KINDS[kind] if possible.get(way, True)}
        for turn in range(turns + 1):
            for way, times in taken.items():
                found = milliseconds(layer, images, gradient, way, kind == "bf16")
                times += [found] if turn else []
        middle = {way: typical(times) for way, times in taken.items()}
        best, digits = min(middle.values()), ".1f" if max(middle.values()) > 9 else ".2f"
        told = {way: f"**{value:{digits}}**" if value == best else f"{value:{digits}}" for way, value in middle.items()}
        cells += [told.get(way, "–") for way in KINDS[kind]]
    print(cells, flush=True)
    return cells


if __name__ == "__main__":
    main()
