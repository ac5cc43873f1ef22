"""The authors' way of training, written again in their style to measure ours against; nothing else uses it.

One image after another through PIL, ToTensor and Normalize in a DataLoader without workers; eager fp32 in torch's own
layout; SGD without fused kernels; `.item()` at every step; the whole model copied and every average a new tensor in
DASH. `python -m bench.authors_way` runs a comparison: one method after another, in one process and thread.
"""

import argparse
import copy
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import ConcatDataset, DataLoader, Dataset, Subset, random_split

from dash_core.models import build_model, model_spec

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)


def build(name: str, classes: int = 10) -> nn.Module:
    """Return a model as torch builds it; cnn3 with ReLU before the pool and an adaptive average, as is usual."""
    model = build_model(name, (3, 32, 32), classes, seed=0)
    if name == "cnn3":
        for block in (model.block1, model.block2):
            block[2], block[3] = block[3], block[2]
        model.block3[3] = nn.AdaptiveAvgPool2d(1)
    return model


def images(root: Path, model: str, train: int, test: int) -> tuple[Dataset, Dataset]:
    """Return CIFAR-10 through PIL, cut to so many images."""
    from torchvision import transforms
    from torchvision.datasets import CIFAR10

    steps = [transforms.ToTensor()]
    if model_spec(model).normalised:
        steps.append(transforms.Normalize(MEAN, STD))
    transform = transforms.Compose(steps)
    whole, held_out = (CIFAR10(root, train=part, transform=transform) for part in (True, False))
    return Subset(whole, range(train)), Subset(held_out, range(test))


def train(model: nn.Module, optimizer: torch.optim.Optimizer, data: Dataset, epochs: int) -> None:
    """Train for so many epochs."""
    model.train()
    for _ in range(epochs):
        right = 0
        for inputs, labels in DataLoader(data, batch_size=128, shuffle=True):
            optimizer.zero_grad()
            outputs = model(inputs)
            loss = functional.cross_entropy(outputs, labels)
            loss.backward()
            optimizer.step()
            right += (outputs.argmax(1) == labels).sum().item()
            loss.item()


def evaluate(model: nn.Module, data: Dataset) -> float:
    """Return the mean of the batches' accuracies."""
    model.eval()
    with torch.no_grad():
        found = [(model(x).argmax(1) == y).float().mean().item() for x, y in DataLoader(data, batch_size=128)]
    return sum(found) / len(found)


def dash_gradient(model: nn.Module, chunks: list[tuple[Tensor, Tensor]], alpha: float = 0.3) -> list[Tensor]:
    """Return the averaged negative gradient of a copy of the model."""
    twin = copy.deepcopy(model)
    average = None
    for inputs, labels in chunks:
        twin.zero_grad()
        functional.cross_entropy(twin(inputs), labels).backward()
        negative = [-parameter.grad for parameter in twin.parameters()]
        average = (
            negative
            if average is None
            else [(1 - alpha) * a + alpha * g for a, g in zip(average, negative, strict=True)]
        )
    return average


def dash(model: nn.Module, chunks: list[tuple[Tensor, Tensor]], floor: float = 0.3) -> None:
    """Shrink the Conv2d and Linear weights and biases."""
    directions = dict(zip([name for name, _ in model.named_parameters()], dash_gradient(model, chunks), strict=True))
    for name, module in model.named_modules():
        for kind, parameter in module.named_parameters(recurse=False):
            if not isinstance(module, nn.Conv2d | nn.Linear):
                continue
            shape = parameter.shape
            flat = (*shape[:2], -1) if len(shape) == 4 else (shape[0], -1) if len(shape) == 2 else (1, -1)
            direction = directions[f"{name}.{kind}" if name else kind].reshape(flat)
            cosine = functional.cosine_similarity(parameter.data.reshape(flat), direction, dim=-1)
            scale = torch.maximum(cosine, torch.tensor(floor)).unsqueeze(-1)
            parameter.data = (parameter.data.reshape(flat) * scale).reshape(shape)


def whole_chunks(parts: list[Dataset]) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield each chunk as one batch."""
    for part in parts:
        yield next(iter(DataLoader(part, batch_size=len(part))))


def run(method: str, given: argparse.Namespace, train_set: Dataset, test_set: Dataset) -> None:
    """Train one method over the growing data."""
    torch.manual_seed(0)
    parts = random_split(train_set, [len(train_set) // given.chunks] * given.chunks)
    lr = 0.001 if given.model == "resnet18" else 0.01
    model = build(given.model)
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9, foreach=False)
    for chunk in range(1, given.chunks + 1):
        if chunk > 1 and method == "cold":
            model = build(given.model)
            optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9, foreach=False)
        elif chunk > 1 and method == "shrink_perturb":
            for module in model.modules():
                if isinstance(module, nn.Conv2d | nn.Linear):
                    for parameter in module.parameters():
                        parameter.data = parameter.data * 0.3 + torch.randn_like(parameter) * 0.01
        elif chunk > 1 and method == "dash":
            dash(model, list(whole_chunks(parts[:chunk])))
        train(model, optimizer, ConcatDataset(parts[:chunk]), given.epochs)
        print(f"{method} {chunk} {evaluate(model, test_set):.4f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", type=Path, required=True, help="folder of CIFAR-10 as torchvision has it")
    parser.add_argument("--model", default="cnn3")
    parser.add_argument("--methods", nargs="+", default=["cold", "warm", "shrink_perturb", "dash"])
    parser.add_argument("--chunks", type=int, default=4)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--test-images", type=int, default=1000)
    parser.add_argument("--epochs", type=int, default=3, help="of each chunk")
    given = parser.parse_args()
    torch.set_num_threads(1)
    train_set, test_set = images(given.data_root, given.model, given.images, given.test_images)
    for method in given.methods:
        run(method, given, train_set, test_set)


if __name__ == "__main__":
    sys.exit(main())
