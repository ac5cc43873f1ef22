"""image_folder: any tree of images with one folder per class.

The training set is `<folder>/train/<class>/*`, or `<folder>/<class>/*`. The test set is `<folder>/test/<class>/*`.
Where no labelled `test` exists, the test set is `val` (or `valid`, `validation`), and otherwise a stratified share of
the training set is held out. Capital letters in these names do not matter. A folder `train` that holds images is a
class, unless all its neighbours have names of splits too: then the labels are missing. Names that start with a dot,
and `__MACOSX`, are passed over.
"""

import contextlib
import logging
import os
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from dash_core.config import DatasetConfig
from dash_core.data.cache import Source, file_identity
from dash_core.data.decoding import ImageFiles, leave_out_or_refuse, read_headers
from dash_core.data.hold_out import hashed_hold_out, stratified_hold_out
from dash_core.data.noticed import Noticed
from dash_core.data.progress import ProgressCallback
from dash_core.errors import DataError

logger = logging.getLogger("dash_core.data")

SUFFIXES = frozenset(
    (".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".gif", ".webp", ".avif", ".tif", ".tiff", ".ppm", ".pgm")
)
UNREADABLE = frozenset((".heic", ".heif", ".dng", ".cr2", ".nef", ".arw"))  # photos that Pillow does not decode
TESTS = ("test", "val", "valid", "validation")  # names of a test set's folder, the first that is there is taken
LITTER = "__MACOSX"  # what macOS adds to zip archives

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
    choices = [config.image_size, test_share, config.background, config.damaged]
    choices += [config.hold_out] if config.hold_out != "stratified" and not tree.test else []
    choices += [config.resize] if config.resize != "crop" else []  # older caches have no such entry
    identity = [*choices, len(tree.test), file_identity(root, tree.files)]
    return Source(identity, lambda: _image_files(config, tree, progress))


def _image_files(config: DatasetConfig, tree: _Tree, progress: ProgressCallback) -> ImageFiles:
    """Return the files of both sets; without a test split, a share of the files is held out."""
    headers = read_headers(tree.files, progress)
    found = ImageFiles(
        name="image_folder",
        class_names=tuple(tree.train),
        files=tree.files,
        labels=tree.labels,
        train=sum(map(len, tree.train.values())),
        grey=headers.grey,
        size=config.image_size,
        background=config.background,
        resize=config.resize,
        noticed=Noticed(files_of_several_frames=headers.several_frames),
    )
    if headers.damaged or config.damaged == "leave_out":
        found = leave_out_or_refuse(found, config.damaged, progress)
    if tree.test:
        return found
    if config.hold_out == "hashed":
        train, test = hashed_hold_out(found.files, config.test_share)
    else:
        train, test = stratified_hold_out(found.labels, found.class_names, config.test_share)
    order = torch.cat((train, test))
    files = [found.files[index] for index in order.tolist()]
    return replace(found, files=files, labels=found.labels[order], train=len(train))


def _tree(root: Path) -> _Tree:
    """List the tree in whichever of the layouts it has."""
    folders, _ = _entries(root, root)
    splits = {folder.name.lower(): folder for folder in folders if folder.name.lower() in ("train", *TESTS)}
    train = splits.get("train")
    if train is None or not _entries(train, root)[0]:
        _check_labelled(splits, folders, root)
        classes = _classes(root, root)
        _check_divisible(classes)
        return _Tree(classes, {})
    classes, test = _classes(train, root), _test_folder(splits, root)
    passed_over = ", ".join(sorted(folder.name for folder in folders if folder not in (train, test)))
    if passed_over:
        logger.warning("%s: only %s are read, not %s", root, " and ".join(_names(train, test)), passed_over)
    if test is None:
        _check_divisible(classes)
        return _Tree(classes, {})
    tested = _classes(test, root)
    if unknown := sorted(set(tested) - set(classes)):
        raise DataError(f"{test / unknown[0]}: the class {unknown[0]!r} has no folder in {train}")
    for name, images in classes.items():
        if len(images) == 1:
            logger.warning("%s: the class %r has a single training image", images[0].parent, name)
    return _Tree(classes, tested)


def _names(train: Path, test: Path | None) -> list[str]:
    return [folder.name for folder in (train, test) if folder]


def _check_labelled(splits: Mapping[str, Path], folders: Sequence[Path], root: Path) -> None:
    """Raise DataError for folders of splits that hold images but no folders of classes."""
    if "train" in splits and len(splits) == len(folders):
        raise DataError(
            f"{splits['train']}: holds images but no folder for each class, so that their labels are missing; move "
            f"them to {root.name}/train/<class>/, and test images with labels to {root.name}/test/<class>/"
        )


def _test_folder(splits: Mapping[str, Path], root: Path) -> Path | None:
    """Return the folder of the labelled test set, or None; one without folders of classes is left out, and said."""
    for folder in (splits[name] for name in TESTS if name in splits):
        if _entries(folder, root)[0]:
            return folder
        logger.warning("%s: holds no folder for each class, so that labels are missing: it is left out", folder)
    return None


def _check_divisible(train: Classes) -> None:
    """Raise DataError for a class of a single image, which cannot be divided, before anything is decoded."""
    for name, images in train.items():
        if len(images) < 2:
            raise DataError(
                f"{images[0].parent}: the class {name!r} has 1 image, and a hold-out needs 2 of each. "
                "Add images to it, or give the test images in a test/ folder beside train/"
            )


def _classes(folder: Path, root: Path) -> Classes:
    """Return the image files of each class; classes and files in the order of their names.

    Names are compared in their composed Unicode form (NFC): macOS and Linux encode "é" differently.
    """
    folders, loose = _entries(folder, root)
    if not folders:
        found = f"{len(loose)} files but no folder" if loose else "nothing"
        raise DataError(f"{folder}: holds {found}; put the images in a folder for each class")
    classes: Classes = {}
    for one in folders:
        name = unicodedata.normalize("NFC", one.name)
        if name in classes:
            raise DataError(f"{one}: another folder has the same name in another Unicode form; merge the two")
        classes[name] = _images(one, root)
    return dict(sorted(classes.items()))


def _images(folder: Path, root: Path) -> list[Path]:
    """Return the image files directly in a class's folder."""
    folders, files = _entries(folder, root)
    if folders:
        raise DataError(f"{folders[0]}: a folder in a class's folder; images must lie directly in {folder}")
    images = [file for file in files if _is_image(file)]
    unread = [file for file in files if file.suffix.lower() in UNREADABLE]
    if not images:
        kinds = ", ".join(sorted(SUFFIXES))
        photos = f"; its {len(unread)} {unread[0].suffix} photos cannot be read, convert them to JPEG" if unread else ""
        raise DataError(f"{folder}: an empty class, with no image ({kinds}){photos}; add images or remove the folder")
    if unread:
        logger.warning("%s: %d photos such as %s cannot be read: convert to JPEG", folder, len(unread), unread[0].name)
    if others := len(files) - len(images) - len(unread):
        logger.warning("%s: %d files that are no images are passed over", folder, others)
    return images


def _is_image(file: Path) -> bool:
    """Tell by its suffix whether a file is an image; one without a suffix is opened."""
    if file.suffix:
        return file.suffix.lower() in SUFFIXES
    from PIL import Image

    try:
        with Image.open(file):
            return True
    except (OSError, ValueError, SyntaxError):
        return False


def _entries(folder: Path, root: Path) -> tuple[list[Path], list[Path]]:
    """Return the folders and the files in a folder, by name; a link that leads out of `root` is an error."""
    folders: list[Path] = []
    files: list[Path] = []
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            if entry.name.startswith(".") or entry.name == LITTER:
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
