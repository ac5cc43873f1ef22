"""Hold-out: a test set drawn from a source that has none."""

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from torch import Tensor

from dash_core.errors import DataError
from dash_core.seeding import generator
from dash_core.stream.sides import is_held_out

HOLD_OUT_SALT = "image_folder"
HOLD_OUT_SEED = 0  # the same for every run: a test set must not change with the run's seed


def stratified_hold_out(labels: Tensor, class_names: tuple[str, ...], test_share: float) -> tuple[Tensor, Tensor]:
    """Return sorted (train, test) indices; round(test_share * n) images of each class are held out.

    Every class has at least one image on either side. DataError for a class of one image, which cannot be divided.
    """
    held_out = torch.zeros(len(labels), dtype=torch.bool)
    for label, name in enumerate(class_names):
        members = torch.nonzero(labels == label).flatten()
        if len(members) < 2:
            raise DataError(
                f"class {name!r} has {len(members)} image: a hold-out needs at least 2 of each class. "
                "Add images to it, or give the test images in a test/ folder of their own"
            )
        taken = min(max(round(test_share * len(members)), 1), len(members) - 1)
        order = torch.randperm(len(members), generator=generator(HOLD_OUT_SEED, "hold_out", label))
        held_out[members[order[:taken]]] = True
    return torch.nonzero(~held_out).flatten(), torch.nonzero(held_out).flatten()


def hashed_hold_out(files: Sequence[str | Path], test_share: float) -> tuple[Tensor, Tensor]:
    """Return sorted (train, test) indices; about `test_share` of the files are held out, each by a hash of its content.

    The other files play no part, so none changes its side when some are added. DataError if a side has no file.
    """
    with ThreadPoolExecutor(thread_name_prefix="hash") as threads:
        digests = threads.map(lambda file: hashlib.sha256(Path(file).read_bytes()).hexdigest(), files)
        held = torch.tensor([is_held_out(digest, HOLD_OUT_SALT, test_share) for digest in digests], dtype=torch.bool)
    train, test = torch.nonzero(~held).flatten(), torch.nonzero(held).flatten()
    if not len(train) or not len(test):
        raise DataError(
            f"dataset.hold_out: of {len(files)} images, {len(test)} are held out by their hash, and both sides need "
            "some: add images, or set dataset.hold_out=stratified"
        )
    return train, test
