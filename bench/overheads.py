"""Seconds of a run that are not training: `uv run python -m bench.overheads --data-root FOLDER` (twenty minutes).

`dashpipe run` of the preset cifar10-resnet18 with DASH, a real run of the paper's scale, stopped after its first two
experiments: the seconds that its own cost meter charged to each phase. Diagnostics are off by default; `--diagnostics`
measures with all of them.
"""

import argparse
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from bench.comparison import DASHPIPE
from bench.sections import table, write_section
from dash_core.cost import PHASES
from dash_core.device import choose_device, describe_machine
from dash_core.diagnostics import DIAGNOSTICS
from dash_core.records import ChunkRecord, read_records
from dash_core.views.summary import total_cost

LOOK = 1.0  # seconds between two looks at the records
SCIENCE = ("intervene", "train", "evaluate")


def first_experiments(root: Path, count: int, diagnostics: Sequence[str]) -> list[ChunkRecord]:
    """Return the records of a run's first experiments; CalledProcessError if the command ends before."""
    with tempfile.TemporaryDirectory() as store:
        measured = f"diagnostics=[{', '.join(diagnostics)}]"
        words = ["run", "--preset", "cifar10-resnet18", "--method", "dash", "--set", measured]
        command = [DASHPIPE, *words, "--store", store, "--data-root", str(root)]
        with subprocess.Popen(command) as running:
            while running.poll() is None:
                records = [record for folder in Path(store).glob("runs/*") for record in _records(folder)]
                if len(records) >= count:
                    running.kill()  # it may be measuring for minutes, and its store goes anyway
                    return records[:count]
                time.sleep(LOOK)
        raise subprocess.CalledProcessError(running.returncode, command)


def _records(folder: Path) -> list[ChunkRecord]:
    return read_records(folder) if (folder / "chunks.jsonl").exists() else []


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", type=Path, required=True, help="folder of CIFAR-10 as torchvision has it")
    parser.add_argument("--experiments", type=int, default=2)
    parser.add_argument("--diagnostics", action="store_true", help="measure all diagnostics as well")
    given = parser.parse_args()

    diagnostics = tuple(DIAGNOSTICS) if given.diagnostics else ()
    records = first_experiments(given.data_root, given.experiments, diagnostics)
    total = total_cost(records).seconds
    seconds = {phase: sum(record.cost[phase].seconds for record in records) for phase in PHASES}
    rows = [[phase, f"{spent:,.1f}", f"{spent / total:.2%}"] for phase, spent in seconds.items()]
    overhead = sum(spent for phase, spent in seconds.items() if phase not in SCIENCE)
    lines = [
        f"The first {given.experiments} of 50 experiments of the preset cifar10-resnet18, DASH, one seed, one process, "
        f"{len(diagnostics)} diagnostics: everything but intervention, training and evaluation took "
        f"{overhead / total:.2%} of the seconds. A thread of the same process reports to MLflow meanwhile.",
        "",
        *table(["phase", "seconds", "share"], rows),
    ]
    title = f"Overheads at the paper's scale, {'all' if diagnostics else 'no'} diagnostics"
    flag = " --diagnostics" if diagnostics else ""
    command = f"uv run python -m bench.overheads --experiments {given.experiments}{flag} --data-root FOLDER"
    write_section(title, command, describe_machine(choose_device("auto"), 1), lines)


if __name__ == "__main__":
    main()
