"""Small sets and image files for the tests of dash_core.data."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dash_core.data import ImageSet

WNIDS = ("n00000001", "n00000002")


def _image_set(images: int = 20, classes: int = 4, seed: int = 0) -> ImageSet:
    pixels = torch.randint(0, 256, (images, 3, 3, 1), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))
    return ImageSet(pixels, torch.arange(images) % classes, tuple(f"class{c}" for c in range(classes)), (0.5,), (0.2,))


def _save_image(path: Path, value: int = 0, size: tuple[int, int] = (6, 6), mode: str = "RGB") -> Path:
    """Write an image that differs for each value; PNG, so that its pixels come back as they were."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(value).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).convert(mode).save(path)
    return path


def _class_folders(root: Path, classes: dict[str, int], mode: str = "RGB") -> Path:
    """Write a tree with so many images in each class's folder."""
    for number, (name, images) in enumerate(classes.items()):
        for index in range(images):
            _save_image(root / name / f"{index:03d}.png", value=100 * number + index, mode=mode)
    return root


def _tiny_imagenet(data_root: Path) -> Path:
    """Write two classes of two training images and one validation image each, in the official layout."""
    root = data_root / "tiny-imagenet-200"
    for number, wnid in enumerate(WNIDS):
        for index in range(2):
            _save_image(root / "train" / wnid / "images" / f"{wnid}_{index}.JPEG", 10 * number + index, (64, 64))
        _save_image(root / "val" / "images" / f"val_{number}.JPEG", 50 + number, (64, 64))
    annotations = "".join(f"val_{n}.JPEG\t{wnid}\t0\t0\t9\t9\n" for n, wnid in enumerate(WNIDS))
    (root / "val" / "val_annotations.txt").write_text(annotations)
    (root / "wnids.txt").write_text("\n".join(reversed(WNIDS)) + "\n")
    (root / "words.txt").write_text("".join(f"{wnid}\tname of {wnid}\n" for wnid in WNIDS))
    return root


@pytest.fixture
def image_set() -> Callable[..., ImageSet]:
    return _image_set


@pytest.fixture
def save_image() -> Callable[..., Path]:
    return _save_image


@pytest.fixture
def class_folders() -> Callable[..., Path]:
    return _class_folders


@pytest.fixture
def tiny_imagenet() -> Callable[..., Path]:
    return _tiny_imagenet
