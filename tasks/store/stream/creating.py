"""Create a stream: freeze its contract from a folder of images, which becomes its first delivery."""

import re
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dash_core.comparison import Params
from dash_core.config import ModelConfig, parse
from dash_core.data import Dataset, silent
from dash_core.data.decoding import read_headers
from dash_core.data.image_file import decode, opened
from dash_core.data.image_folder import SUFFIXES
from dash_core.data.normalisation import IMAGENET, ChannelSums
from dash_core.errors import ConfigError, DataError
from dash_core.files import write_atomically
from dash_core.rehearsal import rehearse_on
from dash_core.stream.contract import Contract
from dash_core.stream.gate_config import Budget
from tasks.store.stream.folder import STREAMS, StreamFolder
from tasks.store.stream.inbox import Delivery, delivery
from tasks.store.stream.ledger import Ledger
from tasks.store.stream.versions import write_ignored

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_\-]{0,63}")


def first_delivery(folder: Path) -> Delivery:
    """Return the folder of the first images as a delivery; DataError if it is none."""
    if not folder.is_dir():
        raise DataError(
            f"{folder}: no such folder; --from names a dataset, or a folder with a folder of images a class"
        )
    found = delivery(folder, (), 0.0)
    if found.waiting:
        raise DataError(f"{folder}: {found.waiting}")
    return found


def contract_for(
    first: Delivery,
    settings: Params,
    method: str,
    hold_out: dict,
    rules: Mapping[str, Any],
    classes: list[str] | None = None,
) -> Contract:
    """Return the contract that the first images and the parameters decide; ConfigError or DataError say what is wrong.

    rules: the contract's gate, parent, rollback and budget. classes: in their order; None: the labels of the first
    images, sorted.
    """
    labels = sorted({item.label for item in first.items if item.label is not None and _is_image(item.file)})
    names = classes or labels
    if len(names) < 2:
        found = f"{len(names)} class{'es' * (len(names) != 1)}"
        raise DataError(f"{first.path}: {found}; it needs a folder of images for each of at least two classes")
    files = [first.path / item.file for item in first.items if _is_image(item.file) and item.label in names]
    if settings.dataset.resize != "crop":
        raise ConfigError(f"dataset.resize: a stream crops its images, got {settings.dataset.resize}: set it to crop")
    channels = 1 if read_headers(files, silent).grey else 3
    size, resize = _size(files, settings)
    mean, std = _statistics(files, channels, size, resize, settings)
    run = settings.run(method, settings.seeds[0])
    rehearse_on((channels, size, size), names, run)
    return parse(
        Contract,
        {
            "classes": names,
            "image_size": size,
            "resize": resize,
            "channels": channels,
            "background": settings.dataset.background,
            "mean": list(mean),
            "std": list(std),
            "model": _with_own_weights(run.model),
            "optimizer": run.optimizer,
            "training": run.training,
            "method": run.method,
            "seed": run.seed,
            "hold_out": {"salt": secrets.token_hex(8)} | hold_out,
            **rules,
        },
        "contract",
    )


def _with_own_weights(model: ModelConfig) -> ModelConfig:
    """Return the model with the name that a file of given weights has in the stream's folder."""
    if model.weights is None:
        return model
    return model.model_copy(update={"weights": f"initial-weights{Path(model.weights).suffix}"})


def begin(
    store: Path, name: str, contract: Contract, settings: dict, weights: str | None = None
) -> tuple[StreamFolder, Ledger]:
    """Make a stream's folder with its contract and the first entry of its ledger; continue one that was begun so.

    weights: the file that the first model starts from; it is copied, so that the stream needs no other file.
    """
    if not NAME.fullmatch(name):
        raise ConfigError(f"{name!r} is no name of a stream: use letters, digits, - and _, 64 at most")
    stream = StreamFolder(store / STREAMS / name)
    if weights:
        write_atomically(stream.path / contract.model.weights, Path(weights).read_bytes())
    stream.write_contract(contract, settings)
    ledger = Ledger(stream.ledger_file)
    if not ledger.entries:
        write_ignored(stream)
        ledger.append(
            "created",
            name=name,
            contract=contract.model_dump(mode="json"),
            contract_digest=contract.digest,
        )
    return stream, ledger


def add_class(stream: StreamFolder, ledger: Ledger, contract: Contract, label: str, reason: str) -> Contract:
    """Add a class at the end of the list, so that no label changes; return the new contract."""
    if label in contract.classes:
        raise ConfigError(f"{label!r} is a class of this stream already")
    return _changed(stream, ledger, contract, {"classes": [*contract.classes, label]}, reason)


def bounds(texts: Sequence[str]) -> dict[str, float | None]:
    """Return the bounds of a budget from KEY=VALUE; ConfigError for a value that is neither a number nor `none`."""
    found: dict[str, float | None] = {}
    for text in texts:
        key, _, value = text.partition("=")
        try:
            found[key] = None if value == "none" else float(value)
        except ValueError:
            raise ConfigError(
                f"budget {text!r}: write KEY=VALUE, for example training_flops=1e12, or KEY=none"
            ) from None
    return found


def change_budget(
    stream: StreamFolder, ledger: Ledger, contract: Contract, changes: Mapping[str, float | None], reason: str
) -> Budget:
    """Set bounds of the budget, or remove those that are None; models that are trained from now on keep to them."""
    budget = contract.budget.model_dump() | dict(changes)
    return _changed(stream, ledger, contract, {"budget": budget}, reason).budget


def _changed(
    stream: StreamFolder, ledger: Ledger, contract: Contract, changes: Mapping[str, Any], reason: str
) -> Contract:
    """Record a contract that a person changed, and return it."""
    changed = parse(Contract, {**contract.model_dump(), **changes}, "contract")
    content = changed.model_dump(mode="json")
    ledger.append("contract", contract=content, contract_digest=changed.digest, reason=reason)
    stream.write_contract(changed, stream.settings)
    return changed


def write_deliveries(dataset: Dataset, folder: Path, first: float, count: int) -> list[Path]:
    """Write a dataset's images as folders of PNG files: a share `first` of all, then `count` deliveries of the rest."""
    images = np.concatenate([dataset.train.images.numpy(), dataset.test.images.numpy()])
    labels = np.concatenate([dataset.train.labels.numpy(), dataset.test.labels.numpy()])
    order = np.random.default_rng(0).permutation(len(labels))
    begin_rest = round(first * len(labels))
    parts = [order[:begin_rest], *np.array_split(order[begin_rest:], count)]
    folders = []
    for number, part in enumerate(parts):
        target = folder / ("first" if number == 0 else f"delivery-{number:02d}")
        for index in part.tolist():
            path = target / dataset.train.class_names[labels[index]] / f"{index:06d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = images[index]
            Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels).save(path)
        folders.append(target)
    return folders


def _is_image(name: str) -> bool:
    return Path(name).suffix.lower() in SUFFIXES


def _size(files: list[Path], settings: Params) -> tuple[int, bool]:
    """Return pixels a side, and whether images of other sizes are resized."""
    if settings.dataset.image_size:
        return settings.dataset.image_size, True
    sizes = set()
    for file in files:
        try:
            with opened(file) as image:
                sizes.add(image.size)
        except DataError:
            continue  # it will be set aside
    if len(sizes) != 1 or len({*sizes.copy().pop()}) != 1:
        raise ConfigError(
            f"dataset.image_size: the images have {len(sizes)} sizes or are not square; "
            "say to how many pixels a side they are resized: --image-size 64"
        )
    return sizes.pop()[0], False


def _statistics(
    files: list[Path], channels: int, size: int, resize: bool, settings: Params
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and std of the readable first images; of ImageNet for weights that were trained on it."""
    if channels == 3 and getattr(settings.model, "weights", None):
        return IMAGENET
    sums = ChannelSums(0, [0] * channels, [0] * channels)
    for file in files:
        try:
            pixels = decode(file, channels == 1, size if resize else None, settings.dataset.background)
        except DataError:
            continue
        if pixels.shape == (size, size, channels):
            sums += ChannelSums.of(pixels[None])
    if not sums.pixels:
        raise DataError(f"none of the {len(files)} image files can be read")
    return sums.statistics()
