"""Datasets of Hugging Face on disk, in a folder that `save_to_disk` wrote; the package `datasets` reads them."""

from pathlib import Path
from typing import Any

from dash_core.config import DatasetConfig
from dash_core.data.cache import Source, file_identity
from dash_core.data.imageset import Dataset
from dash_core.data.own import dataset_of
from dash_core.data.progress import ProgressCallback
from dash_core.errors import ConfigError, DataError

MARKS = ("dataset_dict.json", "state.json")  # files of a folder with several splits, and of one split


def open_hugging_face(config: DatasetConfig, data_root: Path, download: bool, progress: ProgressCallback) -> Source:
    """Return the dataset in `config.folder`; ConfigError if the package `datasets` is missing."""
    folder = Path(config.folder or "").expanduser()
    if not any((folder / name).is_file() for name in MARKS):
        raise DataError(
            f"{folder}: no dataset of Hugging Face, which has the file {' or '.join(MARKS)}; "
            "dataset.folder must name a folder that save_to_disk wrote"
        )
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    choices = [config.image_size, config.resize, config.background, config.test_share]
    return Source([*choices, file_identity(folder, files)], lambda: _read(folder, config, progress))


def _read(folder: Path, config: DatasetConfig, progress: ProgressCallback) -> Dataset:
    try:
        from datasets import load_from_disk
    except ImportError as error:
        raise ConfigError(
            f"dataset.name: hugging_face needs the package `datasets` ({error}); install it: uv pip install datasets"
        ) from None
    found = load_from_disk(str(folder))
    splits = dict(found) if hasattr(found, "keys") else {"train": found}
    return dataset_of({name: _Split(split) for name, split in splits.items()}, config, progress)


class _Split:
    """A split of Hugging Face as a map-style dataset of pairs."""

    def __init__(self, split: Any) -> None:
        self._split = split
        kinds = {name: type(feature).__name__ for name, feature in split.features.items()}
        self._image = _only(kinds, "Image")
        self._label = _only(kinds, "ClassLabel")
        self.classes = list(split.features[self._label].names)

    def __len__(self) -> int:
        return len(self._split)

    def __getitem__(self, position: int) -> tuple[Any, int]:
        row = self._split[position]
        return row[self._image], row[self._label]


def _only(kinds: dict[str, str], kind: str) -> str:
    """Return the name of the one column of a kind; DataError if there is none, or more than one."""
    names = [name for name, found in kinds.items() if found == kind]
    if len(names) != 1:
        columns = ", ".join(f"{name} ({found})" for name, found in kinds.items())
        raise DataError(
            f"dataset.folder: the dataset must have one column of the feature {kind}, and has {len(names)}: {columns}; "
            "write a function that returns its images instead (dataset.name=mypackage.data:load)"
        )
    return names[0]
