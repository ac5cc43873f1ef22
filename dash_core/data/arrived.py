"""Arrived images in files: a chunk of a stream, or the images held out of one arrival, each in one safetensors file.

A file contains the images, their labels, their ids (SHA-256 of the pixels) and perceptual hashes, and a description.
It is checked by its content: the ids are the hashes of the pixels, and the chunk's digest covers ids and labels.

The dataset `stream` reads a stream's folder: `chunks/` in their order, `holdout/` as the test set, without what
`retracted.json` names.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from safetensors import SafetensorError, safe_open

from dash_core.config import DatasetConfig
from dash_core.data.cache import Source
from dash_core.data.cache_file import mapped
from dash_core.data.imageset import Dataset, ImageSet
from dash_core.data.progress import ProgressCallback
from dash_core.errors import DataError
from dash_core.files import replaced_when_done
from dash_core.stream.chain import (
    BEGINNING,
    CHUNKS,
    HELD_OUT,
    RETRACTED_FILE,
    chained,
    chained_without,
    digest_of_ids,
)
from dash_core.stream.identities import image_id

ROWS_AT_ONCE = 1024  # images that are copied or hashed at a time


@dataclass(frozen=True, eq=False)
class Arrived:
    """The images of one file, in order. images: uint8 (N, H, W, C); labels: int64 (N,); ids: uint8 (N, 32).

    prints: perceptual hashes, uint64 (N,), 0 where there are none. files: where each image came from.
    about: class names, mean, std, the number of the chunk or arrival and, of a chunk, `previous` and `chain`.
    """

    images: np.ndarray
    labels: np.ndarray
    ids: np.ndarray
    prints: np.ndarray
    files: Sequence[str]
    about: dict[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def pairs(self) -> Iterator[tuple[bytes, int]]:
        """The (id, label) of each image, in order."""
        return zip(map(bytes, self.ids), self.labels.tolist(), strict=True)


def write_arrived(path: Path, arrived: Arrived, rows: np.ndarray) -> None:
    """Write the images at the given rows, atomically, a few at a time: they may be mapped from a larger file."""
    images, count = arrived.images, len(rows)
    small = {"labels": arrived.labels[rows], "ids": arrived.ids[rows], "prints": arrived.prints[rows]}
    kinds = {"labels": "I64", "ids": "U8", "prints": "U64"}
    about = {**arrived.about, "files": [arrived.files[row] for row in rows.tolist()]}
    head: dict[str, Any] = {"__metadata__": {"about": json.dumps(about)}}
    end = 0
    for name, values in small.items():
        head[name] = {"dtype": kinds[name], "shape": values.shape, "data_offsets": [end, end := end + values.nbytes]}
    shape = (count, *images.shape[1:])
    head["images"] = {"dtype": "U8", "shape": shape, "data_offsets": [end, end + int(np.prod(shape))]}
    text = json.dumps(head).encode()
    text = text.ljust(-(-len(text) // 8) * 8)
    with replaced_when_done(path) as unfinished, unfinished.open("xb") as out:
        out.write(len(text).to_bytes(8, "little") + text)
        for values in small.values():
            out.write(np.ascontiguousarray(values).tobytes())
        _copy(images, rows, out)


def _copy(images: np.ndarray, rows: np.ndarray, out: BinaryIO) -> None:
    for start in range(0, len(rows), ROWS_AT_ONCE):
        out.write(np.ascontiguousarray(images[rows[start : start + ROWS_AT_ONCE]]).tobytes())


def read_arrived(path: Path) -> Arrived:
    """Read a file; its pixels are mapped, not copied. DataError if it is damaged in its form."""
    try:
        with safe_open(path, framework="numpy") as content:
            about = json.loads(content.metadata()["about"])
            labels, ids, prints = (content.get_tensor(name) for name in ("labels", "ids", "prints"))
        images = mapped(path, "images").numpy()
        return Arrived(images, labels, ids, prints, about.pop("files"), about)
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: damaged ({error}); bring it back, for example with `dvc pull`") from error


def check_arrived(path: Path, digest: str) -> None:
    """Raise DataError unless every image is the one of its id, and the chain (or the set of ids) has this digest."""
    arrived = read_arrived(path)
    for row, expected in enumerate(arrived.ids):
        if image_id(arrived.images[row]) != bytes(expected).hex():
            raise DataError(f"{path}: the pixels of {arrived.files[row]} have changed; bring the file back")
    found = content_digest(arrived)
    if found != digest:
        raise DataError(f"{path}: its images or labels are not those of the ledger ({found[:12]}, not {digest[:12]})")


def content_digest(arrived: Arrived) -> str:
    """Return a chunk's digest in the chain, or the digest of the ids of held-out images with their labels."""
    if "previous" in arrived.about:
        return chained(arrived.about["previous"], arrived.pairs)
    return held_digest(arrived.pairs)


def held_digest(pairs: Iterable[tuple[bytes, int]]) -> str:
    """Return a digest of held-out images and their labels, whatever their order."""
    return digest_of_ids(hashlib.sha256(image + label.to_bytes(8, "little")).digest() for image, label in pairs)


def joined(parts: Sequence[Arrived], classes: Sequence[str], digest: str | None = None) -> ImageSet:
    """Return the images of several files as one set, with the mean and std of the last. digest: if it is known."""
    about = parts[-1].about
    images = torch.from_numpy(np.concatenate([part.images for part in parts]))
    labels = torch.from_numpy(np.concatenate([part.labels for part in parts]))
    arrived = tuple(len(part) for part in parts)
    found = ImageSet(images, labels, tuple(classes), tuple(about["mean"]), tuple(about["std"]), arrived)
    return found.known_by(digest) if digest else found


def open_stream_folder(config: DatasetConfig, data_root: Path, download: bool, progress: ProgressCallback) -> Source:
    """Return a stream's past as a dataset: its chunks, and everything that it held out. The chain is checked."""
    folder = Path(config.folder or "").expanduser()
    chunks, held_out = ([read_arrived(file) for file in arrived_files(folder / name)] for name in (CHUNKS, HELD_OUT))
    if not chunks or not held_out:
        raise DataError(f"{folder}: no stream with chunks and a hold-out; `dashpipe stream create` makes one")
    chains = [BEGINNING]
    for number, chunk in enumerate(chunks, start=1):
        if chunk.about["number"] != number or chunk.about["previous"] != chains[-1]:
            raise DataError(f"{folder / CHUNKS}: chunk {number} is missing, or does not follow the one before it")
        chains.append(content_digest(chunk))
    gone = _retracted(folder)
    chunks, held_out = (
        [part for part in parts if part.about["number"] not in gone[name]]
        for name, parts in ((CHUNKS, chunks), (HELD_OUT, held_out))
    )
    last = chunks[-1].about["number"]
    digest = chained_without(chains[last], [chains[number] for number in gone[CHUNKS] if number < last])
    classes = max((part.about["classes"] for part in (*chunks, *held_out)), key=len)

    def read() -> Dataset:
        return Dataset("stream", joined(chunks, classes, digest), joined(held_out, classes))

    return Source(["stream", digest], read, cached=False)


def _retracted(folder: Path) -> dict[str, list[int]]:
    """Return the numbers of the chunks and of the arrivals' hold-outs that a person took out of a stream."""
    path = folder / RETRACTED_FILE
    if not path.exists():
        return {CHUNKS: [], HELD_OUT: []}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return {name: [int(number) for number in content[name]] for name in (CHUNKS, HELD_OUT)}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: damaged ({error}); `dashpipe stream sync` writes it anew") from None


def arrived_files(folder: Path) -> list[Path]:
    """Return the files of a folder in the order of their numbers."""
    return sorted(folder.glob("[0-9]*.safetensors"), key=lambda file: int(file.name.partition("-")[0]))
