"""The project of a folder that DVC may have copied for an experiment. Light to import."""

from pathlib import Path

EXPERIMENTS = (".dvc", "tmp", "exps")  # where `dvc exp run --temp` and `--queue` make their copies of a project


def own_project(folder: Path) -> Path:
    """Return the folder, or the project it is a copy of if DVC made it for an experiment, to be thrown away."""
    parts = folder.resolve().parts
    for start in range(1, len(parts) - len(EXPERIMENTS)):
        if parts[start : start + len(EXPERIMENTS)] == EXPERIMENTS:
            return Path(*parts[:start])
    return folder
