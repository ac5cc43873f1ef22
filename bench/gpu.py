"""What a GPU does with this code: `python -m bench.gpu` (at most eight minutes on one card).

Needs torch, numpy, pydantic and safetensors alone, so that a bare machine with a card can run it from this folder.
Without CUDA it says so and ends with 1; `--device cpu --quick` takes every path that a CPU has. A part that fails is
reported with its error, and the others go on; parts that would begin after `--minutes` are left out, and named.
"""

import argparse
import multiprocessing
import os
import pickle
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from bench import gpu_equalities as equalities
from bench.sections import table, write_section_of
from dash_core.convolution import use_fast_convolutions_
from dash_core.data import Dataset, ImageSet
from dash_core.device import choose_device, describe_machine, prepare_device
from dash_core.models import build_model, forward_flops
from dash_core.optim import SGD
from dash_core.precision import arithmetic

SHAPE, CLASSES = (3, 32, 32), 10
CIFAR_FILES = [f"data_batch_{number}" for number in range(1, 6)]
AUTHORS_STEPS = 141_673  # of a cold run of CIFAR-10 and ResNet-18 with SGD, 50 experiments, batches of 128
# Table 1 by dataset: average steps of (cold, warm) by optimiser, seeds, and pixels relative to 32x32. Numbers of
# CIFAR-100 and SVHN are UNKNOWN: CIFAR-10's. warm_rm counts as warm, S&P and DASH as cold.
TABLE_1 = {
    "cifar10": ({"sgd": (2916, 665), "sam": (8121, 2153)}, 5, 1),
    "cifar100": ({"sgd": (2916, 665), "sam": (8121, 2153)}, 5, 1),
    "svhn": ({"sgd": (2916, 665), "sam": (8121, 2153)}, 5, 1),
    "tiny_imagenet": ({"sgd": (17503, 1785), "sam": (22513, 2773)}, 3, 4),
}


@dataclass(frozen=True)
class Sizes:
    """How much is done. model, width, batch: of the steps that are timed. seconds: of one timing."""

    model: str = "resnet18"
    width: int = 64
    batch: int = 128
    seconds: float = 4.0
    images: int = 256
    peak: int = 8192
    together: tuple[int, ...] = (1, 2, 4)
    experiments: int = 2
    chunk: int = 1000
    epochs: int = 200


QUICK = Sizes(width=8, batch=16, seconds=0.1, images=128, peak=128, together=(1, 2), chunk=64, epochs=1)


@dataclass(frozen=True)
class Card:
    """The device, what is done on it, and its images: CIFAR-10's, or made-up ones of their size."""

    device: torch.device
    sizes: Sizes
    data_root: Path | None


def every_method(card: Card) -> list[str]:
    found = equalities.methods(card.device, equalities.made_up(card.sizes.images // 2))
    failed = [f"`{name}`: {error}" for name, error in found.items() if error != "ok"]
    return [
        f"{len(found) - len(failed)} of {len(found)} methods train two chunks; {'; '.join(failed) or 'none fails'}."
    ]


def fp32(card: Card) -> list[str]:
    furthest = equalities.against_cpu(card.device, equalities.made_up(card.sizes.images))
    return [f"Weights after an epoch in fp32 are {furthest:.1e} of a tensor's largest entry from the CPU's."]


def stopped(card: Card) -> list[str]:
    same = equalities.continues(card.device, equalities.made_up(card.sizes.images))
    return [f"A run stopped twice in mid-epoch ends with {'the same bits' if same else 'OTHER BITS'} (deterministic)."]


def little_memory(card: Card) -> list[str]:
    halved = equalities.halves(card.device, equalities.made_up(card.sizes.images))
    return [
        f"With too little memory DASH's gradient is taken in micro-batches of {halved.size}: "
        f"{halved.furthest:.1e} of its largest entry from that of whole chunks."
    ]


def compiled(card: Card) -> list[str]:
    found = equalities.compiles(card.device, equalities.made_up(card.sizes.images))
    return [f"Three chunks compile {found.graphs} graph(s); weights are {found.furthest:.1e} from the eager run's."]


def speed(card: Card) -> list[str]:
    """Return images a second of a training step: ours in each form, and the authors' on the same device."""
    peak = matmul_rate(card)
    flops = 3 * forward_flops(build_model(card.sizes.model, SHAPE, CLASSES, seed=0, width=card.sizes.width), SHAPE)
    forms: dict[str, Callable[[Card], float]] = {"the authors' way, without their loader": authors_rate}
    forms |= {f"ours, {name}": lambda card, how=how: our_rate(card, **how) for name, how in FORMS.items()}
    rates = {name: rate(card) for name, rate in forms.items()}
    first = next(iter(rates.values()))
    rows = [
        [name, f"{rate:,.0f}", f"{100 * rate * flops / peak:.0f} %", f"{rate / first:.2f}"]
        for name, rate in rates.items()
    ]
    of_peak = f"of {peak / 1e12:.1f} TFLOP/s, this device's bf16 matrix product"
    return [
        f"`{card.sizes.model}`, width {card.sizes.width}, batches of {card.sizes.batch}, resident images.",
        "",
        *table(["training step", "images/s", of_peak, "ratio"], rows),
    ]


FORMS: dict[str, dict[str, bool]] = {
    "fp32": {"bf16": False, "compile_": False},
    "bf16": {"bf16": True, "compile_": False},
    "bf16, compiled": {"bf16": True, "compile_": True},
}


def matmul_rate(card: Card) -> float:
    """Return the FLOPs a second of a square matrix product in bf16, the measure of a peak that needs no table."""
    size = card.sizes.peak
    a, b = (torch.randn(size, size, device=card.device, dtype=torch.bfloat16) for _ in range(2))
    return 2 * size**3 * _per_second(card, lambda: a @ b)


def our_rate(card: Card, bf16: bool, compile_: bool) -> float:
    """Return the images a second of our step: channels-last, fused SGD, no value read within an epoch."""
    model = _model(card).to(memory_format=torch.channels_last)
    use_fast_convolutions_(model)
    optimizer = SGD(model.parameters(), lr=0.001, momentum=0.9, fused=True)
    images, labels = _batch(card)
    images = images.contiguous(memory_format=torch.channels_last)
    on_card = card.device.type == "cuda"
    forward = torch.compile(model, dynamic=False, mode="reduce-overhead") if compile_ and on_card else model

    def step() -> None:
        with arithmetic("bf16" if bf16 else "exact", card.device):
            outputs = forward(images)
        functional.cross_entropy(outputs.float(), labels).backward()
        optimizer.step()
        optimizer.zero_grad()

    return card.sizes.batch * _per_second(card, step)


def authors_rate(card: Card) -> float:
    """Return the images a second of the authors' step: fp32, torch's own layout, two values read at every step."""
    model = _model(card)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.001, momentum=0.9, foreach=False)
    images, labels = (tensor.cpu() for tensor in _batch(card))

    def step() -> None:
        inputs, wanted = images.to(card.device), labels.to(card.device)
        optimizer.zero_grad()
        outputs = model(inputs)
        loss = functional.cross_entropy(outputs, wanted)
        loss.backward()
        optimizer.step()
        (outputs.argmax(1) == wanted).sum().item()
        loss.item()

    return card.sizes.batch * _per_second(card, step)


def _model(card: Card) -> nn.Module:
    return build_model(card.sizes.model, SHAPE, CLASSES, seed=0, width=card.sizes.width).to(card.device).train()


def _batch(card: Card) -> tuple[Tensor, Tensor]:
    images = torch.rand(card.sizes.batch, *SHAPE, device=card.device)
    return images, torch.arange(card.sizes.batch, device=card.device) % CLASSES


def _per_second(card: Card, step: Callable[[], object], at_least: int = 5) -> float:
    """Return how often a second a step is done: the median of three timings, after steps that warm up."""
    for _ in range(3):
        step()
    rates = []
    for _ in range(3):
        _wait(card.device)
        started, done = time.perf_counter(), 0
        while done < at_least or time.perf_counter() - started < card.sizes.seconds / 3:
            for _ in range(at_least):
                step()
            done += at_least
            _wait(card.device)
        rates.append(done / (time.perf_counter() - started))
    return statistics.median(rates)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def together(card: Card) -> list[str]:
    """Return images a second of all processes that share the device, each training its own model."""
    rows = []
    for count in card.sizes.together:
        with multiprocessing.get_context("spawn").Pool(count) as pool:
            pool.map(abs, range(count))  # the processes are there
            rates = pool.map(_alone, [card] * count, chunksize=1)
        rows.append([str(count), f"{sum(rates):,.0f}", f"{sum(rates) / count:,.0f}"])
    return table(["runs at once", "images/s together", "images/s of each"], rows)


def _alone(card: Card) -> float:
    prepare_device(card.device, 1)
    return our_rate(card, bf16=True, compile_=False)


def preset(card: Card) -> list[str]:
    """Train the first experiments of CIFAR-10 with ResNet-18, cold, and project table 1's hours from their steps."""
    sizes, data = card.sizes, _images(card)
    changes = {
        "dataset": {"train_size": sizes.chunk * sizes.experiments},
        "chunks": sizes.experiments,
        "model": {"name": sizes.model, "width": sizes.width},
        "optimizer": {"lr": 0.001},
        "training": {"batch_size": sizes.batch, "max_epochs": sizes.epochs, "precision": "auto"},
    }
    started = time.perf_counter()
    done = equalities.train(equalities.run_of("cold", **changes), data, card.device)
    seconds = time.perf_counter() - started
    train_seconds = sum(record.cost["train"].seconds for record in done.records)
    step_seconds = train_seconds / sum(record.steps for record in done.records)
    hours = step_seconds / 3600
    rows = [[str(r.experiment), f"{100 * r.test_accuracy:.2f}", f"{r.steps:,}", str(r.converged)] for r in done.records]
    return [
        f"{data.name}, {sizes.chunk:,} images a chunk, cold, {seconds:.0f} s, {1e3 * step_seconds:.2f} ms a step:",
        "",
        *table(["experiment", "test accuracy, %", "steps", "converged"], rows),
        "",
        f"At this rate the authors' cold run of {AUTHORS_STEPS:,} steps takes {AUTHORS_STEPS * hours:.2f} hours, and "
        f"all of table 1, one run at once, {table_1_steps() * hours:,.0f} hours.",
    ]


def table_1_steps() -> float:
    """Return the steps of all runs of table 1, in SGD steps on 32x32 images: SAM counts twice, pixels in proportion."""
    total = 0.0
    for optimisers, seeds, pixels in TABLE_1.values():
        for name, (cold, warm) in optimisers.items():
            total += (2 if name == "sam" else 1) * pixels * seeds * 50 * (3 * cold + 2 * warm)
    return total


def _images(card: Card) -> Dataset:
    if card.data_root is None:
        return equalities.made_up(card.sizes.chunk * card.sizes.experiments, side=32, classes=CLASSES)
    return cifar10(card.data_root)


def cifar10(root: Path) -> Dataset:
    """Return CIFAR-10 from the python files of `cifar-10-batches-py`, read without torchvision."""
    folder = root / "cifar-10-batches-py"
    names = tuple(name.decode() for name in _content(folder / "batches.meta")[b"label_names"])
    mean, std = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
    sets = []
    for files in (CIFAR_FILES, ["test_batch"]):
        parts = [_content(folder / file) for file in files]
        pixels = np.concatenate([part[b"data"] for part in parts]).reshape(-1, *SHAPE).transpose(0, 2, 3, 1)
        labels = np.concatenate([part[b"labels"] for part in parts])
        images = torch.from_numpy(np.ascontiguousarray(pixels))
        sets.append(ImageSet(images, torch.from_numpy(labels).long(), names, mean, std))
    return Dataset("cifar10", *sets)


def _content(file: Path) -> Mapping[bytes, object]:
    with file.open("rb") as opened:
        return pickle.load(opened, encoding="bytes")  # the files' own format; give no file from elsewhere


PARTS: dict[str, Callable[[Card], list[str]]] = {
    "Every method": every_method,
    "Against the CPU": fp32,
    "Stopped and continued": stopped,
    "DASH with little memory": little_memory,
    "Compiled": compiled,
    "Speed": speed,
    "Several runs at once": together,
    "The preset's first experiments": preset,
}


def measured(card: Card, minutes: float) -> list[str]:
    """Return the lines of all parts; a part that fails is told, and one that would begin too late is left out."""
    started, lines = time.perf_counter(), []
    for title, part in PARTS.items():
        if time.perf_counter() - started > 60 * minutes:
            lines += [f"**{title}:** left out, {minutes:g} minutes are over.", ""]
            continue
        began = time.perf_counter()
        try:
            found = part(card)
        except Exception as error:  # told, so that the other parts are not lost
            found = [f"FAILED: {error!r}"]
        lines += [f"**{title}** ({time.perf_counter() - began:.0f} s)", "", *found, ""]
        print("\n".join(lines[-len(found) - 3 :]), flush=True)
    return lines


def _commit() -> str | None:
    try:
        given = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return None
    return given.stdout.strip() or None


def main(words: list[str] | None = None) -> int:
    """Measure, and write the section; return the exit status: 1 without the device, or if a part failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", help="cuda, cuda:N or cpu (default: cuda)")
    parser.add_argument("--quick", action="store_true", help="small sizes: seconds, and figures that mean nothing")
    parser.add_argument("--minutes", type=float, default=6.0, help="after which no part begins (default: 6)")
    parser.add_argument("--data-root", type=Path, help="folder of CIFAR-10; without it images are made up")
    given = parser.parse_args(words)
    if given.device != "cpu" and not torch.cuda.is_available():
        print("no CUDA device here: run this on a machine with a card, or try its paths with --device cpu --quick")
        return 1
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS is deterministic with it
    card = Card(choose_device(given.device), QUICK if given.quick else Sizes(), given.data_root)
    prepare_device(card.device, 1)
    lines = measured(card, given.minutes)
    if given.quick:
        print("quick: no section is written")
    else:
        command = f"python -m bench.gpu --device {given.device}"
        write_section_of(_commit(), "GPU", command, describe_machine(card.device, 1), lines)
    return int(any(line.startswith("FAILED") for line in lines))


if __name__ == "__main__":
    sys.exit(main())
