"""One image file: its pixels as a person sees them, upright and opaque, or an error that names the file."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dash_core.errors import DataError

if TYPE_CHECKING:
    from PIL import Image

LARGEST = 64_000_000  # pixels: a larger image is taken for a decompression bomb


class DamagedImage(DataError):
    """A file that no decoder can read; the message names it."""


@contextlib.contextmanager
def opened(file: str | Path) -> Iterator["Image.Image"]:
    """Open an image; whatever its decoder raises, here or in the block, becomes an error that names the file."""
    from PIL import Image  # here and below: training on tensors needs no Pillow

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
        raise DamagedImage(f"{file}: damaged, or not an image ({error}); replace or remove it") from error


def decode(file: str | Path, grey: bool, size: int | None, background: str, resize: str = "crop") -> np.ndarray:
    """Return one image as uint8 (H, W, C), upright, on the background where it is transparent; `resized` to `size`."""
    from PIL import ImageOps

    with opened(file) as image:
        image = opaque(ImageOps.exif_transpose(image), background).convert("L" if grey else "RGB")
        if size is not None:
            image = resized(image, size, resize, background)
        pixels = np.asarray(image)
    return pixels[:, :, None] if grey else pixels


def opaque(image: "Image.Image", background: str) -> "Image.Image":
    """Return the image as it looks on the background; a transparent pixel's own colour is arbitrary."""
    from PIL import Image

    if not image.has_transparency_data:
        return image
    return Image.alpha_composite(Image.new("RGBA", image.size, background), image.convert("RGBA"))


def resized(image: "Image.Image", size: int, how: str, background: str) -> "Image.Image":
    """Return the image as a square of `size` pixels, resampled bilinearly.

    crop: the shorter side becomes `size`, and the centre is cut out. squash: each side becomes `size`, whatever the
    image's proportions. pad: the longer side becomes `size`, in the centre of the background.
    """
    from PIL import Image

    if how == "squash":
        return image.resize((size, size), Image.Resampling.BILINEAR)
    if how == "pad":
        longer = max(image.size)
        width, height = (max(1, round(size * side / longer)) for side in image.size)
        square = Image.new("RGB", (size, size), background).convert(image.mode)
        small = image.resize((width, height), Image.Resampling.BILINEAR)
        square.paste(small, ((size - width) // 2, (size - height) // 2))
        return square
    side = min(image.size)
    left, top = (image.width - side) / 2, (image.height - side) / 2
    box = (left, top, left + side, top + side)
    return image.resize((size, size), Image.Resampling.BILINEAR, box=box)  # in one step: no long strip is ever made
