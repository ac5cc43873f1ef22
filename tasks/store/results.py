"""The results folder of a pipeline: the outputs of its stages, at paths that depend on no parameter."""

import json
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from dash_core.comparison import Params
from dash_core.config import RunConfig
from dash_core.data import ChunkPlan, Dataset
from dash_core.errors import ConfigError, RecordError
from dash_core.files import write_atomically
from dash_core.records import RECORDS_FILE
from dash_core.result import RESULT_FILE, WEIGHTS_FILE, read_result, read_weights
from tasks.store.datasets import plan_path
from tasks.store.locks import locked_run
from tasks.store.place import Place

KEPT_FILES = ("config.yaml", RECORDS_FILE, WEIGHTS_FILE, RESULT_FILE)  # of a complete run; the last completes it


class Results(BaseModel):
    """Folder of a pipeline's outputs; DVC owns them, and deletes each before its stage runs."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    folder: Path

    def run_folder(self, run: RunConfig) -> Path:
        """Folder of one complete run."""
        return self.method_folder(run.method.label) / f"seed-{run.seed}"

    def method_folder(self, label: str) -> Path:
        """Folder of one method's complete runs."""
        return self.folder / "runs" / label

    @property
    def dataset(self) -> Path:
        """File of the dataset's description."""
        return self.folder / "dataset.json"

    @property
    def splits(self) -> Path:
        """Folder of the chunk plans: the versioned data splits."""
        return self.folder / "splits"

    def prune(self, labels: Collection[str]) -> None:
        """Remove the runs of methods no longer compared: DVC would count them as inputs of tables and figures."""
        for folder in (self.folder / "runs").glob("*"):
            if folder.name not in labels:
                shutil.rmtree(folder)


class _Description(BaseModel):
    """The keys that dataset.json must contain."""

    name: str
    train_digest: str
    test_digest: str
    class_names: list[str]


def describe(dataset: Dataset) -> dict[str, Any]:
    """Return a dataset's description: its name, sizes, classes, and the hashes of its content."""
    train, test = dataset.train, dataset.test
    return {
        "name": dataset.name,
        "image_shape": list(train.image_shape),
        "train_images": len(train),
        "train_digest": train.digest,
        "test_images": len(test),
        "test_digest": test.digest,
        "class_names": list(train.class_names),
        **(dataset.noticed.counts if dataset.noticed else {}),
    }


def write_description(dataset: Dataset, path: Path) -> None:
    """Write a dataset's description as JSON."""
    write_atomically(path, (json.dumps(describe(dataset), indent=2) + "\n").encode())


def read_description(path: Path) -> dict[str, Any]:
    """Read a dataset's description; RecordError names the file and the remedy."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        _Description.model_validate(content)
    except FileNotFoundError:
        raise RecordError(f"no {path}: `dashpipe prepare --results {path.parent}` writes it") from None
    except (OSError, ValueError, RecursionError) as error:
        reason = "no description of a dataset" if isinstance(error, ValidationError) else error
        raise RecordError(f"{path} cannot be read ({reason}): run `dashpipe prepare` again") from None
    return content


def kept_plans(params: Params, splits: Path, train_digest: str) -> dict[int, ChunkPlan]:
    """Return the chunk plan of each seed; RecordError if one is missing or damaged."""
    paths = {seed: plan_path(splits, params, seed, train_digest) for seed in params.seeds}
    if missing := [path for path in paths.values() if not path.exists()]:
        raise RecordError(f"no chunk plan {missing[0]}: `dashpipe split` makes the plans of all seeds")
    return {seed: ChunkPlan.load(path) for seed, path in paths.items()}


def keep(run: RunConfig, place: Place, results: Results) -> None:
    """Copy a complete run from the store to the results, where it replaces an older one."""
    target = results.run_folder(run)
    with locked_run(run, place):
        folder = place.run_folder(run)
        result = read_result(folder, run)
        if result is None:
            raise RecordError(
                f"run {run.id} is no longer complete: it was removed, or another command trains it again; "
                "repeat this command"
            )
        content = {name: (folder / name).read_bytes() for name in KEPT_FILES if name != WEIGHTS_FILE}
        content = {WEIGHTS_FILE: read_weights(folder, result), **content}
        shutil.rmtree(target, ignore_errors=True)
        for name, part in content.items():
            write_atomically(target / name, part)


def check_dataset(dataset: Dataset, described: Mapping[str, Any], path: Path) -> None:
    """Raise ConfigError unless the dataset is the described one."""
    if (dataset.train.digest, dataset.test.digest) != (described["train_digest"], described["test_digest"]):
        raise ConfigError(
            f"{dataset.name} here is not the version that {path} describes: run `dashpipe prepare` again, "
            "or bring back the data that it describes"
        )
