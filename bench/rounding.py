"""Rounding errors of minimal filtering: `uv run python -m bench.rounding --data-root FOLDER` (a minute).

Outputs and gradients of convolutions of random images, and DASH's shrink factors of a lightly trained network on real
ones, in fp32 by torch's convolutions, by columns and by minimal filtering, against those in float64. A factor is a
cosine, which amplifies small errors.
"""

import argparse
import copy
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from bench.authors_way import images
from bench.comparison import RATES
from bench.convolution_ways import take
from bench.sections import table, write_section
from dash_core.convolution import use_fast_convolutions_
from dash_core.device import choose_device, describe_machine, prepare_device, usable_cores
from dash_core.models import build_model
from dash_core.shrinking import averaged_gradient, cosine_similarity, weights_and_biases

CHUNKS, CHUNK, EPOCHS = 8, 128, 6  # trained on the first half of the chunks
FLOOR = 0.3
COMPARED = ("torch", "columns", "ours")
SHAPES = ((64, 16), (128, 8), (256, 4), (512, 2))  # channels and side of the map, as in ResNet-18


def trained(model: str, chunks: list[tuple[Tensor, Tensor]]) -> nn.Module:
    """Return a network that was trained for some epochs."""
    network = build_model(model, (3, 32, 32), 10, seed=0).to(memory_format=torch.channels_last)
    use_fast_convolutions_(network)
    optimizer = torch.optim.SGD(network.parameters(), lr=RATES.get(model, 0.01), momentum=0.9)
    for inputs, labels in chunks[: CHUNKS // 2] * EPOCHS:
        functional.cross_entropy(network(inputs), labels).backward()
        optimizer.step()
        optimizer.zero_grad()
    return network


def factors(network: nn.Module, chunks: list[tuple[Tensor, Tensor]], dtype: torch.dtype, way: str) -> Tensor:
    """Return the factors of all weight vectors, (V,), float64."""
    take(way)
    twin = copy.deepcopy(network).to(dtype)
    gradient = averaged_gradient(twin, [(inputs.to(dtype), labels) for inputs, labels in chunks])
    vectors = weights_and_biases(twin)
    return torch.cat(
        [
            cosine_similarity(weight.detach(), gradient[name], dims).neg().clamp(min=FLOOR).double().flatten()
            for name, weight, dims in vectors
        ]
    )


def outputs_and_gradients(channels: int, side: int, dtype: torch.dtype, way: str) -> list[Tensor]:
    """Return the output of a convolution and the gradients of images and weights."""
    take(way)
    draws = torch.Generator().manual_seed(0)
    layer = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
    layer.weight.data = torch.randn(layer.weight.shape, generator=draws) * (2 / (9 * channels)) ** 0.5
    images, gradient = (torch.randn(CHUNK, channels, side, side, generator=draws) for _ in range(2))
    use_fast_convolutions_(layer.to(dtype))
    images = images.relu().to(dtype).requires_grad_()
    output = layer(images)
    output.backward(gradient.to(dtype))
    return [output.detach(), images.grad, layer.weight.grad]


def convolutions() -> list[list[str]]:
    """Return a row for each shape and way: the root mean square errors, relative to the root mean square."""
    rows = []
    for channels, side in SHAPES:
        judge = outputs_and_gradients(channels, side, torch.float64, "torch")
        for way in COMPARED:
            found = outputs_and_gradients(channels, side, torch.float32, way)
            errors = ((made.double() - true).norm() / true.norm() for made, true in zip(found, judge, strict=True))
            rows.append([f"{channels} channels, {side}×{side}", way, *(f"{float(error):.1e}" for error in errors)])
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", type=Path, required=True, help="folder of CIFAR-10 as torchvision has it")
    given = parser.parse_args()

    device, rows = choose_device("cpu"), []
    prepare_device(device, usable_cores())
    for model in ("cnn3", "resnet18"):
        data, _ = images(given.data_root, model, CHUNKS * CHUNK, 1)
        pixels, labels = (torch.stack([torch.as_tensor(data[i][part]) for i in range(len(data))]) for part in (0, 1))
        chunks = list(zip(pixels.split(CHUNK), labels.split(CHUNK), strict=True))
        network = trained(model, chunks)
        judge = factors(network, chunks, torch.float64, "torch")
        for way in COMPARED:
            off = (factors(network, chunks, torch.float32, way) - judge).abs()
            shares = (f"{float((off > bound).double().mean()):.3%}" for bound in (1e-3, 1e-2))
            rows.append([model, way, f"{len(off):,}", f"{float(off.mean()):.1e}", *shares])
    lines = [
        f"Convolutions of {CHUNK} random images: relative errors in fp32 against float64.",
        "",
        *table(["convolution", "way", "outputs", "images' gradient", "weights' gradient"], convolutions()),
        "",
        f"DASH's factors (floor {FLOOR}) in fp32 against float64: {CHUNKS} chunks of {CHUNK} images of CIFAR-10, the "
        f"network trained for {EPOCHS} epochs on half of them.",
        "",
        *table(["model", "convolutions", "weight vectors", "mean error", "off by > 0.001", "off by > 0.01"], rows),
    ]
    command = "uv run python -m bench.rounding --data-root FOLDER"
    write_section("Rounding of convolutions", command, describe_machine(device, usable_cores()), lines)


if __name__ == "__main__":
    main()
