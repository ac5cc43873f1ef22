"""Datasets of your own: what a function returns, as images and labels.

A split is a pair of arrays (images, labels), or a map-style torch Dataset of pairs (image, label). The function returns
a pair of splits (train, test), a mapping with the keys `train`, `test` and `class_names`, or a training split alone, of
which `dataset.test_share` is held out.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from dash_core.config import DatasetConfig
from dash_core.data.cache import Source
from dash_core.data.hold_out import stratified_hold_out
from dash_core.data.image_file import opaque, resized
from dash_core.data.imageset import Dataset, ImageSet
from dash_core.data.normalisation import channel_statistics
from dash_core.data.progress import ProgressCallback
from dash_core.errors import DataError
from dash_core.parts import DATASETS, PartError, callable_part, explained, part_path

TESTS = ("test", "validation", "valid", "val")  # keys of the test split, the first that is there
CHANNELS = (1, 2, 3, 4)
TOLD_EVERY = 100  # images between two reports of progress


class Labelled(NamedTuple):
    """A split: images uint8 (N, H, W, C), labels int64 (N,), and the names of the classes if the split knows them."""

    images: np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...] | None = None


def open_own_dataset(config: DatasetConfig, data_root: Path, download: bool, progress: ProgressCallback) -> Source:
    """Import the function and call it, with `folder` if dataset.folder is set.

    It is called once in each process, and not cached: nothing but its images says whether they have changed.
    """
    path = part_path(DATASETS, config.name) or config.name
    function = callable_part(DATASETS, path)
    arguments = [] if config.folder is None else [Path(config.folder).expanduser()]

    def read() -> Dataset:
        with explained(DATASETS, path, f"its call with {arguments or 'no arguments'}"):
            content = function(*arguments)
        with explained(DATASETS, path, "reading what it returns"):
            try:
                return dataset_of(content, config, progress).examined()
            except DataError as error:
                raise PartError(f"{DATASETS} {path}: {error}") from error

    return Source([path, config.source], read, cached=False)


def dataset_of(content: Any, config: DatasetConfig, progress: ProgressCallback) -> Dataset:
    """Return what a function returned as a dataset; DataError says what it must return instead."""
    if isinstance(content, Dataset):
        return content
    names = None
    if isinstance(content, Mapping):
        train, test = content.get("train"), next((content[key] for key in TESTS if key in content), None)
        names = content.get("class_names")
        if train is None:
            raise DataError(f"it returns a mapping without the key train, but with {', '.join(map(str, content))}")
    elif isinstance(content, tuple | list) and len(content) == 2 and not _is_pair_of_arrays(content):
        train, test = content
    else:
        train, test = content, None
    splits = [labelled(split, config, progress) for split in (train, test) if split is not None]
    return _dataset(config, splits, names)


def _dataset(config: DatasetConfig, splits: Sequence[Labelled], names: Sequence[str] | None) -> Dataset:
    named = (tuple(names) if names is not None else None) or splits[0].class_names
    count = max(int(split.labels.max()) + 1 for split in splits)
    named = named or tuple(map(str, range(count)))
    if len(named) < count or any(split.labels.min() < 0 for split in splits):
        least = min(int(split.labels.min()) for split in splits)
        raise DataError(
            f"its labels must be 0 to {len(named) - 1}, one for each of {len(named)} classes, and are "
            f"{least} to {count - 1}"
        )
    if len({split.images.shape[1:] for split in splits}) > 1:
        shapes = " and ".join(str(split.images.shape[1:]) for split in splits)
        raise DataError(f"its training and test images differ in shape (H, W, C): {shapes}")
    images, labels = (torch.from_numpy(np.ascontiguousarray(part)) for part in splits[0][:2])
    if len(splits) == 2:
        tested = [torch.from_numpy(np.ascontiguousarray(part)) for part in splits[1][:2]]
    else:
        train, test = stratified_hold_out(labels, tuple(map(str, named)), config.test_share)
        tested = [images[test], labels[test]]
        images, labels = images[train], labels[train]
    statistics = channel_statistics(images)
    class_names = tuple(map(str, named))
    return Dataset(
        config.name, ImageSet(images, labels, class_names, *statistics), ImageSet(*tested, class_names, *statistics)
    )


def labelled(split: Any, config: DatasetConfig, progress: ProgressCallback) -> Labelled:
    """Return a split of any of the allowed forms."""
    if _is_pair_of_arrays(split):
        return Labelled(_array_of_images(split[0]), _labels(split[1], len(split[0])))
    if (
        hasattr(split, "__getitem__")
        and hasattr(split, "__len__")
        and not isinstance(split, tuple | list | str | bytes)
    ):
        names = getattr(split, "classes", None)  # as torchvision's datasets have it
        pairs = rows(split, lambda item: item, config, progress)
        return pairs._replace(class_names=tuple(map(str, names)) if isinstance(names, list | tuple) else None)
    raise DataError(
        "each split must be a pair of arrays (images uint8 (N, H, W, C), labels (N,)), or a map-style torch Dataset, "
        f"got {type(split).__name__}"
    )


def rows(
    split: Any, pair: Callable[[Any], tuple[Any, Any]], config: DatasetConfig, progress: ProgressCallback
) -> Labelled:
    """Return a map-style set as arrays. pair: item → (image, label)."""
    count = len(split)
    if not count:
        raise DataError("a split has no images")
    images, labels = [], []
    for position in range(count):
        item = pair(split[position])
        if not isinstance(item, tuple | list) or len(item) != 2:
            raise DataError(f"item {position} must be a pair (image, label), got {type(item).__name__}")
        images.append(_pixels(item[0], position, config))
        labels.append(item[1])
        if position % TOLD_EVERY == 0 or position == count - 1:
            progress("images", position + 1, count)
    if len({image.shape[2] for image in images}) > 1:  # grey ones among colour
        images = [np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image for image in images]
    if len(shapes := sorted({image.shape for image in images})) > 1:
        raise DataError(f"its images differ in shape (H, W, C), {shapes[0]} and {shapes[-1]}: set dataset.image_size")
    return Labelled(np.stack(images), _labels(labels, count))


def _is_pair_of_arrays(split: Any) -> bool:
    """Tell (images, labels) from (train, test)."""
    if not isinstance(split, tuple | list) or len(split) != 2:
        return False
    images, labels = split
    return isinstance(images, np.ndarray | Tensor) and isinstance(labels, np.ndarray | Tensor | list | tuple | range)


def _array_of_images(images: Any) -> np.ndarray:
    """Return an array of images as uint8 (N, H, W, C); DataError if it has another type or order."""
    images = images.numpy() if isinstance(images, Tensor) else images
    images = images[..., None] if images.ndim == 3 else images
    if images.ndim != 4 or images.dtype != np.uint8 or images.shape[3] not in CHANNELS or not len(images):
        swapped = images.ndim == 4 and images.shape[1] in CHANNELS and images.shape[3] not in CHANNELS
        remedy = "; it looks like (N, C, H, W): transpose(0, 2, 3, 1)" if swapped else ""
        raise DataError(f"an array of images must be uint8 (N, H, W, C), got {images.dtype} {images.shape}{remedy}")
    return images


def _labels(labels: Any, count: int) -> np.ndarray:
    found = np.asarray(labels.cpu() if isinstance(labels, Tensor) else labels)
    if found.shape != (count,) or found.dtype.kind not in "iu":
        raise DataError(f"labels must be {count} whole numbers, one an image, got {found.dtype} of shape {found.shape}")
    return found.astype(np.int64)


def _pixels(image: Any, position: int, config: DatasetConfig) -> np.ndarray:
    """Return one image as uint8 (H, W, C).

    It may be a Pillow image; an array uint8 (H, W) or (H, W, C); or a tensor (C, H, W), uint8 or float in [0, 1].
    """
    from PIL import Image, ImageOps

    if isinstance(image, Tensor):
        image = image.detach().cpu()
        if image.is_floating_point():
            if not bool(((image >= 0) & (image <= 1)).all()):
                raise DataError(
                    f"image {position} has values outside of 0 to 1: leave normalisation and augmentation out of the "
                    "dataset; dashpipe does both"
                )
            image = (image.double() * 255).round().to(torch.uint8)
        image = image.numpy()
        image = image.transpose(1, 2, 0) if image.ndim == 3 else image
    if isinstance(image, np.ndarray):
        image = image[:, :, None] if image.ndim == 2 else image
        if image.ndim != 3 or image.dtype != np.uint8 or image.shape[2] not in CHANNELS:
            raise DataError(
                f"image {position} must be uint8 (H, W, C), or a tensor (C, H, W), got {image.dtype} {image.shape}"
            )
        if config.image_size is None:
            return image
        if image.shape[2] not in (1, 3):
            raise DataError("dataset.image_size: images of 2 or 4 channels cannot be resized; resize them yourself")
        image = Image.fromarray(image.squeeze(2) if image.shape[2] == 1 else image)
    if not isinstance(image, Image.Image):
        raise DataError(f"image {position} must be a Pillow image, an array or a tensor, got {type(image).__name__}")
    image = opaque(ImageOps.exif_transpose(image), config.background)
    image = image.convert("L" if image.mode in ("1", "L") else "RGB")
    if config.image_size is not None:
        image = resized(image, config.image_size, config.resize, config.background)
    pixels = np.asarray(image)
    return pixels[:, :, None] if pixels.ndim == 2 else pixels
