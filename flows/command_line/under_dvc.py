"""What a stage of dvc.yaml knows of the DVC that runs it: its process, its project, and what the stage depends on."""

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dash_core.comparison import Params
from dash_core.errors import ConfigError
from dash_core.parts import DATASETS, LOSSES, METHODS, MODELS, PLANS, part_path, source_digest, source_files
from flows.command_line.settings import read_yaml
from flows.services.child import ParentWatch, ancestors
from tasks.store.code import ROOT
from tasks.store.runs import PACKAGES

RUNNING_FILE = Path(".dvc", "tmp", "rwlock")  # JSON: the DVC processes that write outputs now, by output
DEFINITION = "dvc.yaml"


def end_with_dvc() -> None:
    """End this process as soon as the DVC that runs its stage is gone, even if that was before this call.

    DVC names its process in RUNNING_FILE while a stage runs, and leaves it there if it is killed. Without that file, or
    where the system does not tell a process's ancestors, only a parent that ends from now on is noticed.
    """
    processes = running_dvc(Path(os.environ.get("DVC_ROOT", ".")))
    if processes and len(ancestors()) > 1:
        ParentWatch(is_gone=lambda: processes.isdisjoint(ancestors()))
    else:
        ParentWatch()


def running_dvc(project: Path) -> set[int]:
    """Return the ids of the DVC processes that write outputs of a project, killed ones too."""
    try:
        writers = json.loads((project / RUNNING_FILE).read_text(encoding="utf-8"))["write"].values()
        return {int(writer["pid"]) for writer in writers}
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return set()


class StageInputs:
    """The code and the parameters that a stage depends on, as DVC will record them when the stage has ended.

    DVC reads them after the stage's command. What is edited while the command runs would be recorded as the origin of
    results that it did not make, and the stage would then count as up to date.
    """

    def __init__(self, stage: str, project: Path) -> None:
        """stage: as DVC names it, `train@dash` for an item of a matrix. project: the folder of its dvc.yaml.

        Make it before the parameters are read. ConfigError if other code runs than DVC sees.
        """
        self._stage, self._project = stage, project
        name, _, self._item = stage.rpartition(":")[2].partition("@")
        stages = read_yaml(project / DEFINITION).get("stages", {}) if (project / DEFINITION).exists() else {}
        definition = stages.get(name, {})
        self._code = [path for path in definition.get("deps", []) if path.partition("/")[0] in PACKAGES]
        self._stages = stages
        self._own: list[tuple[str, str]] = []  # kind and name of each own part
        self._names = [self._resolved(entry) for entry in definition.get("params", []) if isinstance(entry, str)]
        self._check_code()
        self._first = self._now()

    def check_own_parts(self, settings: Params) -> None:
        """Raise ConfigError unless the stages depend on the source of the own parts that decide their outputs.

        DVC would not notice an edit of it, and keep last time's results. From here on, `check` looks at it too.
        """
        missing = []
        for stage, own_parts in own_parts_of(settings).items():
            if stage not in self._stages:
                continue
            paths = [self._project / path for path in self._stages[stage].get("deps", []) if isinstance(path, str)]
            deps = [path.resolve() for path in paths]
            for kind, name in own_parts:
                uncovered = [
                    (root, file)
                    for root, file in source_files(kind, part_path(kind, name) or name)
                    if not any(file.resolve().is_relative_to(dependency) for dependency in deps)
                ]
                if uncovered:
                    missing.append(f"{_dependency(*uncovered[0], self._project)} ({kind} {name}) to the stage {stage}")
        if missing:
            raise ConfigError(
                f"dvc.yaml: its stages must depend on the source of your own parts, or DVC would not notice an edit: "
                f"add to `deps` {', '.join(dict.fromkeys(missing))}"
            )
        self._own = list(dict.fromkeys(part for found in own_parts_of(settings).values() for part in found))
        self._first = self._now()

    def check(self) -> None:
        """Raise ConfigError, which names them, if inputs changed since this object was made."""
        now = self._now()
        changed = sorted(name for name in self._first if now.get(name) != self._first[name])
        if changed:
            raise ConfigError(
                f"{', '.join(changed)} changed while the stage {self._stage} ran: its output belongs to what was there "
                "when it began, and DVC would record what is there now. Nothing is recorded; `dvc repro` runs the "
                "stage again"
            )

    def _resolved(self, name: str) -> str:
        """Return the name of a parameter, in which `${item.…}` stands for the stage's item of its matrix."""
        start, found, rest = name.partition("${item.")
        return start + self._item + rest.partition("}")[2] if found else name

    def _now(self) -> dict[str, Any]:
        values = {path: _digest(self._project / path) for path in self._code}
        values |= {f"the source of {name}": source_digest(kind, name) for kind, name in self._own}
        try:
            content = read_yaml(self._project / "params.yaml")
        except ConfigError as error:
            return values | {f"params.yaml ({name})": str(error) for name in self._names}
        return values | {f"params.yaml ({name})": _value(content, name) for name in self._names}

    def _check_code(self) -> None:
        """Raise ConfigError if this process runs other code than the project holds, which DVC takes for what ran."""
        other = [path for path in self._code if _digest(self._project / path) != _digest(ROOT / path)]
        if other:
            raise ConfigError(
                f"{other[0]} in {self._project} is not the code that runs, which is in {ROOT}: set PYTHONPATH to "
                f"{self._project}, or make both the same"
            )


def own_parts_of(settings: Params) -> dict[str, list[tuple[str, str]]]:
    """Return kind and name of the own parts that decide the output of each stage."""
    runs = [settings.run(label, settings.seeds[0]) for label in settings.compare.methods]
    data = [(DATASETS, settings.dataset.name)] if settings.dataset.source else []
    plans = [(PLANS, settings.dataset.plan)] if settings.dataset.plan else []
    trained = [(MODELS, settings.model.name)] if settings.model.source else []
    trained += [(LOSSES, settings.training.loss)] if settings.training.loss_source else []
    trained += [(METHODS, run.method.intervention) for run in runs if run.method.source]
    return {"prepare": data, "split": [*data, *plans], "train": [*data, *plans, *trained]}


def _dependency(root: Path, file: Path, project: Path) -> str:
    """Return the path to write under `deps`: a package's folder, or the file of a module; relative in the project."""
    path = root if (root / "__init__.py").exists() or file.parent != root else file
    path, folder = path.resolve(), project.resolve()
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else str(path)


def _digest(path: Path) -> str:
    """Return a hash of a Python file, or of all in a folder, with their names."""
    digest = hashlib.sha256()
    for file in sorted(_sources(path)):
        with contextlib.suppress(OSError):
            content = file.read_bytes()
            digest.update(f"{file.relative_to(path).as_posix()}:{len(content)}:".encode() + content)
    return digest.hexdigest()


def _sources(path: Path) -> Iterator[Path]:
    if path.is_dir():
        yield from (file for file in path.rglob("*") if file.is_file() and "__pycache__" not in file.parts)
    else:
        yield path


def _value(content: Any, name: str) -> Any:
    """Return the value at a dotted name; None if there is none."""
    for part in name.split("."):
        if not isinstance(content, dict) or part not in content:
            return None
        content = content[part]
    return content
