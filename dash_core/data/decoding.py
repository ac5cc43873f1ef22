"""Decode image files to uint8 pixels on every core, block by block; PIL releases the GIL while it decodes.

Only a few blocks are in memory at a time, so a set may be larger than the memory.
"""

import contextlib
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from dash_core.data.imageset import Dataset, ImageSet
from dash_core.data.normalisation import ChannelSums, Statistics
from dash_core.data.progress import ProgressCallback
from dash_core.device import usable_cores
from dash_core.errors import DataError

LARGEST = 64_000_000  # pixels; a larger image is treated as a decompression bomb

_GREY = {"1", "L", "LA"}
_BATCH = 64  # files that a thread takes at a time, at most
_BLOCK = 4 * 2**20  # bytes of pixels of a batch, at most; more only if one image has more
_AHEAD = 2  # batches per thread that are being decoded or wait to be taken
_Result = TypeVar("_Result")


@dataclass(frozen=True, eq=False)
class ImageFiles:
    """A dataset as image files: the training images first, then the test images.

    labels: int64 (N,), one per file. train: number of training images. grey: one channel, else three (RGB,
    transparency dropped). size: pixels of the shorter side after resizing (PIL, bilinear); the centre is cut out.
    None: all images must have the shape of the first. An EXIF rotation is not applied.
    statistics: mean and std; None: computed from the training images.
    """

    name: str
    class_names: tuple[str, ...]
    files: Sequence[str | Path]
    labels: Tensor
    train: int
    grey: bool = False
    size: int | None = None
    statistics: Statistics | None = None

    @cached_property
    def image_shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of the first image; all others must have the same."""
        return _decode(self.files[0], self.grey, self.size).shape

    @property
    def shapes(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """(N, H, W, C) of the training and of the test images."""
        return (self.train, *self.image_shape), (len(self.files) - self.train, *self.image_shape)

    @property
    def pixel_bytes(self) -> int:
        """Bytes of all images, decoded."""
        return len(self.files) * int(np.prod(self.image_shape))

    def decoded(
        self, progress: ProgressCallback, take: Callable[["Block"], None], threads: int | None = None
    ) -> Statistics:
        """Decode all images and pass them to `take` in their order, in blocks; return mean and std.

        threads: number of decoding threads; None: one per core.
        """
        per_batch = max(1, min(_BATCH, _BLOCK * len(self.files) // self.pixel_bytes))
        batches = [*_cut(0, self.train, per_batch), *_cut(self.train, len(self.files), per_batch)]
        sums = ChannelSums(0, [0] * self.image_shape[2], [0] * self.image_shape[2])
        for block in _in_threads(self._block, batches, "decoding images", progress, threads):
            take(block)
            sums += block.sums
        return self.statistics or sums.statistics()

    def in_memory(self, progress: ProgressCallback) -> Dataset:
        """Decode all images into memory."""
        pixels = np.empty((len(self.files), *self.image_shape), dtype=np.uint8)

        def take(block: "Block") -> None:
            pixels[block.start : block.start + len(block.pixels)] = block.pixels

        statistics = self.decoded(progress, take)
        images, labels, first = torch.from_numpy(pixels), self.labels, self.train
        train = ImageSet(images[:first], labels[:first], self.class_names, *statistics)
        return Dataset(self.name, train, ImageSet(images[first:], labels[first:], self.class_names, *statistics))

    def _block(self, batch: range) -> "Block":
        pixels = np.empty((len(batch), *self.image_shape), dtype=np.uint8)
        for row, index in zip(pixels, batch, strict=True):
            found = _decode(self.files[index], self.grey, self.size)
            if found.shape != self.image_shape:
                raise DataError(
                    f"{self.files[index]}: {_size(found.shape)} pixels, but {os.path.basename(self.files[0])} has "
                    f"{_size(self.image_shape)}: all images of a dataset must have one size; image_folder resizes "
                    "them where dataset.image_size is set"
                )
            row[...] = found
        trains = batch.start < self.train
        return Block(batch.start, trains, pixels, ChannelSums.of(pixels if trains else pixels[:0]))


@dataclass(frozen=True, eq=False)
class Block:
    """Consecutive images of one set, the first at position `start`: uint8 (n, H, W, C).

    trains: whether they are training images. sums: channel sums of them; zero for test images.
    """

    start: int
    trains: bool
    pixels: np.ndarray
    sums: ChannelSums


def all_grey(files: Sequence[str | Path], progress: ProgressCallback) -> bool:
    """Return whether every image is stored as grey levels; only the headers are read."""

    def grey(batch: range) -> bool:
        modes = set()
        for index in batch:
            with _opened(files[index]) as image:
                modes.add(image.mode)
        return modes <= _GREY

    return all(list(_in_threads(grey, _cut(0, len(files), _BATCH), "reading image headers", progress)))


def _cut(start: int, end: int, size: int) -> list[range]:
    """Return the indices from `start` to before `end` in batches."""
    return [range(first, min(first + size, end)) for first in range(start, end, size)]


def _in_threads(
    work: Callable[[range], _Result],
    batches: Sequence[range],
    what: str,
    progress: ProgressCallback,
    threads: int | None = None,
) -> Iterator[_Result]:
    """Do `work` on batches of indices, some ahead of the one that is taken; results, and the first error, in order."""
    threads, coming = threads or usable_cores(), iter(batches)
    with ThreadPoolExecutor(threads, thread_name_prefix="decode") as pool:
        begun = deque((batch, pool.submit(work, batch)) for batch in islice(coming, _AHEAD * threads))
        try:
            while begun:
                batch, result = begun.popleft()
                done = result.result()
                begun.extend((later, pool.submit(work, later)) for later in islice(coming, 1))
                progress(what, batch.stop, batches[-1].stop)
                yield done
        finally:
            pool.shutdown(cancel_futures=True)


@contextlib.contextmanager
def _opened(file: str | Path) -> Iterator[Image.Image]:
    """Open an image; whatever its decoder raises, here or in the block, becomes a DataError that names the file."""
    bomb = f"{file}: more than {LARGEST} pixels, which looks like a decompression bomb; remove or shrink it"
    try:
        with Image.open(file) as image:
            if image.width * image.height > LARGEST:
                raise DataError(bomb)
            if image.mode.startswith(("I", "F")):
                raise DataError(f"{file}: has more than 8 bits a channel (mode {image.mode}); convert it to 8 bits")
            yield image
    except (DataError, MemoryError):
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(bomb) from error
    except Exception as error:  # decoders raise OSError, SyntaxError, ValueError, struct.error and more
        raise DataError(f"{file}: damaged, or not an image ({error}); replace or remove it") from error


def _decode(file: str | Path, grey: bool, size: int | None) -> np.ndarray:
    """Return one image as uint8 (H, W, C)."""
    with _opened(file) as image:
        if image.mode == "P" and "transparency" in image.info:
            image = image.convert("RGBA")  # PIL warns where a palette's transparency is dropped directly
        image = image.convert("L" if grey else "RGB")
        if size is not None:
            image = _centre(image, size)
        pixels = np.asarray(image)
    return pixels[:, :, None] if grey else pixels


def _centre(image: Image.Image, size: int) -> Image.Image:
    """Resize the shorter side to `size` and cut out the centre, in one step (no long strip is ever made)."""
    side = min(image.size)
    left, top = (image.width - side) / 2, (image.height - side) / 2
    box = (left, top, left + side, top + side)
    return image.resize((size, size), Image.Resampling.BILINEAR, box=box)


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[1]}x{shape[0]}"
