"""Load a dataset by its configuration, through the cache."""

from collections.abc import Callable
from pathlib import Path

from dash_core.config import DatasetConfig
from dash_core.data.arrived import open_stream_folder
from dash_core.data.cache import Source, cached
from dash_core.data.catalog import dataset_spec
from dash_core.data.digits import open_digits
from dash_core.data.hugging_face import open_hugging_face
from dash_core.data.image_folder import open_image_folder
from dash_core.data.imagenet import open_imagenet
from dash_core.data.imageset import Dataset
from dash_core.data.own import open_own_dataset
from dash_core.data.progress import ProgressCallback, silent
from dash_core.data.tiny_imagenet import open_tiny_imagenet
from dash_core.data.torchvision_sets import open_torchvision_set
from dash_core.errors import DataError
from dash_core.extras import require

OPENERS: dict[str, Callable[[DatasetConfig, Path, bool, ProgressCallback], Source]] = {
    "digits": open_digits,
    "mnist": open_torchvision_set,
    "fashion_mnist": open_torchvision_set,
    "cifar10": open_torchvision_set,
    "cifar100": open_torchvision_set,
    "svhn": open_torchvision_set,
    "tiny_imagenet": open_tiny_imagenet,
    "imagenet": open_imagenet,
    "image_folder": open_image_folder,
    "hugging_face": open_hugging_face,
    "stream": open_stream_folder,
}


def load_dataset(
    config: DatasetConfig, *, data_root: Path, cache: Path, download: bool = True, progress: ProgressCallback = silent
) -> Dataset:
    """Return the dataset with its true labels and all its training images.

    data_root: folder of the datasets; a missing one is downloaded into it if `download`. Otherwise it is only read.
    cache: folder of the decoded datasets; see `dash_core.data.cache`.
    """
    spec = dataset_spec(config.name)
    require("data", f"the dataset {spec.name}")
    try:
        source = OPENERS.get(spec.name, open_own_dataset)(config, Path(data_root), download, progress)
        return cached(Path(cache), spec.name, source, progress) if source.cached else source.read()
    except OSError as error:
        raise DataError(f"{spec.name}: its files cannot be read ({error})") from error
