"""tiny_imagenet: the official folder `tiny-imagenet-200`, downloaded if it is missing.

The labelled validation set is the test set, as in the paper. Its images lie in `val/images` and are labelled by
val_annotations.txt, or they are sorted into folders of classes, `val/images/<wnid>` or `val/<wnid>`, as the DASH
authors' script leaves them. The classes are those of wnids.txt that have a folder, so that a sample with fewer classes
loads too. They are ordered by their WordNet id and named by words.txt.
"""

import logging
import os
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch

from dash_core.config import DatasetConfig
from dash_core.data.archive import unpack_zip
from dash_core.data.cache import Source, file_identity
from dash_core.data.decoding import ImageFiles, leave_out_or_refuse
from dash_core.data.download import fetch
from dash_core.data.normalisation import IMAGENET
from dash_core.data.progress import ProgressCallback
from dash_core.errors import DataError
from dash_core.files import sync

logger = logging.getLogger("dash_core.data")

FOLDER = "tiny-imagenet-200"
URL = "http://cs231n.stanford.edu/tiny-imagenet-200.zip"
MD5 = "90528d7ca1a48142e341f4ef8d21d0de"  # of the 248,100,043 bytes at that address
LARGEST = 2 * 2**30  # bytes unpacked

Labelled = list[tuple[Path, int]]


@dataclass(frozen=True)
class _Listing:
    class_names: tuple[str, ...]
    train: Labelled
    test: Labelled


def open_tiny_imagenet(config: DatasetConfig, data_root: Path, download: bool, progress: ProgressCallback) -> Source:
    """List `data_root`/tiny-imagenet-200, downloading it first if it is missing."""
    root = data_root / FOLDER
    if not root.is_dir():
        _provide(root, download, progress)
    listing = _list(root)
    described = [
        root / name for name in ("wnids.txt", "words.txt", "val/val_annotations.txt") if (root / name).is_file()
    ]
    images = [file for file, _ in (*listing.train, *listing.test)]
    identity = [config.background, config.damaged, file_identity(root, [*described, *images])]
    return Source(identity, lambda: _image_files(listing, config, progress))


def _image_files(listing: _Listing, config: DatasetConfig, progress: ProgressCallback) -> ImageFiles:
    """Return the files of both sets; grey images become RGB."""
    files, labels = zip(*listing.train, *listing.test, strict=True)
    found = ImageFiles(
        name="tiny_imagenet",
        class_names=listing.class_names,
        files=files,
        labels=torch.tensor(labels),
        train=len(listing.train),
        background=config.background,
        statistics=IMAGENET,
    )
    return leave_out_or_refuse(found, config.damaged, progress) if config.damaged == "leave_out" else found


def _list(root: Path) -> _Listing:
    """Return the classes and the image files that exist."""
    listed = sorted(set(_lines(root / "wnids.txt")))
    odd = [wnid for wnid in listed if not re.fullmatch(r"n\d{8}", wnid)]
    if odd:
        raise DataError(f"{root / 'wnids.txt'}: {odd[0]!r} is not a WordNet id such as n01443537")
    wnids = [wnid for wnid in listed if (root / "train" / wnid).is_dir()]
    if not wnids:
        raise DataError(f"{root / 'train'}: no folder of a class in wnids.txt; unpack {URL} here again")
    if len(wnids) < len(listed):
        logger.warning("%s: %d of the %d classes are there; only they are used", root, len(wnids), len(listed))
    words = dict(line.split("\t", 1) for line in _lines(root / "words.txt") if "\t" in line)
    return _Listing(
        class_names=tuple(words.get(wnid, wnid) for wnid in wnids),
        train=[(file, label) for label, wnid in enumerate(wnids) for file in _class_images(root / "train" / wnid)],
        test=_validation(root / "val", wnids),
    )


def _class_images(folder: Path) -> list[Path]:
    images = sorted((folder / "images").glob("*.JPEG"))
    if not images:
        raise DataError(f"{folder / 'images'}: an empty class, with no *.JPEG; unpack {URL} again")
    return images


def _validation(folder: Path, wnids: list[str]) -> Labelled:
    """Return the validation images of the given classes: sorted into folders, or in the order of their annotations."""
    for parent in (folder / "images", folder):
        if any((parent / wnid).is_dir() for wnid in wnids):
            return [(file, label) for label, wnid in enumerate(wnids) for file in _sorted_images(parent / wnid)]
    annotations = folder / "val_annotations.txt"
    labels = {wnid: label for label, wnid in enumerate(wnids)}
    found: Labelled = []
    for number, line in enumerate(_lines(annotations), start=1):
        name, _, rest = line.partition("\t")
        wnid = rest.partition("\t")[0]
        if not wnid or Path(name).name != name:
            raise DataError(f"{annotations}: line {number} must be an image's name, a tab and a WordNet id: {line!r}")
        if wnid in labels:
            found.append((folder / "images" / name, labels[wnid]))
    if not found:
        raise DataError(f"{annotations}: no image of the classes in train; unpack {URL} again")
    missing = [file for file, _ in found if not file.is_file()]
    if missing:
        raise DataError(f"{missing[0]}: named in {annotations.name} but not there; unpack {URL} again")
    return found


def _sorted_images(folder: Path) -> list[Path]:
    """Return the validation images of a class's folder, or of its inner folder `images`."""
    images = sorted(folder.glob("*.JPEG")) or sorted((folder / "images").glob("*.JPEG"))
    if not images:
        raise DataError(f"{folder}: no *.JPEG of this class in the validation set; unpack {URL} again")
    return images


def _lines(file: Path) -> list[str]:
    try:
        return [line.strip() for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    except FileNotFoundError as error:
        raise DataError(f"{file}: missing; unpack {URL} into {FOLDER} again") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{file}: not text ({error}); unpack {URL} again") from error


def _provide(root: Path, download: bool, progress: ProgressCallback) -> None:
    """Download and unpack beside `root`, then rename, so that `root` is never incomplete."""
    remedy = f"Set the data root to the folder that holds {FOLDER}, or unpack {URL} into {root.parent}"
    if not download:
        raise DataError(f"tiny_imagenet: no folder {root}, and downloads are off. {remedy}")
    try:
        root.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=root.parent, prefix=".download-") as temporary:
            archive, unpacked = Path(temporary, "archive.zip"), Path(temporary, "unpacked")
            fetch(URL, archive, MD5, progress)
            unpack_zip(archive, unpacked, largest=LARGEST, progress=progress)
            _put(unpacked / FOLDER, root)
    except (DataError, OSError) as error:
        raise DataError(f"tiny_imagenet: no folder {root}, and downloading it failed: {error}. {remedy}") from error


def _put(unpacked: Path, root: Path) -> None:
    """Rename the unpacked folder to `root`, unless another process has put its own there meanwhile."""
    if not unpacked.is_dir():
        raise DataError(f"{URL} holds no folder {FOLDER}")
    os.sync()  # writes the 110,000 files to disk before the name that announces them
    try:
        unpacked.rename(root)
    except OSError:
        if not root.is_dir():
            raise
    sync(root.parent)
