"""The images of a run: training images, their labels, and test images."""

import torch
from torch import Tensor

from dash_core.config import DatasetConfig
from dash_core.data.hold_out import HOLD_OUT_SEED
from dash_core.data.imageset import ImageSet
from dash_core.errors import ConfigError
from dash_core.seeding import generator


def training_labels(train: ImageSet, config: DatasetConfig, seed: int) -> Tensor:
    """Return the labels with symmetric noise: exactly round(label_noise * N) of them become another class, uniformly.

    They are drawn over the whole training set in its stored order, so that an image has one label in every subset.
    """
    noisy = round(config.label_noise * len(train))
    if not noisy:
        return train.labels
    if train.classes < 2:
        raise ConfigError(f"dataset.label_noise: {config.label_noise} needs at least 2 classes, got {train.classes}")
    random = generator(seed, "label_noise")
    chosen = torch.randperm(len(train), generator=random)[:noisy]
    shift = torch.randint(1, train.classes, (noisy,), generator=random)  # 1 to classes - 1 further: never its own class
    labels = train.labels.clone()
    labels[chosen] = (labels[chosen] + shift) % train.classes
    return labels


def training_indices(train: ImageSet, config: DatasetConfig, seed: int) -> Tensor:
    """Return the sorted indices of the used training images: a seeded subset of `train_size`, or all."""
    images = len(train)
    if config.train_size is None:
        return torch.arange(images)
    if config.train_size > images:
        raise ConfigError(
            f"dataset.train_size: {config.train_size} is more than the {images} training images of {config.name}"
        )
    return torch.randperm(images, generator=generator(seed, "train_size"))[: config.train_size].sort().values


def evaluation_indices(test: ImageSet, config: DatasetConfig) -> Tensor | None:
    """Return the sorted indices of the used test images: `test_size` of them, the same for every seed.

    None means all of them, so that no caller copies a whole test set.
    """
    if config.test_size is None:
        return None
    if config.test_size > len(test):
        raise ConfigError(
            f"dataset.test_size: {config.test_size} is more than the {len(test)} test images of {config.name}"
        )
    order = torch.randperm(len(test), generator=generator(HOLD_OUT_SEED, "test_size"))
    return order[: config.test_size].sort().values
