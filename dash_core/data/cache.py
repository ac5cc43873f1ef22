"""The cache: decoded datasets on disk, so that images are decoded once; always checked, and rebuilt when damaged."""

import json
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from dash_core.config import digest_of
from dash_core.data.imageset import Dataset, ImageSet
from dash_core.errors import DataError
from dash_core.files import replaced_when_done

logger = logging.getLogger("dash_core.data")

_TENSORS = ("train_images", "train_labels", "test_images", "test_labels")
_FORMAT = 1  # raise it whenever decoding changes, so that older cache files are not read


@dataclass(frozen=True)
class Source:
    """A dataset that is there to be decoded: what identifies it (JSON-able), and how it is decoded."""

    identity: Any
    decode: Callable[[], Dataset]


def file_identity(root: Path, files: Iterable[Path]) -> list[list[str | int]]:
    """Return what identifies the files below `root`, cheaply also for 100,000: their names, sizes and times.

    Bytes are not read. A file rewritten in place has another mtime or ctime (ns), and so another identity; the root's
    own path is part of it, so that two trees with equal names and sizes never share a cache file.
    """
    found: list[list[str | int]] = [[str(root.resolve())]]
    for file in files:
        status = file.stat()
        found.append([str(file.relative_to(root)), status.st_size, status.st_mtime_ns, status.st_ctime_ns])
    return found


def cached(cache: Path, name: str, source: Source) -> Dataset:
    """Return the source decoded: from `cache`/<key>.safetensors if that is whole, else afresh, writing the file.

    Two processes may do so at once: each writes its own temporary file, and both are the same when renamed.
    A cache that cannot be written costs time, not the run: it is logged.
    """
    key = f"{name}-{digest_of([_FORMAT, name, source.identity])[:32]}"
    file = cache / f"{key}.safetensors"
    if file.exists():
        try:
            return read_dataset(file)
        except DataError as error:
            logger.warning("%s; decoding the dataset again", error)
    dataset = source.decode()
    try:
        write_dataset(file, dataset)
    except (OSError, SafetensorError) as error:
        logger.warning("%s: the decoded %s cannot be kept (%s); it is decoded again next time", file, name, error)
    return dataset


def write_dataset(file: Path, dataset: Dataset) -> None:
    """Write a dataset to a safetensors file, atomically, with the digests that tell whether it is whole."""
    train, test = dataset.train, dataset.test
    content = {"name": dataset.name, "class_names": train.class_names, "mean": train.mean, "std": train.std}
    content |= {"train": train.digest, "test": test.digest}
    meta = json.dumps(content)
    tensors = (train.images, train.labels, test.images, test.labels)
    with replaced_when_done(file) as unfinished:
        unfinished.touch()
        usual_mode = unfinished.stat().st_mode  # safetensors makes files private; a cache may be shared
        save_file(
            {key: tensor.contiguous() for key, tensor in zip(_TENSORS, tensors, strict=True)},
            unfinished,
            metadata={"meta": meta, "digest": digest_of(meta)},
        )
        unfinished.chmod(usual_mode)


def read_dataset(file: Path) -> Dataset:
    """Read a dataset back; DataError if the file is damaged in any part. The pixels are mapped, not copied."""
    try:
        with safe_open(file, framework="pt") as content:
            meta, digest = content.metadata()["meta"], content.metadata()["digest"]
            tensors = {key: content.get_tensor(key) for key in _TENSORS}
        if digest_of(meta) != digest:
            raise DataError("its description does not match its digest")
        return _dataset(json.loads(meta), tensors)
    except (OSError, SafetensorError, DataError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{file}: the cache file is damaged ({error})") from error


def _dataset(meta: dict[str, Any], tensors: dict[str, Any]) -> Dataset:
    names, mean, std = (tuple(meta[key]) for key in ("class_names", "mean", "std"))
    train = ImageSet(tensors["train_images"], tensors["train_labels"], names, mean, std)
    test = ImageSet(tensors["test_images"], tensors["test_labels"], names, mean, std)
    if (train.digest, test.digest) != (meta["train"], meta["test"]):
        raise DataError("its images or labels do not match their digest")
    return Dataset(meta["name"], train, test)
