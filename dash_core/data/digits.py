"""digits: the 1,797 real 8x8 scans embedded in scikit-learn; nothing to download."""

from importlib.metadata import version
from pathlib import Path

import torch

from dash_core.config import DatasetConfig
from dash_core.data.cache import Source
from dash_core.data.hold_out import stratified_hold_out
from dash_core.data.imageset import Dataset, ImageSet
from dash_core.data.normalisation import channel_statistics
from dash_core.data.progress import Progress


def open_digits(config: DatasetConfig, data_root: Path, download: bool, progress: Progress) -> Source:
    """Return digits as a source: what is cached spares the import of scikit-learn, which takes a second."""
    return Source([version("scikit-learn"), config.test_share], lambda: load_digits(config.test_share))


def load_digits(test_share: float) -> Dataset:
    """Return digits as uint8 (grey levels 0..16 scaled to 0..255), a stratified share held out as the test set."""
    from sklearn import datasets

    content = datasets.load_digits()
    levels = torch.from_numpy(content.images).long()
    images = ((levels * 255 + 8) // 16).to(torch.uint8).unsqueeze(3)
    labels = torch.from_numpy(content.target).long()
    names = tuple(str(name) for name in content.target_names)
    train, test = stratified_hold_out(labels, names, test_share)
    statistics = channel_statistics(images[train])
    return Dataset(
        "digits",
        train=ImageSet(images[train], labels[train], names, *statistics),
        test=ImageSet(images[test], labels[test], names, *statistics),
    )
