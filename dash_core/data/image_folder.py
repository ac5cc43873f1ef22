"""image_folder: any tree of images with one folder per class.

Either `<folder>/train/<class>/*` and `<folder>/test/<class>/*`, or `<folder>/train/<class>/*` or `<folder>/<class>/*`
alone; then a stratified share is held out as the test set. A folder `train` is the training set if it contains
folders, and a class if it contains images. Names that start with a dot are ignored.
"""

import contextlib
import logging
import os
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from dash_core.config import DatasetConfig
from dash_core.data.cache import Source, file_identity
from dash_core.data.decoding import ImageFiles, all_grey
from dash_core.data.hold_out import stratified_hold_out
from dash_core.data.progress import ProgressCallback
from dash_core.errors import DataError

logger = logging.getLogger("dash_core.data")

SUFFIXES = frozenset((".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"))

Classes = dict[str, list[Path]]


@dataclass(frozen=True)
class _Tree:
    """The image files of each class; `test` is empty if a share must be held out."""

    train: Classes
    test: Classes

    @property
    def files(self) -> list[Path]:
        """All files: train, then test, class by class."""
        return [file for split in (self.train, self.test) for images in split.values() for file in images]

    @property
    def labels(self) -> Tensor:
        """The label of each file: the position of its class among the training classes."""
        number = {name: label for label, name in enumerate(self.train)}
        return torch.tensor([number[name] for split in (self.train, self.test) for name in split for _ in split[name]])


def open_image_folder(config: DatasetConfig, data_root: Path, download: bool, progress: ProgressCallback) -> Source:
    """List the tree at `config.folder` and check its layout; `data_root` and `download` are not used."""
    root = Path(config.folder or "")
    with contextlib.suppress(RuntimeError):  # `~name` without such a user: then no such folder exists either
        root = root.expanduser()
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; dataset.folder must name a tree with a folder of images a class")
    tree = _tree(root)
    test_share = None if tree.test else config.test_share
    identity = [config.image_size, test_share, len(tree.test), file_identity(root, tree.files)]
    return Source(identity, lambda: _image_files(config, tree, progress))


def _image_files(config: DatasetConfig, tree: _Tree, progress: ProgressCallback) -> ImageFiles:
    """Return the files of both sets; without a test split, a share of the files is held out."""
    files, labels, names = tree.files, tree.labels, tuple(tree.train)
    first = sum(map(len, tree.train.values()))
    grey = all_grey(files, progress)
    if not tree.test:
        train, test = stratified_hold_out(labels, names, config.test_share)
        order, first = torch.cat((train, test)), len(train)
        files, labels = [files[index] for index in order.tolist()], labels[order]
    return ImageFiles("image_folder", names, files, labels, first, grey, config.image_size)


def _tree(root: Path) -> _Tree:
    """List the tree in whichever of the layouts it has."""
    folders, _ = _entries(root, root)
    inside = {folder.name: folder for folder in folders}
    split = "train" in inside and _entries(inside["train"], root)[0]
    if split and set(inside) - {"train", "test"}:
        passed_over = ", ".join(sorted(set(inside) - {"train", "test"}))
        logger.warning("%s: only train and test are read, not %s", root, passed_over)
    train = _classes(inside["train"] if split else root, root)
    if not (split and "test" in inside):
        _check_divisible(train)
        return _Tree(train, {})
    test = _classes(inside["test"], root)
    unknown = sorted(set(test) - set(train))
    if unknown:
        raise DataError(f"{inside['test'] / unknown[0]}: the class {unknown[0]!r} has no folder in {inside['train']}")
    return _Tree(train, test)


def _check_divisible(train: Classes) -> None:
    """Raise DataError for a class of a single image, which cannot be divided, before anything is decoded."""
    for name, images in train.items():
        if len(images) < 2:
            raise DataError(
                f"{images[0].parent}: the class {name!r} has 1 image, and a hold-out needs 2 of each. "
                "Add images to it, or give the test images in a test/ folder beside train/"
            )


def _classes(folder: Path, root: Path) -> Classes:
    """Return the image files of each class; classes and files in the order of their names."""
    folders, loose = _entries(folder, root)
    if not folders:
        found = f"{len(loose)} files but no folder" if loose else "nothing"
        raise DataError(f"{folder}: holds {found}; put the images in a folder for each class")
    return {found.name: _images(found, root) for found in folders}


def _images(folder: Path, root: Path) -> list[Path]:
    """Return the image files directly in a class's folder."""
    folders, files = _entries(folder, root)
    if folders:
        raise DataError(f"{folders[0]}: a folder in a class's folder; images must lie directly in {folder}")
    images = [file for file in files if file.suffix.lower() in SUFFIXES]
    if not images:
        kinds = ", ".join(sorted(SUFFIXES))
        raise DataError(f"{folder}: an empty class, with no image ({kinds}); add images or remove the folder")
    if len(images) < len(files):
        logger.warning("%s: %d files that are no images are passed over", folder, len(files) - len(images))
    return images


def _entries(folder: Path, root: Path) -> tuple[list[Path], list[Path]]:
    """Return the folders and the files in a folder, by name; a link that leads out of `root` is an error."""
    folders: list[Path] = []
    files: list[Path] = []
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            if entry.name.startswith("."):
                continue
            path = folder / entry.name
            link = entry.is_symlink()
            if link and not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(root)):
                raise DataError(f"{path}: a link that leads out of {root}; copy what it links to, or remove it")
            known = path if link else entry  # an entry needs no disk access, but fails on a loop of links
            if not (known.is_dir() or known.is_file()):
                raise DataError(f"{path}: neither a file nor a folder, or a broken link; remove it")
            (folders if known.is_dir() else files).append(path)
    return folders, files
