"""ImageSet: uint8 images with labels and class names, the one form in which images are kept."""

import hashlib
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Self

import numpy as np
import torch
from torch import Tensor

from dash_core.data.noticed import Noticed, count_repeats, fingerprints
from dash_core.errors import DataError

HASHED = 2**26  # bytes of pixels that are hashed at a time; a command can be stopped between two of them


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Labelled images of one size.

    images: uint8 (N, H, W, C); labels: int64 (N,), each in [0, len(class_names)).
    mean, std: per channel, of images scaled to [0, 1]; normalisation subtracts the one and divides by the other.
    arrived: number of images of each chunk, in order, if they arrived in chunks.
    """

    images: Tensor
    labels: Tensor
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    arrived: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.images.dtype != torch.uint8 or self.images.ndim != 4:
            raise DataError(f"images must be uint8 (N, H, W, C), got {self.images.dtype} {tuple(self.images.shape)}")
        if self.labels.dtype != torch.int64 or self.labels.shape != self.images.shape[:1]:
            raise DataError(
                f"labels must be int64 ({len(self.images)},), got {self.labels.dtype} {tuple(self.labels.shape)}"
            )
        if not len(self.images):
            raise DataError("an ImageSet needs at least one image")
        if self.labels.min() < 0 or self.labels.max() >= self.classes:
            raise DataError(f"labels must lie in [0, {self.classes}), got up to {int(self.labels.max())}")
        if not len(self.mean) == len(self.std) == self.images.shape[3]:
            raise DataError(f"mean and std need one value for each of {self.images.shape[3]} channels")

    def __len__(self) -> int:
        return len(self.images)

    @property
    def classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(channels, height, width), the order that models expect."""
        _, height, width, channels = self.images.shape
        return channels, height, width

    @cached_property
    def digest(self) -> str:
        """SHA-256 of shape, pixels, labels and class names; equal sets have equal digests."""
        digest = ContentDigest(tuple(self.images.shape), self.class_names)
        for part in self.images.split(max(1, HASHED // self.images[0].numel())):
            digest.update(part.contiguous().numpy())
        return digest.end(self.labels)

    def known_by(self, digest: str) -> Self:
        """Return the same set with a digest that was computed earlier, so that no pixel is read for it."""
        known = replace(self)
        known.__dict__["digest"] = digest  # where cached_property keeps it
        return known


class ContentDigest:
    """The digest of an ImageSet, computed part by part."""

    def __init__(self, shape: tuple[int, ...], class_names: tuple[str, ...]) -> None:
        self._digest = hashlib.sha256(repr((shape, class_names)).encode())

    def update(self, pixels: np.ndarray) -> None:
        """Add the next images, uint8 (n, H, W, C)."""
        self._digest.update(pixels)

    def end(self, labels: Tensor) -> str:
        """Add the labels of all images, and return the digest."""
        self._digest.update(labels.contiguous().numpy())
        return self._digest.hexdigest()


@dataclass(frozen=True)
class Dataset:
    """A training set and a test set of the same classes and image shape.

    noticed: what a person should know about the images; None: nobody has looked.
    """

    name: str
    train: ImageSet
    test: ImageSet
    noticed: Noticed | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        if self.train.class_names != self.test.class_names:
            raise DataError(f"{self.name}: train and test differ in their classes")
        if self.train.image_shape != self.test.image_shape:
            raise DataError(
                f"{self.name}: train images are {self.train.image_shape} (C, H, W), test images {self.test.image_shape}"
            )

    def examined(self) -> Self:
        """Return the same dataset with repeated images counted; every pixel is read once."""
        prints = [*fingerprints(self.train.images.numpy()), *fingerprints(self.test.images.numpy())]
        labels = torch.cat((self.train.labels, self.test.labels))
        return replace(self, noticed=count_repeats(prints, labels, len(self.train)))
