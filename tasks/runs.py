"""Runs on disk: opened where they stopped, closed when they are complete, read back for tables."""

import hashlib
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import load_file
from torch import Tensor, nn

from dash_core.comparison import Params
from dash_core.config import RunConfig
from dash_core.data import ChunkPlan, Dataset
from dash_core.device import choose_device, describe_machine, prepare_device
from dash_core.errors import RecordError
from dash_core.files import write_atomically
from dash_core.models import build_model
from dash_core.records import ChunkRecord, read_records
from dash_core.summary import MethodRuns
from dash_core.trajectory import WEIGHTS, Trajectory, input_normalisation, read_result
from tasks.place import Place
from tasks.progress import ProgressWriter

CONDITIONS = (
    "measured on {device}, {cores} cores, {workers} run(s) at once of {threads} thread(s), "
    "torch {torch}, commit {commit}"
)


def is_complete(run: RunConfig, place: Place, split: str | None = None) -> bool:
    """Tell whether the run's results are all on disk, made on the chunk plan of digest `split` where it is given."""
    return read_result(place.run_folder(run), run, split) is not None


def open_trajectory(
    run: RunConfig, dataset: Dataset, plan: ChunkPlan, place: Place
) -> tuple[Trajectory, ProgressWriter]:
    """Return the run where it stopped, or at its beginning, with its configuration written down."""
    folder = place.run_folder(run)
    write_atomically(folder / "config.yaml", to_yaml(run.model_dump(mode="json")))
    device = choose_device(place.device)
    prepare_device(device, place.threads)
    progress = ProgressWriter(folder, plan)
    trajectory = Trajectory(run, dataset, plan, folder, device=device, on_epoch=progress.after_epoch)
    progress.resumed(trajectory.records)
    return trajectory, progress


def final_model(run: RunConfig, dataset: Dataset, place: Place) -> nn.Module:
    """Return a complete run's model with its final weights, on the CPU."""
    model = build_model(run.model.name, dataset.train.image_shape, dataset.train.classes, seed=run.seed)
    path = place.run_folder(run) / WEIGHTS
    if hashlib.sha256(path.read_bytes()).hexdigest() != read_result(path.parent, run)["weights_sha256"]:
        raise RecordError(f"{path} is not what the run wrote; train it again with --again")
    model.load_state_dict(load_file(path))
    return model


def input_example(run: RunConfig, dataset: Dataset) -> Tensor:
    """Return two test images as the run's model takes them."""
    normalise = input_normalisation(run.model.name, dataset.train, torch.device("cpu"))
    return normalise(dataset.test.images[:2].permute(0, 3, 1, 2))


def facts(place: Place) -> dict[str, Any]:
    """Return hardware, versions and commit, as they go into a run's result."""
    machine = describe_machine(choose_device(place.device), place.threads)
    return {"commit": commit(), **machine, "workers": place.workers}


def commit() -> str | None:
    """Return the commit of the code that runs, marked if it was changed since; None outside a checkout."""
    here = Path(__file__).parent
    try:
        answer = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"],
            cwd=here,
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip()


def complete_runs(params: Params, place: Place, splits: Mapping[int, str]) -> list[RunConfig]:
    """Return the comparison's runs that are complete, trained on the chunk plans of the given digests by seed."""
    return [run for run in params.runs() if is_complete(run, place, splits[run.seed])]


def records_by_method(runs: Sequence[RunConfig], place: Place) -> list[MethodRuns]:
    """Return the records of complete runs, method by method in the order of their first run."""
    records: dict[str, dict[int, list[ChunkRecord]]] = {}
    interventions = {}
    for run in runs:
        records.setdefault(run.method.label, {})[run.seed] = read_records(place.run_folder(run))
        interventions[run.method.label] = run.method.intervention
    return [MethodRuns(label, interventions[label], by_seed) for label, by_seed in records.items()]


def conditions(runs: Sequence[RunConfig], place: Place) -> list[str]:
    """Return under which conditions complete runs were made: one line for each that differs in anything named."""
    results = [read_result(place.run_folder(run), run) for run in runs]
    return sorted({CONDITIONS.format(**result) for result in results})


def to_yaml(content: dict[str, Any]) -> bytes:
    """Return a mapping as YAML, in its own order."""
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True).encode()
