"""imagenet: ImageNet-1k (ILSVRC2012) in the folder `imagenet` of the data root, in its official layout.

`train/<wnid>/*.JPEG` are the training images, and the validation images are the test set: either `val/<wnid>/*.JPEG`,
or `val/ILSVRC2012_val_*.JPEG` with the development kit, `ILSVRC2012_devkit_t12/data`, beside it. The classes
are those with a folder in train, so that a part of them loads too. They are ordered and named by their WordNet id.
"""

import logging
import os
import re
from pathlib import Path

import numpy as np
import torch

from dash_core.config import DatasetConfig
from dash_core.data.cache import Source, file_identity
from dash_core.data.decoding import ImageFiles, leave_out_or_refuse
from dash_core.data.normalisation import IMAGENET
from dash_core.data.progress import ProgressCallback
from dash_core.errors import DataError

logger = logging.getLogger("dash_core.data")

FOLDER = "imagenet"
SIDE = 224  # pixels, unless dataset.image_size says otherwise
CLASSES = 1000
DEVKIT = Path("ILSVRC2012_devkit_t12", "data")
TRUTH, META = "ILSVRC2012_validation_ground_truth.txt", "meta.mat"
REMEDY = (
    "ImageNet cannot be downloaded without an account: register at image-net.org, and unpack ILSVRC2012_img_train.tar "
    "(and the tar file of each class in it) to train/<wnid>/*.JPEG, ILSVRC2012_img_val.tar to val/*.JPEG, and "
    "ILSVRC2012_devkit_t12.tar.gz beside them"
)
FLAT = re.compile(r"ILSVRC2012_val_(\d{8})\.JPEG")

Labelled = list[tuple[str, int]]


def open_imagenet(config: DatasetConfig, data_root: Path, download: bool, progress: ProgressCallback) -> Source:
    """List `data_root`/imagenet and check its layout; `download` is not used."""
    root = data_root / FOLDER
    for needed in (root, root / "train", root / "val"):
        if not needed.is_dir():
            raise DataError(f"imagenet: no folder {needed}. {REMEDY}, all in {root}")
    wnids = _classes(root / "train")
    train = [(file, label) for label, wnid in enumerate(wnids) for file in _images(root / "train" / wnid)]
    test = _validation(root, {wnid: label for label, wnid in enumerate(wnids)})
    files, labels = [file for file, _ in train + test], torch.tensor([label for _, label in train + test])
    size = config.image_size or SIDE
    devkit = [file for name in (TRUTH, META) if (file := root / DEVKIT / name).is_file()]
    found = ImageFiles(
        name="imagenet",
        class_names=tuple(wnids),
        files=files,
        labels=labels,
        train=len(train),
        size=size,
        background=config.background,
        resize=config.resize,
        statistics=IMAGENET,
    )
    choices = [size, config.background, config.damaged]
    choices += [config.resize] if config.resize != "crop" else []  # older caches have no such entry
    identity = [*choices, len(train), file_identity(root, [*devkit, *files])]
    if config.damaged == "leave_out":
        return Source(identity, lambda: leave_out_or_refuse(found, config.damaged, progress))
    return Source(identity, lambda: found)


def _classes(folder: Path) -> list[str]:
    """Return the sorted WordNet ids that have a folder in train."""
    wnids = _wnids(folder)
    if not wnids:
        raise DataError(f"{folder}: no folder of a class, such as n01440764. {REMEDY}")
    if len(wnids) < CLASSES:
        logger.warning("%s: %d of the %d classes are there; only they are used", folder, len(wnids), CLASSES)
    return wnids


def _wnids(folder: Path) -> list[str]:
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if re.fullmatch(r"n\d{8}", entry.name) and entry.is_dir())


def _images(folder: Path) -> list[str]:
    """Return the images of a class's folder, by name."""
    with os.scandir(folder) as entries:
        images = sorted(entry.path for entry in entries if entry.name.endswith(".JPEG"))
    if not images:
        raise DataError(f"{folder}: an empty class, with no *.JPEG; unpack its tar file again")
    return images


def _validation(root: Path, labels: dict[str, int]) -> Labelled:
    """Return the validation images of the given classes, in either layout."""
    folder = root / "val"
    wnids = _wnids(folder)
    if wnids:
        found = [(file, labels[wnid]) for wnid in wnids if wnid in labels for file in _images(folder / wnid)]
    else:
        found = [(file, labels[wnid]) for file, wnid in _flat(folder, root / DEVKIT) if wnid in labels]
    if not found:
        raise DataError(f"{folder}: no image of the classes in train. {REMEDY}")
    return found


def _flat(folder: Path, devkit: Path) -> list[tuple[str, str]]:
    """Return each validation image with its WordNet id: the class of image n is in line n of the ground truth."""
    names = sorted(name for name in os.listdir(folder) if FLAT.fullmatch(name))
    truth, wnids = _truth(devkit / TRUTH), _wnid_of(devkit / META)
    if len(names) != len(truth):
        raise DataError(f"{folder}: holds {len(names)} images, but {devkit / TRUTH} has {len(truth)} lines. {REMEDY}")
    for number, name in enumerate(names, start=1):
        if int(FLAT.fullmatch(name)[1]) != number:
            raise DataError(f"{folder / name}: found where image {number} should be. {REMEDY}")
    if unknown := set(truth) - set(wnids):
        raise DataError(
            f"{devkit / TRUTH}: the class {min(unknown)} is not in {META}; unpack the development kit again"
        )
    return [(str(folder / name), wnids[number]) for name, number in zip(names, truth, strict=True)]


def _truth(file: Path) -> list[int]:
    """Return the class of each validation image, by its number in ILSVRC2012."""
    try:
        return [int(line) for line in file.read_text(encoding="ascii").split()]
    except FileNotFoundError as error:
        raise DataError(f"{file}: missing, and val has no folders of classes. {REMEDY}") from error
    except ValueError as error:
        raise DataError(f"{file}: must hold a class's number a line ({error}); unpack it again") from error


def _wnid_of(file: Path) -> dict[int, str]:
    """Return the WordNet id of each class, by its number in ILSVRC2012."""
    from scipy.io import loadmat

    try:
        with file.open("rb") as content:
            synsets = np.atleast_1d(loadmat(content, squeeze_me=True)["synsets"])
        return {int(synset["ILSVRC2012_ID"]): str(synset["WNID"]) for synset in synsets}
    except FileNotFoundError as error:
        raise DataError(f"{file}: missing, and val has no folders of classes. {REMEDY}") from error
    except Exception as error:  # scipy raises many kinds of error for a damaged file
        raise DataError(f"{file}: damaged, or not the development kit's ({error}); unpack it again") from error
