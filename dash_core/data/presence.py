"""Look for a dataset's files without decoding or downloading them."""

from pathlib import Path

from dash_core.config import DatasetConfig
from dash_core.data.catalog import dataset_spec
from dash_core.data.progress import silent
from dash_core.data.sources import OPENERS
from dash_core.errors import DataError


def is_here(config: DatasetConfig, data_root: Path) -> bool:
    """Return whether the dataset can be loaded from `data_root` without a network; no file is read."""
    spec = dataset_spec(config.name)
    if spec.origin == "embedded":
        return True
    try:
        OPENERS[spec.name](config, Path(data_root), False, silent)
    except (DataError, OSError):
        return False
    return True
