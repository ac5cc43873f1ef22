"""Decoding: image files to one uint8 tensor, in parallel threads (PIL releases the GIL while it decodes)."""

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from dash_core.data.progress import Progress
from dash_core.errors import DataError

LARGEST = 64_000_000  # pixels: a larger image is taken for a decompression bomb

_GREY = {"1", "L", "LA"}
_BATCH = 64  # files a thread takes at a time
_Result = TypeVar("_Result")


def all_grey(files: Sequence[Path], progress: Progress) -> bool:
    """Say whether every image is stored as grey levels; only the headers are read."""

    def grey(batch: range) -> bool:
        modes = set()
        for index in batch:
            with _opened(files[index]) as image:
                modes.add(image.mode)
        return modes <= _GREY

    return all(list(_in_threads(grey, len(files), "reading image headers", progress)))


def decode_images(files: Sequence[Path], *, grey: bool, size: int | None, progress: Progress) -> Tensor:
    """Return the files' images as uint8 (N, H, W, C), with C = 1 if `grey`, else 3 (RGB, transparency dropped).

    With a `size`, each image is resized (PIL, bilinear) so that its shorter side has it, and its centre is cut out;
    without, all must have the shape of the first. Images are taken as stored: an EXIF rotation is not applied.
    """
    first = _decode(files[0], grey, size)
    images = np.empty((len(files), *first.shape), dtype=np.uint8)

    def decode(batch: range) -> None:
        for index in batch:
            file = files[index]
            pixels = _decode(file, grey, size)
            if pixels.shape != first.shape:
                raise DataError(
                    f"{file}: {_size(pixels)} pixels, but {files[0].name} has {_size(first)}: all images of a dataset "
                    "must have one size; image_folder resizes them where dataset.image_size is set"
                )
            images[index] = pixels

    for _ in _in_threads(decode, len(files), "decoding images", progress):
        pass
    return torch.from_numpy(images)


def _in_threads(work: Callable[[range], _Result], total: int, what: str, progress: Progress) -> Iterator[_Result]:
    """Do `work` on batches of the indices below `total`; results, and the first error, come in their order."""
    batches = [range(start, min(start + _BATCH, total)) for start in range(0, total, _BATCH)]
    with ThreadPoolExecutor(max_workers=min(16, os.cpu_count() or 1)) as threads:
        for batch, result in zip(batches, threads.map(work, batches), strict=True):
            progress(what, batch.stop, total)
            yield result


@contextlib.contextmanager
def _opened(file: Path) -> Iterator[Image.Image]:
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


def _decode(file: Path, grey: bool, size: int | None) -> np.ndarray:
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


def _size(pixels: np.ndarray) -> str:
    return f"{pixels.shape[1]}x{pixels.shape[0]}"
