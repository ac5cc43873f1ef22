"""Datasets as tensors, and the order in which they arrive."""

from dash_core.data.arrival import check_plan, tested_images
from dash_core.data.catalog import DATASETS, DatasetSpec, dataset_spec
from dash_core.data.chunks import ChunkPlan
from dash_core.data.imageset import Dataset, ImageSet
from dash_core.data.progress import ProgressCallback, silent
from dash_core.data.sources import load_dataset
from dash_core.data.training_set import evaluation_indices, training_indices, training_labels

__all__ = [
    "DATASETS",
    "ChunkPlan",
    "Dataset",
    "DatasetSpec",
    "ImageSet",
    "ProgressCallback",
    "check_plan",
    "dataset_spec",
    "evaluation_indices",
    "load_dataset",
    "silent",
    "tested_images",
    "training_indices",
    "training_labels",
]
