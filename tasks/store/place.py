"""Where a run happens: folders, device, processes. Nothing here decides a result."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
from pydantic import BaseModel, ConfigDict, Field

from dash_core.comparison import Params
from dash_core.config import RunConfig
from dash_core.device import choose_device, usable_cores, visible_gpus
from dash_core.memory import free_memory
from tasks import SERVICES

RUNS_PER_GPU = 4  # at once: our choice, not measured
RUN_BYTES = 6 * 2**30  # of GPU memory that a run is counted with: CUDA's context, weights, activations of a batch


class Place(BaseModel):
    """Folders are absolute; it is plain data, so that it can be handed to another process."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    store: Path  # runs, comparisons, splits, mlflow.db
    data_root: Path  # datasets as torchvision lays them out
    device: str = "auto"
    threads: Annotated[int, Field(ge=1)] = 1  # of torch, in each process
    workers: Annotated[int, Field(ge=1)] = 1  # runs at once
    given_code: str | None = None  # that complete runs must have been trained by; None: any
    checkpoint_seconds: Annotated[float, Field(gt=0)] = 60.0  # between two saves of a run within a chunk
    resident_gib: Annotated[float, Field(gt=0)] | None = None  # of images on the device; None: a part of what is free
    given_splits: Path | None = None  # chunk plans of a pipeline; None: the store's own

    def run_folder(self, run: RunConfig) -> Path:
        """Folder of one run: config, records, weights, result."""
        return self.store / "runs" / run.id

    def comparison_folder(self, params: Params) -> Path:
        """Folder of one comparison: its tables and configuration."""
        return self.store / "comparisons" / params.name

    @property
    def splits(self) -> Path:
        """Folder of the chunk plans."""
        return self.given_splits or self.store / "splits"

    @property
    def cache(self) -> Path:
        """Folder of decoded datasets."""
        return self.services / "imagesets"

    @property
    def services(self) -> Path:
        """Folder of the private Prefect server's database and log."""
        return self.store / SERVICES


@dataclass(frozen=True)
class Crew:
    """How many processes share the work, and with how many torch threads each."""

    workers: int
    threads: int

    @classmethod
    def of(cls, params: Params, runs: int) -> "Crew":
        """Return the crew for a number of runs: one process a core, one thread each, unless params say otherwise.

        On GPUs it is a few processes each, as many as there is memory for: a small network leaves most of a GPU idle,
        and processes need neither equal lengths, as seeds trained as one do, nor share an interpreter, as streams do.
        """
        given = params.compare
        threads = 1 if given.threads == "auto" else given.threads
        cores = usable_cores()
        if given.workers != "auto":
            workers = given.workers
        elif choose_device(given.device).type == "cuda":
            workers = min(cores, _runs_on_gpus(given.device))
        else:
            workers = max(1, cores // threads)
        return cls(min(workers, max(runs, 1)), threads)


def _runs_on_gpus(device: str) -> int:
    """Return how many runs share the GPUs: RUNS_PER_GPU on each, fewer where its free memory is short; at least one."""
    several = [torch.device("cuda", number) for number in range(len(visible_gpus(device)))]
    return max(1, sum(min(RUNS_PER_GPU, free_memory(gpu) // RUN_BYTES) for gpu in several or [choose_device(device)]))


def place_of(params: Params, store: Path, data_root: Path | None) -> Place:
    """Return where a comparison's runs happen, all folders absolute."""
    store = store.resolve()
    root = data_root.resolve() if data_root else store / "data"
    threads = Crew.of(params, 1).threads
    return Place(
        store=store,
        data_root=root,
        device=params.compare.device,
        threads=threads,
        checkpoint_seconds=params.compare.checkpoint_seconds,
        resident_gib=None if params.compare.resident_gib == "auto" else params.compare.resident_gib,
    )
