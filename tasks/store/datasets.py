"""A dataset, opened once a process; its chunk plans, made once and saved."""

import re
import threading
from pathlib import Path

from dash_core.comparison import Params
from dash_core.config import DatasetConfig, RunConfig, digest_of
from dash_core.data import ChunkPlan, Dataset, ProgressCallback, load_dataset, silent
from dash_core.errors import DataError
from tasks.store.place import Place


class OpenedDataset:
    """The dataset that this process opened last, kept open: a command, or a worker, asks for the same one many times.

    Files that change on disk meanwhile are not read again: a process uses the same images throughout.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._key: tuple[DatasetConfig, Path, Path] | None = None
        self._dataset: Dataset | None = None

    def get(self, config: DatasetConfig, place: Place, progress: ProgressCallback) -> Dataset:
        """Return the dataset of the configuration in the place's data root, opened unless it is open."""
        key = (config, place.data_root, place.cache)
        with self._lock:
            if self._dataset is None or self._key != key:
                self._dataset = None  # its memory is free before the next dataset takes some
                self._dataset = load_dataset(config, data_root=key[1], cache=key[2], progress=progress)
                self._key = key
            return self._dataset


_opened = OpenedDataset()


def open_dataset(config: DatasetConfig, place: Place, progress: ProgressCallback = silent) -> Dataset:
    """Return a dataset from the place's data root or its cache, downloaded if it is missing; opened once a process."""
    return _opened.get(config, place, progress)


def plan_path(splits: Path, run: RunConfig | Params, seed: int, train_digest: str) -> Path:
    """Return the file of a chunk plan: one per training set and its configuration, division into chunks, and seed."""
    division = run.protocol.division
    digest = digest_of([run.dataset.identity, run.chunks, train_digest, *division])[:10]
    name = re.sub(r"[^A-Za-z0-9_.\-]+", "-", run.dataset.name)
    return splits / f"{name}-{run.chunks}-chunks-{digest}-s{seed}.json"


def open_plan(run: RunConfig, dataset: Dataset, place: Place) -> ChunkPlan:
    """Return the run's chunk plan: the saved one, checked against the dataset, or a new one, which is saved."""
    path = plan_path(place.splits, run, run.seed, dataset.train.digest)
    if path.exists():
        plan = ChunkPlan.load(path)
        plan.check(dataset.train, run.dataset)
        return plan
    if place.splits_made and run.dataset.source:
        raise DataError(
            f"dataset {run.dataset.name}: its images in this process are not those that the comparison began with: the "
            "function must return the same ones each time it is called; seed its random draws"
        )
    plan = ChunkPlan.split(dataset.train, run.dataset, run.chunks, run.seed, run.protocol)
    plan.save(path)
    return plan
