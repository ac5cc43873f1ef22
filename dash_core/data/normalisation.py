"""Mean and standard deviation per channel, by which images are normalised."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from torch import Tensor

Statistics = tuple[tuple[float, ...], tuple[float, ...]]

CIFAR10: Statistics = ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))  # the paper's
IMAGENET: Statistics = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
TOGETHER = 1024  # images that are summed at a time


@dataclass(frozen=True)
class ChannelSums:
    """Sums over uint8 images: the number of pixels n, and per channel s = sum(v) and q = sum(v^2).

    All are integers, so the sums of parts add up to the sums of all, in any order and on every machine.
    """

    pixels: int
    values: Sequence[int]
    squares: Sequence[int]

    @classmethod
    def of(cls, images: np.ndarray) -> Self:
        """Return the sums of images (N, H, W, C)."""
        count, height, width, channels = images.shape
        rows = images.reshape(count * height, width * channels)
        sums = (part.sum(axis=0, dtype=np.uint64) for part in (rows, np.square(rows, dtype=np.uint16)))
        values, squares = (part.reshape(width, channels).sum(axis=0).tolist() for part in sums)
        return cls(count * height * width, values, squares)

    def __add__(self, other: Self) -> Self:
        values, squares = (
            [one + two for one, two in zip(*both, strict=True)]
            for both in ((self.values, other.values), (self.squares, other.squares))
        )
        return type(self)(self.pixels + other.pixels, values, squares)

    def statistics(self) -> Statistics:
        """Return mean = s / 255n and population std = sqrt(nq - s^2) / 255n of the images / 255, per channel.

        A constant channel gets std 1, so that it is only centred.
        """
        whole = 255 * self.pixels
        spreads = [self.pixels * square - value**2 for value, square in zip(self.values, self.squares, strict=True)]
        means = tuple(value / whole for value in self.values)
        return means, tuple(math.sqrt(spread) / whole if spread else 1.0 for spread in spreads)


def channel_statistics(images: Tensor) -> Statistics:
    """Return mean and population std of uint8 images (N, H, W, C) / 255, per channel; no float copy is made."""
    first, *others = (ChannelSums.of(part.numpy()) for part in images.split(TOGETHER))
    return sum(others, start=first).statistics()
