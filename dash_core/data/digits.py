"""digits: the 1,797 real 8x8 scans embedded in scikit-learn; nothing to download.

Its file is read without scikit-learn, whose import takes a second.
"""

import gzip
from importlib.metadata import distribution, version
from pathlib import Path

import numpy as np
import torch

from dash_core.config import DatasetConfig
from dash_core.data.cache import Source
from dash_core.data.hold_out import stratified_hold_out
from dash_core.data.imageset import Dataset, ImageSet
from dash_core.data.normalisation import channel_statistics
from dash_core.data.progress import ProgressCallback

FILE = "sklearn/datasets/data/digits.csv.gz"  # one row per image: 64 grey levels 0..16, then the digit


def open_digits(config: DatasetConfig, data_root: Path, download: bool, progress: ProgressCallback) -> Source:
    """Return the digits as a source."""
    return Source([version("scikit-learn"), config.test_share], lambda: load_digits(config.test_share))


def load_digits(test_share: float) -> Dataset:
    """Return digits as uint8, grey levels 0..16 scaled to 0..255, with a stratified share as the test set."""
    with gzip.open(str(distribution("scikit-learn").locate_file(FILE)), "rt", encoding="ascii") as file:
        rows = torch.from_numpy(np.loadtxt(file, delimiter=",", dtype=np.int64))
    levels, labels = rows[:, :-1].view(-1, 8, 8, 1), rows[:, -1].clone()
    images = ((levels * 255 + 8) // 16).to(torch.uint8)
    names = tuple(str(digit) for digit in range(10))
    train, test = stratified_hold_out(labels, names, test_share)
    statistics = channel_statistics(images[train])
    return Dataset(
        "digits",
        train=ImageSet(images[train], labels[train], names, *statistics),
        test=ImageSet(images[test], labels[test], names, *statistics),
    )
