"""The cache: decoded datasets on disk, so that images are decoded once. Files are checked, and rebuilt when damaged."""

import contextlib
import hashlib
import logging
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError

from dash_core.config import digest_of
from dash_core.data.cache_file import decode_into, read_dataset, write_dataset
from dash_core.data.decoding import ImageFiles
from dash_core.data.imageset import Dataset
from dash_core.data.progress import ProgressCallback
from dash_core.errors import DataError
from dash_core.files import remove_unfinished
from dash_core.memory import free_memory

logger = logging.getLogger("dash_core.data")

_FORMAT = 2  # increase it whenever decoding changes, so that older cache files are not read


@dataclass(frozen=True)
class Source:
    """A dataset whose files are present.

    identity: JSON-able; equal identities mean equal images. read: returns the dataset, or its image files.
    cached: whether it is worth a copy in the cache; not if it is decoded and checked already.
    """

    identity: Any
    read: Callable[[], Dataset | ImageFiles]
    cached: bool = True


def file_identity(root: Path, files: Iterable[str | Path]) -> str:
    """Return the identity of the files below `root`: a hash of names, sizes and times, cheap even for a million files.

    The content is not read. A file that is rewritten in place has another mtime or ctime (ns), and so another
    identity. The root's path is part of it, so that two trees with equal names and sizes never share a cache file.
    """
    digest = hashlib.sha256(os.fsencode(root.resolve()))
    for file in files:
        status = os.stat(file)
        digest.update(b"\0" + os.fsencode(file).removeprefix(os.fsencode(root)))
        digest.update(b"\0%d %d %d" % (status.st_size, status.st_mtime_ns, status.st_ctime_ns))
    return digest.hexdigest()


def cached(cache: Path, name: str, source: Source, progress: ProgressCallback) -> Dataset:
    """Return the decoded dataset: from `cache`/<key>.safetensors if that file is whole; else decode it into that file.

    One process at a time decodes into a cache; another waits, and then reads the new file. If the cache cannot be
    written, the run continues with the dataset in memory and a warning; DataError if it does not fit there either.
    """
    key = f"{name}-{digest_of([_FORMAT, name, source.identity])[:32]}"
    file = cache / f"{key}.safetensors"
    if dataset := _kept(file):
        return dataset
    found = source.read()
    try:
        with _alone_in(cache) as waited:
            return (waited and _kept(file)) or _made(file, found, progress)
    except (OSError, SafetensorError) as error:
        if isinstance(found, ImageFiles):
            _check_memory(found, error)
        logger.warning("%s: the decoded %s cannot be kept (%s); it is decoded again next time", file, name, error)
    return found.in_memory(progress) if isinstance(found, ImageFiles) else found.examined()


def _kept(file: Path) -> Dataset | None:
    """Return the dataset of a cache file; None if the file is missing or damaged."""
    if not file.exists():
        return None
    try:
        return read_dataset(file)
    except DataError as error:
        logger.warning("%s; decoding the dataset again", error)
        return None


def _made(file: Path, found: Dataset | ImageFiles, progress: ProgressCallback) -> Dataset:
    """Write the dataset to its cache file and return it; image files are decoded into the file and mapped."""
    if isinstance(found, Dataset):
        examined = found.examined()
        write_dataset(file, examined)
        return examined
    decode_into(file, found, progress)
    return read_dataset(file)


@contextlib.contextmanager
def _alone_in(cache: Path) -> Iterator[bool]:
    """Keep other processes from writing into the cache within the block; yield whether this one had to wait.

    Half-written files of killed processes are removed. On a file system without locks, neither happens.
    """
    cache.mkdir(parents=True, exist_ok=True)
    lock = FileLock(cache.with_name(f"{cache.name}.lock"), fallback_to_soft=False)
    waited = _locked(lock, cache)
    try:
        if lock.is_locked:
            remove_unfinished(cache)
        yield waited
    finally:
        lock.release()


def _locked(lock: FileLock, cache: Path) -> bool:
    """Take the lock, if the file system has locks; return whether another process held it first."""
    try:
        try:
            lock.acquire(timeout=0)
            return False
        except Timeout:
            logger.warning("%s: waiting for another process, which decodes a dataset into it", cache)
            lock.acquire()
            return True
    except OSError:
        return False


def _check_memory(found: ImageFiles, error: Exception) -> None:
    """Raise DataError if images that cannot be cached on disk do not fit into memory either."""
    free = free_memory(torch.device("cpu"))
    if free is not None and found.pixel_bytes > free // 2:
        raise DataError(
            f"{error}. Nor can it be held in memory: its images take {found.pixel_bytes / 1e9:.1f} GB, "
            f"and {free / 1e9:.1f} GB are free"
        ) from error
