"""Data tasks: a dataset, opened once a process; its chunk plans, made once and saved."""

from prefect import task
from prefect.cache_policies import NO_CACHE

from dash_core.comparison import Params
from dash_core.config import DatasetConfig
from dash_core.data import ChunkPlan, Dataset
from tasks.store.datasets import open_dataset, open_plan
from tasks.store.place import Place


@task(task_run_name="prepare {config.name}", cache_policy=NO_CACHE, persist_result=False, retries=0)
def prepare(config: DatasetConfig, place: Place) -> Dataset:
    """Decode a dataset and keep it in the cache."""
    return open_dataset(config, place)


@task(task_run_name="split seed {seed}", cache_policy=NO_CACHE, persist_result=False, retries=0)
def split(params: Params, seed: int, dataset: Dataset, place: Place) -> ChunkPlan:
    """Make and save the chunk plan of one seed."""
    return open_plan(params.run(params.compare.methods[0], seed), dataset, place)
