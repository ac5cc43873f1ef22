"""Data tasks: a dataset decoded and cached; its chunk plans made once and kept."""

from pathlib import Path

from prefect import task
from prefect.cache_policies import NO_CACHE

from dash_core.comparison import Params
from dash_core.config import DatasetConfig, RunConfig, digest_of
from dash_core.data import ChunkPlan, Dataset, ProgressCallback, load_dataset, silent
from tasks.store.place import Place


def open_dataset(config: DatasetConfig, place: Place, progress: ProgressCallback = silent) -> Dataset:
    """Return a dataset from the place's data root or its cache, downloading it where that is needed."""
    return load_dataset(config, data_root=place.data_root, cache=place.cache, progress=progress)


def plan_path(splits: Path, run: RunConfig | Params, seed: int, train_digest: str) -> Path:
    """Return the file of a chunk plan: one for each training set and its configuration, division in chunks and seed."""
    division = run.protocol.division
    digest = digest_of([run.dataset.identity, run.chunks, train_digest, *division])[:10]
    return splits / f"{run.dataset.name}-{run.chunks}-chunks-{digest}-s{seed}.json"


def open_plan(run: RunConfig, dataset: Dataset, place: Place) -> ChunkPlan:
    """Return the run's chunk plan, made and saved if it is not there, checked against the dataset if it is."""
    path = plan_path(place.splits, run, run.seed, dataset.train.digest)
    if path.exists():
        plan = ChunkPlan.load(path)
        plan.check(dataset.train, run.dataset)
        return plan
    plan = ChunkPlan.split(dataset.train, run.dataset, run.chunks, run.seed, run.protocol)
    plan.save(path)
    return plan


@task(task_run_name="prepare {config.name}", cache_policy=NO_CACHE, persist_result=False, retries=0)
def prepare(config: DatasetConfig, place: Place) -> Dataset:
    """Decode a dataset and keep it in the cache."""
    return open_dataset(config, place)


@task(task_run_name="split seed {seed}", cache_policy=NO_CACHE, persist_result=False, retries=0)
def split(params: Params, seed: int, dataset: Dataset, place: Place) -> ChunkPlan:
    """Make and save the chunk plan of one seed."""
    return open_plan(params.run(params.compare.methods[0], seed), dataset, place)
