"""Small streams for tests: toy images as PNG files, and passes without Prefect."""

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dash_core.stream.contract import Contract
from tasks.store.place import Place
from tasks.store.stream import judging, releasing, retracting
from tasks.store.stream.creating import begin, contract_for, first_delivery
from tasks.store.stream.folder import StreamFolder
from tasks.store.stream.passing import Verbs, one_pass
from tests import toy

CLASSES = 4


@contextmanager
def without_export() -> Iterator[None]:
    """Leave out the export, which takes seconds for each model; another test has it."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (judging, releasing, retracting):
            patch.setattr(module, "export", lambda *model: {})
        yield


def pixels(count: int, seed: int, side: int = 8) -> tuple[np.ndarray, np.ndarray]:
    found = toy.images(count, side=side, classes=CLASSES, seed=seed)
    return found.images.numpy(), found.labels.numpy()


def deliver(folder: Path, count: int, seed: int, side: int = 8) -> Path:
    """Write a delivery of toy images."""
    images, labels = pixels(count, seed, side)
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        save(image, folder / f"class {label}" / f"{number:04d}.png")
    return folder


def save(image: np.ndarray, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image).save(path)
    return path


def place(store: Path, **changes: object) -> Place:
    return Place(store=store, data_root=store / "data", device="cpu", **changes)


def contract(
    folder: Path, method: str = "dash", share: float = 0.3, rules: dict | None = None, **gate: object
) -> Contract:
    """Return the contract of a small stream; rules: beside its gate, such as parent, rollback and budget."""
    params = toy.params(training={"batch_size": 16, "max_epochs": 6})
    hold_out = {"salt": "salt", "share": share}
    rules = {"gate": {"margin": 0.2} | gate} | (rules or {})
    return contract_for(first_delivery(folder), params, method, hold_out, rules)


def begun(store: Path, first: Path | None = None, **options: object) -> StreamFolder:
    """Return a stream with its contract and no image yet."""
    (store / "inbox").mkdir(parents=True)
    settings = {"inbox": str(store / "inbox"), "settle_seconds": 0.0}
    return begin(store, "toy", contract(first or deliver(store / "first", 8, seed=0), **options), settings)[0]


def create(
    store: Path,
    *,
    method: str = "dash",
    images: int = 120,
    name: str = "toy",
    first: Path | None = None,
    **options: object,
) -> StreamFolder:
    """Create a stream from toy images, and train its first champion."""
    first = first or deliver(store / "first", images, seed=0)
    (store / "inbox").mkdir(parents=True)
    settings = {"inbox": str(store / "inbox"), "settle_seconds": 0.0}
    stream, _ = begin(store, "toy", contract(first, method, **options), settings)
    run(stream, only=first)
    return stream


def run(stream: StreamFolder, only: Path | None = None, **changes: object) -> list[str]:
    """Do one pass, and return what it says."""
    store = stream.path.parents[1]
    return list(one_pass(stream, place(store), only, verbs=dataclasses.replace(Verbs(), **changes)))
