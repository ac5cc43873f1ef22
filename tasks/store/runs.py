"""Runs on disk: opened where they stopped, read back when they are complete, and described by facts."""

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
import yaml
from safetensors.torch import load
from torch import nn

from dash_core.beginnings import Course, State
from dash_core.config import RunConfig
from dash_core.data import ChunkPlan, Dataset
from dash_core.device import choose_device, describe_machine, prepare_device
from dash_core.errors import RecordError
from dash_core.exporting import ModelCard, ModelInput
from dash_core.files import write_atomically
from dash_core.memory import free_memory
from dash_core.models import build_model
from dash_core.parallel import joined
from dash_core.recipes import effective
from dash_core.result import RESULT_KEYS, read_result, read_weights
from dash_core.run_state import Watch
from dash_core.trajectory import Trajectory
from tasks.store import stopping
from tasks.store.beginnings import forget_beginnings
from tasks.store.code import ROOT, code_digest
from tasks.store.locks import locked_run
from tasks.store.place import Place
from tasks.store.progress import ProgressWriter
from tasks.store.remote_copy import remote_copy

FACTS_FILE = "facts.json"
FindBeginning = Callable[[Course], State | None]
PACKAGES = ("dash_core", "tasks", "flows")


class RunFolders(Protocol):
    """An object that knows the folder of each run: a store, or the results of a pipeline."""

    def run_folder(self, run: RunConfig) -> Path:
        """Folder of one run."""


def is_complete(run: RunConfig, place: RunFolders, split: str | None = None, code: str | None = None) -> bool:
    """Tell whether a run is complete on disk. split, code: digests of its chunk plan and code; None accepts any."""
    return read_result(place.run_folder(run), run, split, code) is not None


def open_trajectory(
    run: RunConfig,
    dataset: Dataset,
    plan: ChunkPlan,
    place: Place,
    find_beginning: FindBeginning,
    before_write: Callable[[], None] = lambda: None,
    after_save: Callable[[Mapping[str, Any]], None] = lambda state: None,
) -> tuple[Trajectory, ProgressWriter]:
    """Write the run's configuration, and return the run where it stopped, or with another run's state, or new.

    Of several processes that train it together the first alone writes. before_write: called before each write that the
    run continues from; its error ends the run. after_save: as in `Watch`.
    """
    folder = place.run_folder(run)
    ranks = joined()
    if ranks.first:
        write_atomically(folder / "config.yaml", to_yaml(effective(run)))
    device = choose_device(place.device)
    prepare_device(device, place.threads)
    progress = ProgressWriter(folder, plan, run.schedule, run.training, before_write)
    after_epoch = progress.after_epoch if ranks.first else lambda report: None
    watch = Watch(after_epoch, stopping.requested, place.checkpoint_seconds, before_write, after_save)
    trajectory = Trajectory(
        run,
        dataset,
        plan,
        folder,
        device=device,
        code=code_digest(),
        watch=watch,
        resident=resident_bytes(place, device),
        find_beginning=find_beginning,
        keep_weights=place.keep_weights,
        ranks=ranks,
        bf16=place.bf16,
    )
    if ranks.first:
        progress.resumed(trajectory.records)
    return trajectory, progress


def resident_bytes(place: Place, device: torch.device) -> int | None:
    """Return the limit of a run's images on its device, in bytes: the place's, or a quarter of a run's free memory."""
    if place.resident_gib is not None:
        return int(place.resident_gib * 2**30)
    free = free_memory(device)
    sharing = (place.neighbours or place.workers) * (1 if device.type == "cuda" else place.gpus_per_run)
    return None if free is None else free // (4 * sharing)


def forget(run: RunConfig, place: Place) -> None:
    """Have a run trained from its first step, without what it might begin with.

    A complete result is kept in `replaced/` until the new one is complete.
    """
    with locked_run(run, place):
        keep_replaced(run, place)
        shutil.rmtree(place.run_folder(run), ignore_errors=True)
        forget_beginnings(run, place)
        if copy := remote_copy(place.mirror, place.run_folder(run)):
            copy.remove()


def keep_replaced(run: RunConfig, place: Place) -> None:
    """Move a complete run, if there is one, to `replaced/`. The caller holds the run's lock."""
    folder, kept = place.run_folder(run), place.replaced_folder(run)
    if _has_result(run, place):
        shutil.rmtree(kept, ignore_errors=True)
        kept.parent.mkdir(parents=True, exist_ok=True)
        os.replace(folder, kept)


def _has_result(run: RunConfig, place: Place) -> bool:
    try:
        return is_complete(run, place)
    except RecordError:
        return False


def remove_replaced(run: RunConfig, place: Place) -> None:
    """Remove the earlier result of a run that is complete again."""
    shutil.rmtree(place.replaced_folder(run), ignore_errors=True)


def final_model(run: RunConfig, dataset: Dataset, place: RunFolders) -> nn.Module:
    """Return a complete run's model with its final weights, on the CPU."""
    shape, classes = dataset.train.image_shape, dataset.train.classes
    model = build_model(run.model.name, shape, classes, seed=run.seed, **run.model.options)
    folder = place.run_folder(run)
    result = read_result(folder, run)
    if result is None:
        raise RecordError(f"run {run.id} is no longer complete: {folder} was removed, or is trained again")
    model.load_state_dict(load(read_weights(folder, result)))
    return model


def input_example(run: RunConfig, dataset: Dataset) -> ModelInput:
    """Return what the export of a run's model needs: its card, and a few raw test images."""
    card = ModelCard.of(run.model.name, dataset.train, run.dataset.background, run=run.id, dataset=dataset.name)
    return ModelInput(card, dataset.test.images[:8])


def facts(place: Place) -> dict[str, Any]:
    """Return hardware, versions and commit, as a run's result records them."""
    machine = describe_machine(choose_device(place.device), place.threads)
    together = {} if (processes := joined().size) == 1 else {"processes": processes}
    return {"commit": commit(), **machine, "workers": place.workers, **together}


def recorded_facts(result: Mapping[str, Any]) -> dict[str, Any]:
    """Return hardware, versions and commit from a complete run's result."""
    return {name: value for name, value in result.items() if name not in RESULT_KEYS}


def write_facts(folder: Path, split: str, facts: Mapping[str, Any]) -> None:
    """Write facts.json, the chunk plan ("split"), hardware and code of a run, to its folder while it trains."""
    write_atomically(folder / FACTS_FILE, (json.dumps({"split": split, **facts}, indent=2) + "\n").encode())


def remove_facts(folder: Path) -> None:
    """Remove facts.json: from now on the run's result.json contains the same."""
    (folder / FACTS_FILE).unlink(missing_ok=True)


def run_facts(folder: Path, run: RunConfig) -> dict[str, Any] | None:
    """Return chunk plan ("split"), hardware, versions and commit of a run; None if it has not begun."""
    if result := read_result(folder, run):
        return {"split": result["split"], **recorded_facts(result)}
    try:
        facts = json.loads((folder / FACTS_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return facts if isinstance(facts, dict) else None


def commit() -> str | None:
    """Return the commit of the running code, marked "-dirty" if that code was changed since; None if it has none.

    An installed package has none, even if it is installed somewhere inside the checkout of another project.
    """
    try:
        if Path(_git("rev-parse", "--show-toplevel")).resolve() != ROOT.resolve():
            return None
        _git("ls-files", "--error-unmatch", "--", *PACKAGES)  # fails if one of them is not tracked
        name = _git("describe", "--always", "--abbrev=12", "--exclude=*")
        return name + ("-dirty" if _git("status", "--porcelain", "--", *PACKAGES) else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _git(*words: str) -> str:
    process = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, timeout=10, check=True)
    return process.stdout.strip()


def to_yaml(content: dict[str, Any]) -> bytes:
    """Return a mapping as YAML, in its own order."""
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True).encode()
