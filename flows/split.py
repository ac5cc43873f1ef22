"""The flow that splits a dataset: one chunk plan per seed, the same for every method."""

from prefect import flow

from dash_core.comparison import Params
from dash_core.data import ChunkPlan, Dataset
from tasks.data import prepare, split
from tasks.store.place import Place


@flow(
    name="split-dataset",
    flow_run_name="split {params.dataset.name} in {params.chunks} chunks",
    persist_result=False,
    retries=0,
)
def split_dataset(params: Params, place: Place) -> tuple[Dataset, dict[int, ChunkPlan]]:
    """Prepare the dataset and write the chunk plan of every seed; return the dataset and the plans by seed."""
    dataset = prepare(params.dataset, place)
    return dataset, {seed: split(params, seed, dataset, place) for seed in params.seeds}
