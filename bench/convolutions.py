"""From which map size on torch's convolutions are faster than matrix products: `uv run python -m bench.convolutions`.

Forward and backward pass of the convolutions of ResNet-18 and their neighbours, 128 images, one thread, in turns.
"""

import argparse
import statistics
import time

import torch
from torch import nn

from bench.sections import table, write_section
from dash_core import convolution
from dash_core.device import choose_device, describe_machine, prepare_device

BATCH, TURNS = 128, 5
SHAPES = (  # channels in and out, side of the map, kernel, stride
    (64, 64, 16, 3, 1),
    (128, 128, 8, 3, 1),
    (128, 256, 8, 3, 2),
    (256, 256, 4, 3, 1),
    (256, 512, 4, 3, 2),
    (256, 512, 4, 1, 2),
    (512, 512, 2, 3, 1),
)


def milliseconds(layer: nn.Conv2d, images: torch.Tensor) -> float:
    started = time.perf_counter()
    layer(images).float().sum().backward()
    return 1000 * (time.perf_counter() - started)


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    prepare_device(choose_device("cpu"), 1)
    convolution.SMALL_MAP = 10_000
    rows = []
    for inputs, outputs, side, kernel, stride in SHAPES:
        layer = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False).to(
            memory_format=torch.channels_last
        )
        positions = ((side + stride - 1) // stride) ** 2
        cells = [f"{inputs}→{outputs}, {kernel}×{kernel}/{stride}", str(positions)]
        for bf16 in (False, True):
            images = torch.randn(BATCH, inputs, side, side).to(memory_format=torch.channels_last).requires_grad_()
            found = {nn.Conv2d: [], convolution.SmallMapConv2d: []}
            for turn in range(TURNS + 1):
                for kind, times in found.items():
                    layer.__class__ = kind
                    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                        taken = milliseconds(layer, images)
                    times += [taken] if turn else []
            theirs, ours = (statistics.median(times) for times in found.values())
            cells += [f"{theirs:.0f}", f"{ours:.0f}", f"{theirs / ours:.1f}"]
        rows.append(cells)
    headings = ["convolution", "positions", "fp32 torch, ms", "products", "×", "bf16 torch, ms", "products", "×"]
    lines = [f"Forward and backward pass of {BATCH} images, one thread.", "", *table(headings, rows)]
    machine = describe_machine(choose_device("cpu"), 1)
    write_section("Convolutions of small maps", "uv run python -m bench.convolutions", machine, lines)


if __name__ == "__main__":
    main()
