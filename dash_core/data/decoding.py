"""Decode image files to uint8 pixels on every core, block by block; PIL releases the GIL while it decodes.

Only a few blocks are in memory at a time, so a set may be larger than the memory.
"""

import logging
import os
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Self, TypeVar

import numpy as np
import torch
from torch import Tensor

from dash_core.data.image_file import DamagedImage, decode, opened
from dash_core.data.imageset import Dataset, ImageSet
from dash_core.data.normalisation import ChannelSums, Statistics
from dash_core.data.noticed import Noticed, count_repeats, fingerprints
from dash_core.data.progress import ProgressCallback, silent
from dash_core.device import usable_cores
from dash_core.errors import DataError

logger = logging.getLogger("dash_core.data")

_GREY = {"1", "L", "LA"}
_NAMED = 20  # damaged files that a message names
_BATCH = 64  # files that a thread takes at a time, at most
_BLOCK = 4 * 2**20  # bytes of pixels of a batch, at most; more only if one image has more
_AHEAD = 2  # batches per thread that are being decoded or wait to be taken
_Result = TypeVar("_Result")


@dataclass(frozen=True, eq=False)
class ImageFiles:
    """A dataset as image files: the training images first, then the test images.

    labels: int64 (N,), a label for each file; train: how many of the files are the training images'.
    grey: True for one channel, False for three (RGB). size: pixels of a side to which each image is resized, in the way
    that `resize` says (`image_file.resized`); None: all images must have the shape of the first.
    Images are turned upright as their EXIF orientation says. background: colour behind transparent pixels.
    statistics: mean and std; None: those of the training images.
    noticed: what was counted before the images are decoded.
    """

    name: str
    class_names: tuple[str, ...]
    files: Sequence[str | Path]
    labels: Tensor
    train: int
    grey: bool = False
    size: int | None = None
    background: str = "white"
    resize: str = "crop"
    statistics: Statistics | None = None
    noticed: Noticed = field(default_factory=Noticed)

    @cached_property
    def image_shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of the first image, which all must have; DataError names all damaged files."""
        try:
            return self._decode(0).shape
        except DamagedImage:
            raise _all_damaged(self.damaged(silent), len(self.files)) from None

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
    ) -> tuple[Statistics, Noticed]:
        """Decode all images and pass them to `take` in their order, in blocks; return mean and std, and the counts.

        threads: number of decoding threads; None: one per core. DataError names every damaged file.
        """
        per_batch = max(1, min(_BATCH, _BLOCK * len(self.files) // self.pixel_bytes))
        batches = [*_cut(0, self.train, per_batch), *_cut(self.train, len(self.files), per_batch)]
        sums = ChannelSums(0, [0] * self.image_shape[2], [0] * self.image_shape[2])
        prints: list[bytes] = []
        try:
            for block in _in_threads(self._block, batches, "decoding images", progress, threads):
                take(block)
                sums += block.sums
                prints += block.fingerprints
        except DamagedImage:
            rest = range(len(prints), len(self.files))
            raise _all_damaged(self.damaged(progress, rest), len(self.files)) from None
        repeats = count_repeats(prints, self.labels, self.train)
        return self.statistics or sums.statistics(), replace(self.noticed, **repeats.counts)

    def damaged(self, progress: ProgressCallback, among: range | None = None) -> dict[int, str]:
        """Return why files cannot be decoded, by index, in order; every file of `among` (None: all) is decoded."""
        among = range(len(self.files)) if among is None else among

        def examine(batch: range) -> dict[int, str]:
            reasons = {}
            for index in batch:
                try:
                    self._decode(index)
                except DamagedImage as error:
                    reasons[index] = str(error)
            return reasons

        batches = _cut(among.start, among.stop, _BATCH)
        return {
            index: reason
            for part in _in_threads(examine, batches, "examining images", progress)
            for index, reason in part.items()
        }

    def without(self, damaged: Collection[int]) -> Self:
        """Return the same images without those of the given indices; DataError if a class has none left."""
        kept = [index for index in range(len(self.files)) if index not in damaged]
        labels = self.labels[kept]
        train = sum(index < self.train for index in kept)
        for label in self.labels[: self.train].unique().tolist():
            if not bool((labels[:train] == label).any()):
                raise DataError(f"class {self.class_names[label]!r}: every training image is damaged; replace some")
        if self.train < len(self.files) and train == len(kept):
            raise DataError("every test image is damaged; replace some")
        noticed = replace(self.noticed, damaged_files_left_out=len(damaged))
        return replace(self, files=[self.files[index] for index in kept], labels=labels, train=train, noticed=noticed)

    def in_memory(self, progress: ProgressCallback) -> Dataset:
        """Decode all images into memory."""
        pixels = np.empty((len(self.files), *self.image_shape), dtype=np.uint8)

        def take(block: "Block") -> None:
            pixels[block.start : block.start + len(block.pixels)] = block.pixels

        statistics, noticed = self.decoded(progress, take)
        images, labels, first = torch.from_numpy(pixels), self.labels, self.train
        train = ImageSet(images[:first], labels[:first], self.class_names, *statistics)
        test = ImageSet(images[first:], labels[first:], self.class_names, *statistics)
        return Dataset(self.name, train, test, noticed)

    def _block(self, batch: range) -> "Block":
        pixels = np.empty((len(batch), *self.image_shape), dtype=np.uint8)
        for row, index in zip(pixels, batch, strict=True):
            found = self._decode(index)
            if found.shape != self.image_shape:
                raise DataError(
                    f"{self.files[index]}: {_size(found.shape)} pixels, but {os.path.basename(self.files[0])} has "
                    f"{_size(self.image_shape)}: all images of a dataset must have one size; image_folder resizes "
                    "them where dataset.image_size is set"
                )
            row[...] = found
        trains = batch.start < self.train
        sums = ChannelSums.of(pixels if trains else pixels[:0])
        return Block(batch.start, trains, pixels, sums, fingerprints(pixels))

    def _decode(self, index: int) -> np.ndarray:
        return decode(self.files[index], self.grey, self.size, self.background, self.resize)


@dataclass(frozen=True, eq=False)
class Block:
    """Consecutive images of one set, the first at position `start`: uint8 (n, H, W, C).

    trains: whether they are training images. sums: channel sums of them; zero for test images. fingerprints: a hash of
    each image's pixels.
    """

    start: int
    trains: bool
    pixels: np.ndarray
    sums: ChannelSums
    fingerprints: list[bytes]


@dataclass(frozen=True)
class Headers:
    """What the headers of image files say. grey: every file stores grey levels. damaged: some header is unreadable."""

    grey: bool
    several_frames: int
    damaged: bool


def read_headers(files: Sequence[str | Path], progress: ProgressCallback) -> Headers:
    """Read the headers of all files; damaged ones are not an error yet."""

    def read(batch: range) -> Headers:
        modes, several, damaged = set(), 0, False
        for index in batch:
            try:
                with opened(files[index]) as image:
                    modes.add(image.mode)
                    # a phone's MPO file holds the photo first, then previews of it
                    several += image.format != "MPO" and getattr(image, "is_animated", False)
            except DamagedImage:
                damaged = True
        return Headers(modes <= _GREY, several, damaged)

    parts = list(_in_threads(read, _cut(0, len(files), _BATCH), "reading image headers", progress))
    return Headers(
        grey=all(part.grey for part in parts),
        several_frames=sum(part.several_frames for part in parts),
        damaged=any(part.damaged for part in parts),
    )


def leave_out_or_refuse(found: ImageFiles, choice: str, progress: ProgressCallback) -> ImageFiles:
    """Return the images without the damaged files (`leave_out`), or raise DataError that names them (`refuse`)."""
    damaged = found.damaged(progress)
    if not damaged:
        return found
    if choice == "refuse":
        raise _all_damaged(damaged, len(found.files))
    for reason in list(damaged.values())[:_NAMED]:
        logger.warning("left out: %s", reason)
    if len(damaged) > _NAMED:
        logger.warning("left out: %d more damaged files", len(damaged) - _NAMED)
    return found.without(damaged)


def _all_damaged(damaged: Mapping[int, str], files: int) -> DataError:
    """Return the error that names the damaged files."""
    reasons = list(damaged.values())
    if len(reasons) == 1:
        return DataError(f"{reasons[0]}, or set dataset.damaged=leave_out")
    more = [f"... and {len(reasons) - _NAMED} more"] if len(reasons) > _NAMED else []
    listing = "\n  ".join(reasons[:_NAMED] + more)
    remedy = "replace or remove them, or set dataset.damaged=leave_out"
    return DataError(f"{len(reasons)} of {files:,} image files are damaged: {remedy}\n  {listing}")


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


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[1]}x{shape[0]}"
