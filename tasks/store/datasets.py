"""The dataset and the chunk plans of a place: opened, and made where they are not there yet."""

from pathlib import Path

from dash_core.comparison import Params
from dash_core.config import DatasetConfig, RunConfig, digest_of
from dash_core.data import ChunkPlan, Dataset, ProgressCallback, load_dataset, silent
from tasks.store.place import Place


def open_dataset(config: DatasetConfig, place: Place, progress: ProgressCallback = silent) -> Dataset:
    """Return a dataset from the place's data root or its cache, downloaded where that is needed."""
    return load_dataset(config, data_root=place.data_root, cache=place.cache, progress=progress)


def plan_path(splits: Path, run: RunConfig | Params, seed: int, train_digest: str) -> Path:
    """Return the file of a chunk plan: one for each training set and its configuration, division in chunks and seed."""
    division = run.protocol.division
    digest = digest_of([run.dataset.model_dump(mode="json"), run.chunks, train_digest, *division])[:10]
    return splits / f"{run.dataset.name}-{run.chunks}-chunks-{digest}-s{seed}.json"


def open_plan(run: RunConfig, dataset: Dataset, place: Place) -> ChunkPlan:
    """Return the run's chunk plan: read and checked against the dataset, or made and saved where there is none."""
    path = plan_path(place.splits, run, run.seed, dataset.train.digest)
    if path.exists():
        plan = ChunkPlan.load(path)
        plan.check(dataset.train, run.dataset)
        return plan
    plan = ChunkPlan.split(dataset.train, run.dataset, run.chunks, run.seed, run.protocol)
    plan.save(path)
    return plan
