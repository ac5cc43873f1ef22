"""Images on the device: uint8, held there whole or streamed there in batches, and normalised there."""

import logging
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import accumulate, islice, pairwise
from typing import Self

import torch
from torch import Tensor

from dash_core.data import ChunkPlan, ImageSet

logger = logging.getLogger(__name__)
BATCHES_AHEAD = 4  # of streamed images, read before training asks for them
READER_THREADS = 2


class Normalisation:
    """uint8 (or float in 0..255) images (B, C, H, W) → float32, channels-last: (x/255 − mean)/std per channel."""

    def __init__(self, mean: Sequence[float], std: Sequence[float], device: torch.device) -> None:
        divisor = torch.tensor(std, dtype=torch.float64)
        offset = torch.tensor(mean, dtype=torch.float64)
        self._scale = (1 / (255 * divisor)).float().view(1, -1, 1, 1).to(device)
        self._shift = (-offset / divisor).float().view(1, -1, 1, 1).to(device)

    @classmethod
    def of(cls, images: ImageSet, device: torch.device) -> Self:
        """Return the normalisation by the mean and std of an image set."""
        return cls(images.mean, images.std, device)

    @classmethod
    def to_unit(cls, device: torch.device) -> Self:
        """Return scaling to [0, 1] without normalisation, for models that take such inputs."""
        return cls([0.0], [1.0], device)

    def __call__(self, images: Tensor) -> Tensor:
        """Return the model's inputs; the images are not changed."""
        scaled = torch.addcmul(self._shift, images.float(), self._scale)
        return scaled.contiguous(memory_format=torch.channels_last)


class StreamedImages:
    """uint8 images that stay where they are, e.g. in a mapped file; an index reads some and moves them to the device.

    It can replace a tensor (N, C, H, W) that is only indexed along its first dimension.
    """

    def __init__(self, images: Tensor, order: Tensor, device: torch.device) -> None:
        """images: uint8 (M, H, W, C). order: positions (N,) in them."""
        self._images = images
        self._order = order
        self._device = device
        _, height, width, channels = images.shape
        self.shape = torch.Size((len(order), channels, height, width))

    def __len__(self) -> int:
        return len(self._order)

    def __getitem__(self, index: slice | Tensor) -> Tensor:
        positions = self._order[index.cpu() if isinstance(index, Tensor) else index]
        found = self._images[positions]
        if self._device.type == "cuda":
            found = found.pin_memory()
        return found.to(self._device, non_blocking=True).permute(0, 3, 1, 2)

    def part(self, start: int, end: int) -> "StreamedImages":
        """Return the images from `start` to before `end`, without reading them."""
        return StreamedImages(self._images, self._order[start:end], self._device)


@dataclass(frozen=True, eq=False)
class ResidentSet:
    """Images uint8 (N, C, H, W), on the device or streamed there, labels (N,) on it, and the images' normalisation."""

    images: Tensor | StreamedImages
    labels: Tensor
    normalise: Normalisation

    @classmethod
    def of(
        cls,
        images: Tensor,
        labels: Tensor,
        normalise: Normalisation,
        device: torch.device,
        *,
        order: Tensor | None = None,
        budget: int | None = None,
    ) -> Self:
        """Put images uint8 (N, H, W, C) and their labels on the device, in the order of the given positions.

        budget: bytes of images that the device may hold; a larger set stays where it is and is streamed.
        """
        count = len(images) if order is None else len(order)
        labels = (labels if order is None else labels[order]).to(device)
        size = count * images[0].numel()
        if budget is not None and size > budget:
            logger.warning(
                "%d images take %.2f GiB, more than the memory budget of %.2f GiB: they are streamed in batches, with "
                "the same results (compare.resident_gib sets the budget)",
                count,
                size / 2**30,
                budget / 2**30,
            )
            order = torch.arange(count) if order is None else order
            return cls(StreamedImages(images, order, device), labels, normalise)
        chosen = images if order is None else images[order]
        return cls(chosen.permute(0, 3, 1, 2).contiguous().to(device), labels, normalise)

    def __len__(self) -> int:
        return len(self.labels)

    def part(self, start: int, end: int) -> tuple[Tensor | StreamedImages, Tensor]:
        """Return images and labels from `start` to before `end`, without a copy."""
        images = self.images
        part = images.part(start, end) if isinstance(images, StreamedImages) else images[start:end]
        return part, self.labels[start:end]

    def head(self, count: int) -> "ResidentSet":
        """Return the set of the first `count` images, without a copy."""
        return ResidentSet(*self.part(0, count), self.normalise)

    def batches(self, batches: Sequence[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (uint8 images, labels) for each tensor of positions; streamed batches are read ahead."""
        if not isinstance(self.images, StreamedImages):
            for positions in batches:
                yield self.images[positions], self.labels[positions]
            return
        coming = iter(batches)
        with ThreadPoolExecutor(READER_THREADS, thread_name_prefix="read-ahead") as readers:
            read = deque(
                (positions, readers.submit(self._images_at, positions)) for positions in islice(coming, BATCHES_AHEAD)
            )
            try:
                while read:
                    positions, images = read.popleft()
                    read.extend((later, readers.submit(self._images_at, later)) for later in islice(coming, 1))
                    yield images.result(), self.labels[positions]
            finally:
                readers.shutdown(cancel_futures=True)

    def _images_at(self, positions: Tensor) -> Tensor:
        return self.images[positions]


class GrowingData:
    """The data of experiment j: a range of chunks, oldest first.

    experiment: j. previous_images: how many images, at the front, an earlier experiment trained on; the rest is new.
    """

    def __init__(
        self,
        resident: ResidentSet,
        plan: ChunkPlan,
        experiment: int,
        *,
        first: int = 1,
        last: int | None = None,
        trained: int | None = None,
    ) -> None:
        """resident: the plan's images in the plan's order. Experiments and chunks count from 1.

        The data are chunks first..last; an earlier experiment trained on those up to `trained`. The defaults are those
        of the standard protocol: chunks 1..j, of which the last is new.
        """
        self._resident = resident
        last = experiment if last is None else last
        trained = last - 1 if trained is None else trained
        ends = list(accumulate((len(part) for part in plan.chunks[:last]), initial=0))
        self._start = ends[first - 1]
        self._bounds = list(pairwise(ends[first - 1 :]))  # (start, end) of each chunk
        self.experiment = experiment
        self.previous_images = max(ends[trained] - self._start, 0)
        self.normalise = resident.normalise

    def __len__(self) -> int:
        return self._bounds[-1][1] - self._start

    @property
    def labels(self) -> Tensor:
        """The labels (N,), oldest chunk first, without a copy."""
        return self._resident.labels[self._start : self._bounds[-1][1]]

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(channels, height, width)."""
        return tuple(self._resident.images.shape[1:])

    def chunks(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (uint8 images, labels) of each chunk, oldest first, without a copy; slicing reads streamed images."""
        for start, end in self._bounds:
            yield self._resident.part(start, end)

    def batches(self, batches: Sequence[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (uint8 images, labels) for each tensor of positions in [0, len(self))."""
        return self._resident.batches([positions + self._start for positions in batches] if self._start else batches)

    @property
    def largest_chunk(self) -> int:
        """Number of images of the largest chunk."""
        return max(end - start for start, end in self._bounds)
