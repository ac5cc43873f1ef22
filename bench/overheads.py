"""What is no training: `uv run python -m bench.overheads --data-root FOLDER` (twenty minutes).

`dashpipe run` of the preset cifar10-resnet18 with DASH and every diagnostic, a real run of the paper's scale, stopped
after its first two experiments; what its own cost meter charged to each phase.
"""

import argparse
import subprocess
import tempfile
import time
from pathlib import Path

from bench.comparison import DASHPIPE
from bench.sections import table, write_section
from dash_core.cost import PHASES
from dash_core.device import choose_device, describe_machine
from dash_core.diagnostics import DIAGNOSTICS
from dash_core.records import ChunkRecord, read_records
from dash_core.summary import total_cost

LOOK = 1.0  # seconds between two looks at the records
SCIENCE = ("intervene", "train", "evaluate")


def first_experiments(root: Path, count: int) -> list[ChunkRecord]:
    """Return the records of a run's first experiments; CalledProcessError if the command ends before."""
    with tempfile.TemporaryDirectory() as store:
        measured = f"diagnostics=[{', '.join(DIAGNOSTICS)}]"
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
    given = parser.parse_args()

    records = first_experiments(given.data_root, given.experiments)
    total = total_cost(records).seconds
    seconds = {phase: sum(record.cost[phase].seconds for record in records) for phase in PHASES}
    rows = [[phase, f"{spent:,.1f}", f"{spent / total:.2%}"] for phase, spent in seconds.items()]
    overhead = sum(spent for phase, spent in seconds.items() if phase not in SCIENCE)
    measured = seconds["diagnose"]
    lines = [
        f"The first {given.experiments} of 50 experiments of the preset cifar10-resnet18, DASH, one seed, one process, "
        f"with all {len(DIAGNOSTICS)} diagnostics: what is neither intervention, training nor evaluation took "
        f"{overhead / total:.2%} of the seconds, and without the diagnostics, which are off by default, "
        f"{(overhead - measured) / (total - measured):.2%}. MLflow is told beside it, by a thread of the same process.",
        "",
        *table(["phase", "seconds", "share"], rows),
    ]
    command = f"uv run python -m bench.overheads --experiments {given.experiments} --data-root FOLDER"
    write_section("Overheads at the paper's scale", command, describe_machine(choose_device("auto"), 1), lines)


if __name__ == "__main__":
    main()
