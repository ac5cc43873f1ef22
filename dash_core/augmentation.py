"""Augmentation of whole batches on the device, with random numbers that are drawn once an epoch.

All numbers of an epoch come from one CPU generator at once and are moved to the device once, so that every device, and
a run that continues anywhere in the epoch, gets the same. Images are augmented *before* normalisation, as uint8 or as
floats in [0, 1]: pixels from outside the image are black, as with torchvision's transforms before ToTensor and
Normalize.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Self

import torch
from torch import Generator, Tensor
from torch.nn import functional

from dash_core.config import nearest
from dash_core.errors import ConfigError
from dash_core.parts import is_torchvision
from dash_core.transforms import transformed, transforms_of

CROP_PADDING = 4  # black pixels added on each side before a random crop
MAX_DEGREES = 15.0  # of rotation, in either direction
CROP_AREA = (0.08, 1.0)  # smallest and largest share of the image that a resized crop covers
CROP_RATIO = (3 / 4, 4 / 3)  # smallest and largest width : height of a resized crop
CROP_PROPOSALS = 10  # random resized crops of an image; if none fits, the largest central crop is taken

ImageShape = tuple[int, int, int]


@dataclass(frozen=True, eq=False)
class Augmentation(ABC):
    """The random numbers of one epoch: each tensor has a row for each image, in the order of the epoch."""

    def to(self, device: torch.device | str) -> Self:
        """Return the same numbers on another device."""
        return replace(self, **{name: rows.to(device) for name, rows in self._rows().items()})

    def __call__(self, batch: Tensor, positions: slice | Tensor) -> Tensor:
        """Return a batch (B, C, H, W), not yet normalised, augmented as the images `positions` of the epoch.

        The dtype, uint8 or floating, is kept; the batch itself is not changed. Nothing in our own augmentations waits
        for the device.
        """
        chosen = {name: rows[positions] for name, rows in self._rows().items()}
        for rows in chosen.values():
            if len(rows) != len(batch):
                raise ValueError(f"positions {positions} are {len(rows)} images, the batch has {len(batch)}")
        return replace(self, **chosen).apply(batch)

    def _rows(self) -> dict[str, Tensor]:
        values = {part.name: getattr(self, part.name) for part in fields(self)}
        return {name: value for name, value in values.items() if isinstance(value, Tensor)}

    @abstractmethod
    def apply(self, batch: Tensor) -> Tensor:
        """Return the batch augmented with all rows of the fields, one row an image."""


@dataclass(frozen=True, eq=False)
class CropFlip(Augmentation):
    """Pad with black, crop to size at (top, left) of the padded image, flip: RandomCrop, RandomHorizontalFlip."""

    flip: Tensor  # bool: mirror left and right
    top: Tensor
    left: Tensor

    def apply(self, batch: Tensor) -> Tensor:
        """Return the crops, gathered pixel by pixel, which is exact for every dtype."""
        height, width = batch.shape[2:]
        row = torch.arange(height, device=batch.device) + (self.top - CROP_PADDING)[:, None]
        column = _mirrored(torch.arange(width, device=batch.device), self.flip) + (self.left - CROP_PADDING)[:, None]
        inside = ((row >= 0) & (row < height))[:, :, None] & ((column >= 0) & (column < width))[:, None]
        pixel = row.clamp(0, height - 1)[:, :, None] * width + column.clamp(0, width - 1)[:, None]
        pixel = pixel.flatten(1)[:, None].expand(-1, batch.shape[1], -1)
        crops = batch.flatten(2).gather(2, pixel).view_as(batch)
        return crops.masked_fill(~inside[:, None], 0)


@dataclass(frozen=True, eq=False)
class CropFlipRotate(CropFlip):
    """Crop and flip, then rotate about the centre: RandomRotation(15), nearest pixel, black outside the image."""

    cosine: Tensor  # of the angle, counter-clockwise
    sine: Tensor

    def apply(self, batch: Tensor) -> Tensor:
        """Return the rotated crops: pixel (x, y), from the centre, comes from (x cos - y sin, x sin + y cos)."""
        middle_y, middle_x = ((side - 1) / 2 for side in batch.shape[2:])
        y, x = (torch.arange(side, device=batch.device) - (side - 1) / 2 for side in batch.shape[2:])
        x, y = x[None, None, :], y[None, :, None]
        cosine, sine = self.cosine[:, None, None], self.sine[:, None, None]
        crops = super().apply(batch)
        return _sample(crops, x * cosine - y * sine + middle_x, x * sine + y * cosine + middle_y, mode="nearest")


@dataclass(frozen=True, eq=False)
class ResizedCropFlip(Augmentation):
    """Crop a part, stretch it to the image's size, flip: RandomResizedCrop, bilinear, and RandomHorizontalFlip.

    A crop is never larger than its image, so it is never shrunk, and antialiasing would change nothing.
    """

    flip: Tensor  # bool: mirror left and right
    top: Tensor
    left: Tensor
    height: Tensor
    width: Tensor

    def apply(self, batch: Tensor) -> Tensor:
        """Return the stretched crops; no pixel outside a crop changes it."""
        rows, columns = (torch.arange(side, device=batch.device) for side in batch.shape[2:])
        y = _stretched(rows, self.top, self.height, batch.shape[2])
        x = _stretched(_mirrored(columns, self.flip), self.left, self.width, batch.shape[3])
        shape = (len(batch), *batch.shape[2:])
        return _sample(batch, x[:, None, :].expand(shape), y[:, :, None].expand(shape), mode="bilinear")


@dataclass(frozen=True, eq=False)
class Transformed(Augmentation):
    """torchvision's transforms of each image alone, by random numbers from its own seed (`dash_core.transforms`)."""

    name: str
    transforms: Callable[[Tensor], Tensor]
    seeds: Tensor

    def apply(self, batch: Tensor) -> Tensor:
        """Return the transformed images."""
        return transformed(self.name, self.transforms, batch, self.seeds.tolist())


def draw_augmentation(name: str, images: int, image_shape: ImageShape, generator: Generator) -> Augmentation | None:
    """Return the named augmentation of an epoch of `images` images (C, H, W), or None for "none".

    All numbers come from the CPU `generator`; their count depends on `images` only.
    """
    if is_torchvision(name):
        return Transformed(name, transforms_of(name), torch.randint(2**63 - 1, (images,), generator=generator))
    if name not in AUGMENTATIONS:
        raise ConfigError(
            f"unknown augmentation {name!r}{nearest(name, list(AUGMENTATIONS))}; known: {', '.join(AUGMENTATIONS)}"
        )
    return AUGMENTATIONS[name](images, image_shape, generator)


def _no_augmentation(images: int, image_shape: ImageShape, generator: Generator) -> None:
    return None


def _draw_crop_flip(images: int, image_shape: ImageShape, generator: Generator) -> CropFlip:
    top, left = torch.randint(2 * CROP_PADDING + 1, (2, images), generator=generator)
    return CropFlip(_draw_flips(images, generator), top, left)


def _draw_crop_flip_rotate(images: int, image_shape: ImageShape, generator: Generator) -> CropFlipRotate:
    crop = _draw_crop_flip(images, image_shape, generator)
    degrees = _draw_uniform((images,), -MAX_DEGREES, MAX_DEGREES, generator)
    angle = degrees.deg2rad()  # in float64: only the results are rounded, and every device gets the same
    return CropFlipRotate(crop.flip, crop.top, crop.left, angle.cos().float(), angle.sin().float())


def _draw_resized_crop_flip(images: int, image_shape: ImageShape, generator: Generator) -> ResizedCropFlip:
    """Draw CROP_PROPOSALS crops an image and take the first that fits, else the largest central crop."""
    _, full_height, full_width = image_shape
    area = _draw_uniform((images, CROP_PROPOSALS), *CROP_AREA, generator) * full_height * full_width
    ratio = _draw_uniform((images, CROP_PROPOSALS), math.log(CROP_RATIO[0]), math.log(CROP_RATIO[1]), generator).exp()
    u, v = _draw_uniform((2, images), 0, 1, generator)
    widths, heights = (area * ratio).sqrt().round().long(), (area / ratio).sqrt().round().long()
    fits = (widths > 0) & (widths <= full_width) & (heights > 0) & (heights <= full_height)
    found, first = fits.any(1), fits.long().argmax(1, keepdim=True)
    central_height, central_width = _largest_central(full_height, full_width)
    height = torch.where(found, heights.gather(1, first).squeeze(1), central_height)
    width = torch.where(found, widths.gather(1, first).squeeze(1), central_width)
    top = torch.where(found, (u * (full_height - height + 1)).long(), (full_height - central_height) // 2)
    left = torch.where(found, (v * (full_width - width + 1)).long(), (full_width - central_width) // 2)
    return ResizedCropFlip(_draw_flips(images, generator), top, left, height, width)


AUGMENTATIONS: dict[str, Callable[[int, ImageShape, Generator], Augmentation | None]] = {
    "none": _no_augmentation,
    "crop_flip": _draw_crop_flip,
    "crop_flip_rotate": _draw_crop_flip_rotate,
    "resized_crop_flip": _draw_resized_crop_flip,
}


def _draw_flips(images: int, generator: Generator) -> Tensor:
    return torch.rand(images, generator=generator) < 0.5


def _draw_uniform(shape: tuple[int, ...], low: float, high: float, generator: Generator) -> Tensor:
    return torch.rand(shape, dtype=torch.float64, generator=generator) * (high - low) + low


def _largest_central(height: int, width: int) -> tuple[int, int]:
    """Return (height, width) of the largest part of the image whose width : height is within CROP_RATIO."""
    if width / height < CROP_RATIO[0]:
        return round(width / CROP_RATIO[0]), width
    if width / height > CROP_RATIO[1]:
        return height, round(height * CROP_RATIO[1])
    return height, width


def _mirrored(columns: Tensor, flip: Tensor) -> Tensor:
    """Return (B, W): the columns (W,), reversed for flipped images."""
    return torch.where(flip[:, None], columns.flip(0), columns)


def _stretched(pixels: Tensor, start: Tensor, length: Tensor, side: int) -> Tensor:
    """Return (B, side): the place in the image of each pixel after [start, start + length) is stretched to `side`."""
    start, length = start[:, None].float(), length[:, None].float()
    within = (pixels + 0.5) * length / side - 0.5
    return start + within.clamp(min=0).minimum(length - 1)


def _sample(batch: Tensor, x: Tensor, y: Tensor, mode: str) -> Tensor:
    """Return the batch (B, C, H, W) sampled at x, y (B, H, W), in pixels from the first; black outside the image."""
    height, width = batch.shape[2:]
    grid = torch.stack(((2 * x + 1) / width - 1, (2 * y + 1) / height - 1), dim=-1)
    taken = functional.grid_sample(batch.float(), grid, mode=mode, padding_mode="zeros", align_corners=False)
    return (taken if batch.is_floating_point() else taken.round()).to(batch.dtype)
