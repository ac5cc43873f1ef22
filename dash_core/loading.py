"""Data where training needs them: whole sets resident on the device as uint8, normalised there in batches."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from dash_core.data import ChunkPlan, ImageSet


class Normalisation:
    """uint8 (or float in 0..255) images (B, C, H, W) → float32, channels-last: (x/255 − mean)/std per channel."""

    def __init__(self, mean: Sequence[float], std: Sequence[float], device: torch.device) -> None:
        divisor = torch.tensor(std, dtype=torch.float64)
        offset = torch.tensor(mean, dtype=torch.float64)
        self._scale = (1 / (255 * divisor)).float().view(1, -1, 1, 1).to(device)
        self._shift = (-offset / divisor).float().view(1, -1, 1, 1).to(device)

    @classmethod
    def of(cls, images: ImageSet, device: torch.device) -> Self:
        """Return the normalisation with a set's mean and std."""
        return cls(images.mean, images.std, device)

    @classmethod
    def to_unit(cls, device: torch.device) -> Self:
        """Return the scaling to [0, 1] alone, for models that take their inputs so."""
        return cls([0.0], [1.0], device)

    def __call__(self, images: Tensor) -> Tensor:
        """Return the images as the model takes them; the given ones are not changed."""
        scaled = torch.addcmul(self._shift, images.float(), self._scale)
        return scaled.contiguous(memory_format=torch.channels_last)


@dataclass(frozen=True, eq=False)
class ResidentSet:
    """Images uint8 (N, C, H, W) and labels (N,) on the device, with their normalisation."""

    images: Tensor
    labels: Tensor
    normalise: Normalisation

    @classmethod
    def of(cls, images: Tensor, labels: Tensor, normalise: Normalisation, device: torch.device) -> Self:
        """Put images uint8 (N, H, W, C) and their labels on the device, in their order."""
        return cls(images.permute(0, 3, 1, 2).contiguous().to(device), labels.to(device), normalise)

    def __len__(self) -> int:
        return len(self.labels)


class GrowingData:
    """What a learner sees at experiment j: the union of chunks 1..j, chunk by chunk oldest first."""

    def __init__(self, resident: ResidentSet, plan: ChunkPlan, chunk: int) -> None:
        """`resident` holds the plan's images in the plan's order; `chunk` is j, counted from 1."""
        self._resident = resident
        self._ends = torch.tensor([len(part) for part in plan.chunks[:chunk]]).cumsum(0).tolist()
        self.chunk = chunk
        self.normalise = resident.normalise

    def __len__(self) -> int:
        return self._ends[-1]

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(channels, height, width)."""
        return tuple(self._resident.images.shape[1:])

    def chunks(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (uint8 images, labels) of each chunk, oldest first: views, not copies."""
        for start, end in zip([0, *self._ends], self._ends, strict=False):
            yield self._resident.images[start:end], self._resident.labels[start:end]

    def take(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Return (uint8 images, labels) at the given positions in [0, len(self))."""
        return self._resident.images[positions], self._resident.labels[positions]


def batch_bounds(images: int, batch_size: int) -> list[tuple[int, int]]:
    """Return (start, end) of each mini-batch; the last partial batch is kept.

    A last batch of one image, for which BatchNorm has no variance, joins the one before it.
    """
    starts = list(range(0, images, batch_size))
    if len(starts) > 1 and images - starts[-1] == 1:
        starts.pop()
    return list(zip(starts, [*starts[1:], images], strict=True))
