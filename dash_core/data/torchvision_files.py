"""torchvision's datasets: their files, addresses and readers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dash_core.errors import DataError

Split = tuple[Tensor, Tensor]  # images uint8 (N, H, W, C), labels int64 (N,)
Content = tuple[Split, Split, Sequence[str]]  # train, test, class names

_IDX = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")
_CIFAR10 = (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch", "batches.meta")
FILES: dict[str, tuple[str, ...]] = {  # below the data root; listed here because torchvision takes seconds to import
    "mnist": tuple(f"MNIST/raw/{name}-ubyte" for name in _IDX),
    "fashion_mnist": tuple(f"FashionMNIST/raw/{name}-ubyte" for name in _IDX),
    "cifar10": tuple(f"cifar-10-batches-py/{name}" for name in _CIFAR10),
    "cifar100": tuple(f"cifar-100-python/{name}" for name in ("train", "test", "meta")),
    "svhn": ("train_32x32.mat", "test_32x32.mat"),
}


@dataclass(frozen=True)
class Download:
    """A file to download, and the files in it with their MD5 (None: torchvision has none)."""

    urls: tuple[str, ...]
    name: str
    md5: str
    files: dict[str, str | None]


@dataclass(frozen=True)
class Family:
    """Downloads and reader of the torchvision class `kind`."""

    kind: Any
    downloads: Callable[[Any], list[Download]]
    read: Callable[[Any, Path], Content]


def family(name: str) -> Family:
    """Return downloads and reader of a torchvision dataset of the catalogue; torchvision is imported only here."""
    from torchvision import datasets

    families = {
        "mnist": (datasets.MNIST, _mnist_downloads, _read_mnist),
        "fashion_mnist": (datasets.FashionMNIST, _mnist_downloads, _read_mnist),
        "cifar10": (datasets.CIFAR10, _cifar_downloads, _read_cifar),
        "cifar100": (datasets.CIFAR100, _cifar_downloads, _read_cifar),
        "svhn": (datasets.SVHN, _svhn_downloads, _read_svhn),
    }
    return Family(*families[name])


def _mnist_downloads(kind: Any) -> list[Download]:
    folder = f"{kind.__name__}/raw"
    return [
        Download(tuple(f"{mirror}{name}" for mirror in kind.mirrors), name, md5, {f"{folder}/{Path(name).stem}": None})
        for name, md5 in kind.resources
    ]


def _read_mnist(kind: Any, root: Path) -> Content:
    """Read the idx files of the splits one by one, so that an error can name the file."""
    from torchvision.datasets.mnist import read_image_file, read_label_file

    def read(split: str) -> Split:
        folder = root / kind.__name__ / "raw"
        images = _read_idx(read_image_file, folder / f"{split}-images-idx3-ubyte")
        return images.unsqueeze(3), _read_idx(read_label_file, folder / f"{split}-labels-idx1-ubyte")

    return read("train"), read("t10k"), kind.classes


def _read_idx(read: Callable[[str], Tensor], file: Path) -> Tensor:
    try:
        return read(str(file))
    except (AssertionError, ValueError, RuntimeError, TypeError, KeyError) as error:
        raise DataError(f"{file}: damaged ({error or 'not an idx file'}); delete it and load it again") from error


def _cifar_downloads(kind: Any) -> list[Download]:
    listed = [*kind.train_list, *kind.test_list, (kind.meta["filename"], kind.meta["md5"])]
    files = {f"{kind.base_folder}/{name}": md5 for name, md5 in listed}
    return [Download((kind.url,), kind.filename, kind.tgz_md5, files)]


def _read_cifar(kind: Any, root: Path) -> Content:
    train, test = kind(root, train=True), kind(root, train=False)
    splits = [(torch.from_numpy(np.ascontiguousarray(part.data)), torch.tensor(part.targets)) for part in (train, test)]
    return *splits, train.classes


def _svhn_downloads(kind: Any) -> list[Download]:
    return [Download((url,), name, md5, {name: md5}) for url, name, md5 in map(kind.split_list.get, ("train", "test"))]


def _read_svhn(kind: Any, root: Path) -> Content:
    def read(split: str) -> Split:
        content = kind(root, split=split)
        images = np.ascontiguousarray(content.data.transpose(0, 2, 3, 1))
        return torch.from_numpy(images), torch.from_numpy(content.labels)

    return read("train"), read("test"), [str(digit) for digit in range(10)]
