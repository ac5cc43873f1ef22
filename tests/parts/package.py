"""A package of somebody else's, as it is written to a folder: a model, a dataset, a method, a loss and a plan."""

from pathlib import Path

NETS = """
from torch import nn


def build(image_shape, classes):
    channels, height, width = image_shape
    return nn.Sequential(
        nn.Conv2d(channels, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(),
        nn.Linear(4 * height * width, classes),
    )
"""
DATA = """
import numpy as np


def split(images, seed):
    random = np.random.default_rng(seed)
    labels = np.arange(images) % 4
    pixels = random.integers(0, 120, (images, 8, 8, 1), dtype=np.uint8)
    pixels[np.arange(images), labels] += 100
    return pixels, labels


def load():
    return split(96, 0), split(40, 1)
"""
METHODS = """
from typing import Annotated

from pydantic import Field

from dash_core.interventions import Intervention
from dash_core.shrinking import shrink_


class Halve(Intervention):
    factor: Annotated[float, Field(ge=0, le=1)] = 0.5

    def before_chunk(self, learner, data):
        shrink_(learner.model, self.factor)
        return {"mypackage/factor": self.factor}
"""
OTHERS = """
import numpy as np
from torch.nn import functional


def focal(outputs, labels):
    each = functional.cross_entropy(outputs, labels, reduction="none")
    return ((1 - (-each).exp()) ** 2 * each).mean()


def drift(labels, chunks, seed):
    order = np.argsort(labels, kind="stable")
    return np.split(order, [len(order) // 2 * (n + 1) // chunks for n in range(chunks - 1)])
"""
FILES = {"__init__.py": "", "nets.py": NETS, "data.py": DATA, "methods.py": METHODS, "others.py": OTHERS}
PATHS = {"model": "mypackage.nets:build", "dataset": "mypackage.data:load", "method": "mypackage.methods:Halve"}


def write(folder: Path, **changed: str) -> Path:
    """Write the package to a folder, with other content of some modules, and return its own folder."""
    package = folder / "mypackage"
    package.mkdir(parents=True, exist_ok=True)
    for name, content in {**FILES, **{f"{name}.py": text for name, text in changed.items()}}.items():
        (package / name).write_text(content)
    return package
