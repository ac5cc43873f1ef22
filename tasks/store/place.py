"""Where runs are trained: folders, device, processes. None of it decides a result."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field

from dash_core.comparison import ClusterConfig, CompareConfig, Params
from dash_core.config import RunConfig
from dash_core.device import choose_device, usable_cores, visible_gpus
from dash_core.errors import ConfigError
from dash_core.memory import free_memory
from dash_core.parts import project_folder
from tasks import SERVICES_FOLDER
from tasks.store.shared_disk import local_services

RUNS_PER_GPU = 4  # at once; our choice, not measured
RUN_BYTES = 6 * 2**30  # of GPU memory, reserved for a run: CUDA's context, weights, activations of a batch


class Place(BaseModel):
    """Where runs are trained: absolute folders, a device, processes. Plain data, for other processes too."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    store: Path  # runs, comparisons, splits, mlflow.db
    data_root: Path  # datasets as torchvision lays them out
    device: str = "auto"
    threads: Annotated[int, Field(ge=1)] = 1  # of torch, in each process
    workers: Annotated[int, Field(ge=1)] = 1  # runs at once
    gpus_per_run: Annotated[int, Field(ge=1)] = 1  # processes that train a run together, each on its own GPU
    given_code: str | None = None  # digest of the code that complete runs must be trained by; None: any code
    checkpoint_seconds: Annotated[float, Field(gt=0)] = 60.0  # between two saves of a run within an experiment
    resident_gib: Annotated[float, Field(gt=0)] | None = None  # of images on the device; None: part of the free memory
    given_splits: Path | None = None  # chunk plans of a pipeline; None: the store's own
    keep_weights: tuple[int, ...] = ()  # experiments whose weights are kept, beside the last's
    project: Path | None = None  # folder of params.yaml, where packages of own parts may be
    splits_made: bool = False  # the chunk plans of the runs exist: whoever finds none has other images
    given_services: Path | None = None  # databases and logs, for a store that several machines share; None: the store
    executor: Literal["local", "ray", "slurm"] = "local"
    cluster: ClusterConfig = ClusterConfig()
    neighbours: Annotated[int, Field(ge=1)] | None = None  # runs at once on a run's machine; None: all workers
    bf16: bool | None = None  # whether `precision: auto` finds bf16 in the hardware; None: the device is asked
    mirror: str | None = None  # address below which run folders are copied, such as s3://bucket/project
    orchestrated: bool = True  # whether steps are tasks of Prefect: False where its server cannot be reached

    def run_folder(self, run: RunConfig) -> Path:
        """Folder of one run: config, records, weights, result."""
        return self.store / "runs" / run.id

    def replaced_folder(self, run: RunConfig) -> Path:
        """Folder of a run's earlier result while it is trained again, on other data or by other code."""
        return self.store / "replaced" / run.id

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
        return self.common_services / "imagesets"

    @property
    def beginnings(self) -> Path:
        """Folder of the states that runs begin with; it may be removed."""
        return self.common_services / "beginnings"

    @property
    def locks(self) -> Path:
        """Folder of the locks, which every machine that uses the store must see."""
        return self.common_services / "locks"

    @property
    def common_services(self) -> Path:
        """Folder in the store of what all its machines share and is no result: caches, locks."""
        return self.store / SERVICES_FOLDER

    @property
    def services(self) -> Path:
        """Folder of the private Prefect server's database and log, and of notes on MLflow's database."""
        return self.given_services or self.common_services

    @property
    def databases(self) -> Path:
        """Folder of mlflow.db."""
        return self.given_services or self.store


@dataclass(frozen=True)
class Crew:
    """How many processes share the runs, and how many torch threads each has."""

    workers: int
    threads: int

    @classmethod
    def of(cls, params: Params, runs: int) -> "Crew":
        """Return the crew for a number of runs: one process a core, one thread each, unless params say otherwise.

        Each GPU gets a few processes, as many as fit its memory, because a small network leaves most of a GPU idle.
        Processes are simpler than training seeds as one batch, which needs runs of equal length, and faster than
        streams, which share an interpreter.
        """
        settings = params.compare
        threads = 1 if settings.threads == "auto" else settings.threads
        if settings.executor != "local":  # its slots limit the runs at once
            workers = runs if settings.workers == "auto" else settings.workers
            return cls(max(min(workers, runs), 1), threads)
        cores, together = usable_cores(), settings.gpus_per_run
        if settings.workers != "auto":
            workers = settings.workers
        elif choose_device(settings.device).type == "cuda":
            alone = together == 1
            workers = min(cores, _runs_on_gpus(settings.device) if alone else len(visible_gpus("auto", together)))
        else:
            workers = max(1, cores // (threads * together))
        return cls(min(workers, max(runs, 1)), threads)


def _runs_on_gpus(device: str) -> int:
    """Return how many runs share the GPUs: RUNS_PER_GPU each, fewer if its memory is short; at least one in all."""
    gpus = [torch.device("cuda", number) for number in range(len(visible_gpus(device)))]
    return max(1, sum(min(RUNS_PER_GPU, free_memory(gpu) // RUN_BYTES) for gpu in gpus or [choose_device(device)]))


def check_gpus_per_run(settings: CompareConfig) -> None:
    """Raise ConfigError unless this machine has the GPUs that one run is divided over, or the CPU was asked for."""
    count, key = settings.gpus_per_run, "compare.gpus_per_run"
    if count == 1 or settings.device == "cpu" or settings.executor != "local":  # a cluster's machines are examined
        return
    if settings.device.startswith("cuda:"):
        raise ConfigError(f"{key}: {count}, but compare.device={settings.device} is one GPU; set compare.device=auto")
    here = len(visible_gpus("auto"))
    if count > here:
        raise ConfigError(
            f"{key}: {count} is more than the {here} GPU(s) that torch sees here; set {key} to {max(here, 1)}, or "
            f"compare.device=cpu to divide each run over {count} processes on the CPU"
        )


def place_of(params: Params, store: Path, data_root: Path | None, services: Path | None = None) -> Place:
    """Return the place of a comparison's runs. data_root: None for `data` in the store.

    services: folder of databases and logs; None: the store, or a disk of this machine if machines share the store.
    """
    store = store.resolve()
    root = data_root.resolve() if data_root else store / "data"
    check_gpus_per_run(params.compare)
    threads = Crew.of(params, 1).threads
    return Place(
        store=store,
        project=project_folder(),
        data_root=root,
        device=params.compare.device,
        threads=threads,
        gpus_per_run=params.compare.gpus_per_run,
        checkpoint_seconds=params.compare.checkpoint_seconds,
        keep_weights=params.compare.keep_weights,
        resident_gib=None if params.compare.resident_gib == "auto" else params.compare.resident_gib,
        given_services=services.resolve() if services else local_services(store),
        executor=params.compare.executor,
        cluster=params.compare.cluster,
        mirror=params.compare.mirror,
    )
