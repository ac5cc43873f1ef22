"""Which images of a batch a rank takes, and what its loss weighs, so that the mean over ranks is that of the batch.

A mean over n images is the mean over W ranks of W · n_r/n times the mean over the n_r images of rank r, and
DistributedDataParallel takes the mean of the gradients over ranks.
"""

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from dash_core.shrinking import batch_bounds

LEAST_IMAGES = 2  # of each rank in a divided batch


@dataclass(frozen=True)
class Part:
    """One forward and backward pass over the images `start` to before `end` of those that a rank takes of a batch.

    share: of the batch's images that the pass covers, on all ranks together; below 1 only in micro-batches. weight: of
    the mean over this rank's images in the mean over ranks. divided: the ranks take different images, not all the same.
    """

    start: int
    end: int
    share: float = 1.0
    weight: float = 1.0
    divided: bool = False


@dataclass(frozen=True)
class Division:
    """What a rank does of one step. rows: positions in the epoch of its images. parts: passes over them, in order."""

    rows: slice | Tensor
    images: int
    parts: tuple[Part, ...]

    @property
    def divided(self) -> bool:
        """Whether the ranks take different images in any pass."""
        return any(part.divided for part in self.parts)


def range_of(images: int, rank: int, size: int) -> tuple[int, int]:
    """Return (start, end) of the images that rank `rank` of `size` takes of so many; the ranges cover all once."""
    return images * rank // size, images * (rank + 1) // size


def divide(images: int, rank: int, size: int) -> Part:
    """Return what a rank takes of a batch: its range, or all of a batch with fewer than LEAST_IMAGES for each rank."""
    if size == 1 or images < LEAST_IMAGES * size:
        return Part(0, images)
    start, end = range_of(images, rank, size)
    return Part(start, end, weight=(end - start) * size / images, divided=True)


def divide_step(start: int, end: int, micro_batch_size: int | None, rank: int = 0, size: int = 1) -> Division:
    """Return what a rank does of the step over the images `start` to before `end` of an epoch.

    Each micro-batch is divided by itself: it is the unit of BatchNorm's statistics, as in one process.
    """
    images = end - start
    whole = micro_batch_size is None or micro_batch_size >= images
    rows, parts, done = [], [], 0
    for first, last in [(0, images)] if whole else batch_bounds(images, micro_batch_size):
        own = divide(last - first, rank, size)
        count = own.end - own.start
        rows.append((start + first + own.start, start + first + own.end))
        parts.append(Part(done, done + count, (last - first) / images, own.weight, own.divided))
        done += count
    if all(before[1] == after[0] for before, after in pairwise(rows)):
        return Division(slice(rows[0][0], rows[-1][1]), done, tuple(parts))
    return Division(torch.cat([torch.arange(*bounds) for bounds in rows]), done, tuple(parts))
