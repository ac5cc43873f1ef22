"""The catalogue: every dataset by name, with its content and its source."""

from dataclasses import dataclass
from typing import Literal

from dash_core.config import nearest
from dash_core.errors import ConfigError
from dash_core.parts import DATASETS as OWN_DATASETS
from dash_core.parts import check_no_clash, part_path


@dataclass(frozen=True)
class DatasetSpec:
    """A dataset's facts before it is read; None where they depend on the user's folder."""

    name: str
    summary: str
    source: str
    origin: Literal["embedded", "torchvision", "download", "registration", "folder", "own"]
    classes: int | None = None
    image_shape: tuple[int, int, int] | None = None  # (channels, height, width); the default, where image_size sets it
    train_size: int | None = None  # digits: at the default dataset.test_share
    test_size: int | None = None
    mirrored: bool = True  # an image mirrored left to right still shows its class


def dataset_spec(name: str) -> DatasetSpec:
    """Return a dataset's entry, or a new one for an own dataset; ConfigError with the nearest name if there is none."""
    if name in DATASETS:
        check_no_clash(OWN_DATASETS, name)
    elif path := part_path(OWN_DATASETS, name):
        return DatasetSpec(name, "your own", path, "own")
    else:
        known = ", ".join([*DATASETS, "an import path such as mypackage.data:load"])
        raise ConfigError(f"dataset.name: unknown dataset {name!r}{nearest(name, list(DATASETS))}; known: {known}")
    return DATASETS[name]


_KRIZHEVSKY = "Krizhevsky, Learning multiple layers of features from tiny images, 2009; cs.toronto.edu/~kriz/cifar.html"

_SPECS = (
    DatasetSpec(
        name="digits",
        summary="8x8 grey scans of handwritten digits, embedded in scikit-learn: real data with no download",
        source="Alpaydin and Kaynak, Optical recognition of handwritten digits, UCI, 1998; doi.org/10.24432/C50P49",
        origin="embedded",
        classes=10,
        image_shape=(1, 8, 8),
        train_size=1438,
        test_size=359,
        mirrored=False,
    ),
    DatasetSpec(
        name="mnist",
        summary="28x28 grey images of handwritten digits",
        source="LeCun et al., Gradient-based learning applied to document recognition, Proc. IEEE, 1998",
        origin="torchvision",
        classes=10,
        image_shape=(1, 28, 28),
        train_size=60_000,
        test_size=10_000,
        mirrored=False,
    ),
    DatasetSpec(
        name="fashion_mnist",
        summary="28x28 grey images of clothing",
        source="Xiao et al., Fashion-MNIST, 2017; arxiv.org/abs/1708.07747",
        origin="torchvision",
        classes=10,
        image_shape=(1, 28, 28),
        train_size=60_000,
        test_size=10_000,
    ),
    DatasetSpec(
        name="cifar10",
        summary="32x32 colour photographs of animals and vehicles",
        source=_KRIZHEVSKY,
        origin="torchvision",
        classes=10,
        image_shape=(3, 32, 32),
        train_size=50_000,
        test_size=10_000,
    ),
    DatasetSpec(
        name="cifar100",
        summary="32x32 colour photographs in 100 fine classes",
        source=_KRIZHEVSKY,
        origin="torchvision",
        classes=100,
        image_shape=(3, 32, 32),
        train_size=50_000,
        test_size=10_000,
    ),
    DatasetSpec(
        name="svhn",
        summary="32x32 colour crops of house numbers; the paper cuts its training set to 50,000 (dataset.train_size)",
        source="Netzer et al., Reading digits in natural images, 2011; ufldl.stanford.edu/housenumbers",
        origin="torchvision",
        classes=10,
        image_shape=(3, 32, 32),
        train_size=73_257,
        test_size=26_032,
        mirrored=False,
    ),
    DatasetSpec(
        name="tiny_imagenet",
        summary="64x64 colour photographs in 200 classes of ImageNet; its validation set is the test set",
        source="Le and Yang, Tiny ImageNet visual recognition challenge, 2015; cs231n.stanford.edu",
        origin="download",
        classes=200,
        image_shape=(3, 64, 64),
        train_size=100_000,
        test_size=10_000,
    ),
    DatasetSpec(
        name="imagenet",
        summary="colour photographs in 1,000 classes, cut to 224x224 (dataset.image_size); validation set as test set",
        source="Russakovsky et al., ImageNet large scale visual recognition challenge, IJCV, 2015; image-net.org",
        origin="registration",
        classes=1000,
        image_shape=(3, 224, 224),
        train_size=1_281_167,
        test_size=50_000,
    ),
    DatasetSpec(
        name="image_folder",
        summary="your own images, a folder a class: dataset.folder/train/<class>/*, or dataset.folder/<class>/*",
        source="dataset.folder",
        origin="folder",
    ),
    DatasetSpec(
        name="hugging_face",
        summary="a Hugging Face dataset in dataset.folder, as its save_to_disk writes it; needs the package `datasets`",
        source="dataset.folder",
        origin="folder",
    ),
    DatasetSpec(
        name="stream",
        summary="the past of a stream (dataset.folder=streams/<name>): its chunks as they arrived, and its hold-out",
        source="dashpipe stream",
        origin="folder",
    ),
)

DATASETS: dict[str, DatasetSpec] = {spec.name: spec for spec in _SPECS}
