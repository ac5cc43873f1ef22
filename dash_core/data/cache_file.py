"""The cache's files: a dataset as safetensors, written while it is decoded, and read through a memory map.

Writing and reading need the memory of a few blocks, even for 193 GB. The description, the training images and the test
images each have a digest. A file of up to LARGE bytes is checked against them whenever it is opened. A larger file is
checked when it is written, and again when its size or times differ from those in its record, `<file>.checked`. Remove
the record to force a check.
"""

import json
import shutil
import warnings
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from dash_core.config import digest_of
from dash_core.data.decoding import Block, ImageFiles
from dash_core.data.imageset import ContentDigest, Dataset, ImageSet
from dash_core.data.noticed import Noticed
from dash_core.data.progress import ProgressCallback
from dash_core.errors import DataError
from dash_core.files import DiskError, replaced_when_done, write_atomically

LARGE = 4 * 2**30  # bytes; a larger file is not checked each time it is opened
LONGEST = -2.2250738585072014e-308  # no float is written with more characters

_LABELS, _IMAGES = ("train_labels", "test_labels"), ("train_images", "test_images")


def write_dataset(file: Path, dataset: Dataset) -> None:
    """Write a dataset to a safetensors file, atomically, with digests of its content."""
    train, test = dataset.train, dataset.test
    tensors = (train.images, test.images, train.labels, test.labels)
    with replaced_when_done(file) as unfinished:
        unfinished.touch()
        usual_mode = unfinished.stat().st_mode  # safetensors makes files private; a cache may be shared
        save_file(
            {key: tensor.contiguous() for key, tensor in zip((*_IMAGES, *_LABELS), tensors, strict=True)},
            unfinished,
            metadata=_described(
                dataset.name,
                train.class_names,
                (train.mean, train.std),
                (train.digest, test.digest),
                dataset.noticed or Noticed(),
            ),
        )
        unfinished.chmod(usual_mode)


def decode_into(file: Path, found: ImageFiles, progress: ProgressCallback) -> None:
    """Decode image files straight into a safetensors file, atomically; DiskError if the disk has no space for it.

    The head of the file contains mean, std and digests, which are known only at the end: room is left for it.
    """
    parts = found.labels[: found.train], found.labels[found.train :]
    longest, most = (LONGEST,) * found.image_shape[2], Noticed(*[len(found.files)] * len(fields(Noticed)))
    room = len(_head(found, _described(found.name, found.class_names, (longest, longest), ("0" * 64,) * 2, most)))
    _check_space(file, found, room + 8 * len(found.labels) + found.pixel_bytes)
    digests = [ContentDigest(shape, found.class_names) for shape in found.shapes]
    with replaced_when_done(file) as unfinished, unfinished.open("xb") as out:
        out.write(bytes(room))
        for labels in parts:
            out.write(labels.numpy())

        def take(block: Block) -> None:
            digests[0 if block.trains else 1].update(block.pixels)
            out.write(block.pixels)

        statistics, noticed = found.decoded(progress, take)
        ends = tuple(digest.end(labels) for digest, labels in zip(digests, parts, strict=True))
        out.seek(0)
        out.write(_head(found, _described(found.name, found.class_names, statistics, ends, noticed), room))
    record_checked(file)


def read_dataset(file: Path) -> Dataset:
    """Read a dataset back; DataError if the file is damaged in any part. The pixels are mapped, not copied."""
    try:
        checked = _is_checked(file)
        with safe_open(file, framework="numpy") as content:  # also checks the length of the file
            meta, digest = content.metadata()["meta"], content.metadata()["digest"]
            labels = [torch.from_numpy(content.get_tensor(key)) for key in _LABELS]
        if digest_of(meta) != digest:
            raise DataError("its description does not match its digest")
        dataset = _dataset(json.loads(meta), [mapped(file, key) for key in _IMAGES], labels, checked)
    except (OSError, SafetensorError, DataError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{file}: the cache file is damaged ({error})") from error
    if not checked:
        record_checked(file)
    return dataset


def record_checked(file: Path) -> None:
    """Record size and times of a large file that is whole; without that record the file is checked again."""
    if file.stat().st_size > LARGE:
        try:
            write_atomically(_record(file), json.dumps(_state(file)).encode())
        except OSError:
            return


def _is_checked(file: Path) -> bool:
    """Return whether the file is large, and unchanged since it was last checked."""
    try:
        return file.stat().st_size > LARGE and json.loads(_record(file).read_bytes()) == _state(file)
    except (OSError, ValueError):
        return False


def _record(file: Path) -> Path:
    return file.with_name(f"{file.name}.checked")


def _state(file: Path) -> list[int]:
    status = file.stat()
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns]


def _described(
    name: str, class_names: tuple[str, ...], statistics: tuple[Any, Any], digests: tuple[str, str], noticed: Noticed
) -> dict[str, str]:
    """Return the file's metadata: everything of the dataset but its tensors, and a digest of that."""
    (mean, std), (train, test) = statistics, digests
    content = {"name": name, "class_names": class_names, "mean": mean, "std": std, "train": train, "test": test}
    content["noticed"] = asdict(noticed)
    meta = json.dumps(content)
    return {"meta": meta, "digest": digest_of(meta)}


def _head(found: ImageFiles, metadata: Mapping[str, str], room: int = 0) -> bytes:
    """Return the bytes before the tensors, filled up with spaces to `room` bytes, or to a multiple of 8."""
    shapes = [(shape[0],) for shape in found.shapes], found.shapes
    kinds = [(_LABELS, shapes[0], "I64", 8), (_IMAGES, shapes[1], "U8", 1)]
    head: dict[str, Any] = {"__metadata__": metadata}
    end = 0
    for keys, sizes, kind, width in kinds:
        for key, shape in zip(keys, sizes, strict=True):
            start, end = end, end + width * int(np.prod(shape))
            head[key] = {"dtype": kind, "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(head).encode()
    length = max(room - 8, -(-len(text) // 8) * 8)
    return length.to_bytes(8, "little") + text.ljust(length)


def _check_space(file: Path, found: ImageFiles, needed: int) -> None:
    """Raise DiskError with the needed and the free space, before anything is decoded."""
    file.parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(file.parent).free
    if needed > free:
        raise DiskError(
            f"{file.parent}: {found.name} decoded takes {needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free there: "
            "free some space, or put the store on another disk"
        )


def mapped(file: Path, key: str) -> Tensor:
    """Return a read-only tensor mapped from the file: only pages that are read take memory, none is reserved."""
    with file.open("rb") as content:
        length = int.from_bytes(content.read(8), "little")
        known = json.loads(content.read(length))[key]
    if known["dtype"] != "U8":
        raise DataError(f"its {key} are {known['dtype']}, not U8")
    start, shape = 8 + length + known["data_offsets"][0], tuple(known["shape"])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")  # nor is it ever written
        return torch.from_numpy(np.memmap(file, dtype=np.uint8, mode="r", offset=start, shape=shape))


def _dataset(meta: dict[str, Any], images: list[Tensor], labels: list[Tensor], checked: bool) -> Dataset:
    names, mean, std = (tuple(meta[key]) for key in ("class_names", "mean", "std"))
    sets = (ImageSet(*tensors, names, mean, std) for tensors in zip(images, labels, strict=True))
    digests, noticed = (meta["train"], meta["test"]), Noticed(**meta["noticed"])
    if checked:
        known = (part.known_by(digest) for part, digest in zip(sets, digests, strict=True))
        return Dataset(meta["name"], *known, noticed)
    train, test = sets
    if (train.digest, test.digest) != digests:
        raise DataError("its images or labels do not match their digest")
    return Dataset(meta["name"], train, test, noticed)
