"""A whole comparison, ours against the authors' way: `uv run python -m bench.comparison --data-root FOLDER`.

Cold, warm, S&P and DASH on 2,000 images of CIFAR-10 in 4 chunks, one seed, the same epochs of each chunk for all, from
the start of the command to its end. Ours is `dashpipe compare` with its services, checkpoints, tracking and report.
The authors' way (bench/authors_way.py) runs in one process of one thread, and in one process a core.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench.sections import table, write_section
from dash_core.cost import PHASES
from dash_core.device import choose_device, describe_machine, usable_cores
from dash_core.records import read_records

DASHPIPE = str(Path(sys.executable).with_name("dashpipe"))
METHODS = ["cold", "warm", "shrink_perturb", "dash"]
EPOCHS = {"mlp": 12, "cnn3": 8, "resnet18": 2}  # of each chunk: minutes to half an hour in the authors' way
RATES = {"resnet18": 0.001}
ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def timed(commands: list[list[str]], environment: dict[str, str]) -> tuple[float, float]:
    """Return the seconds of the commands, all started at once, and the largest of their processes' peaks in MiB.

    CalledProcessError if one fails. A command's own children are not counted in its peak.
    """
    started, peak = time.perf_counter(), 0
    running = [subprocess.Popen(c, env=environment, stdout=subprocess.DEVNULL) for c in commands]
    for process, command in zip(running, commands, strict=True):
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise subprocess.CalledProcessError(process.returncode, command)
        peak = max(peak, used.ru_maxrss)
    return time.perf_counter() - started, peak / 1024


def theirs(model: str, root: Path, epochs: int, processes: int) -> tuple[float, float]:
    """Return the seconds of the authors' way in so many processes, and the peak of one in MiB."""
    base = [
        sys.executable,
        "-m",
        "bench.authors_way",
        "--data-root",
        str(root),
        "--model",
        model,
        "--epochs",
        str(epochs),
    ]
    shares = [METHODS[number::processes] for number in range(processes)]
    return timed([[*base, "--methods", *share] for share in shares if share], ONE_THREAD)


def ours(model: str, root: Path, epochs: int) -> tuple[float, float, float]:
    """Return the seconds of our command, the peak of a training process in MiB, and the share of its runs' seconds
    that no phase of the science takes.
    """
    values = {
        "dataset.name": "cifar10",
        "dataset.train_size": 2000,
        "dataset.test_size": 1000,
        "chunks": 4,
        "model.name": model,
        "optimizer.lr": RATES.get(model, 0.01),
        "training.batch_size": 128,
        "training.stop_accuracy": "null",
        "training.max_epochs": epochs,
        "seeds": "[0]",
        "compare.methods": f"[{', '.join(METHODS)}]",
    }
    with tempfile.TemporaryDirectory() as store:
        options = [word for key, value in values.items() for word in ("--set", f"{key}={value}")]
        command = [
            DASHPIPE,
            "compare",
            "--store",
            store,
            "--data-root",
            str(root),
            *options,
        ]
        taken, _ = timed([command], dict(os.environ))
        records = [record for folder in Path(store).glob("runs/*") for record in read_records(folder)]
    spent = {phase: sum(record.cost[phase].seconds for record in records) for phase in PHASES}
    peak = max(cost.peak_memory for record in records for cost in record.cost.values()) / 2**20
    return taken, peak, (spent["checkpoint"] + spent["orchestrate"]) / sum(spent.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", type=Path, required=True, help="folder of CIFAR-10 as torchvision has it")
    parser.add_argument("--models", nargs="+", default=list(EPOCHS), choices=list(EPOCHS))
    given = parser.parse_args()

    for model in given.models:
        measure(model, given.data_root)


def measure(model: str, root: Path) -> None:
    """Measure all three ways with a model, and write its section."""
    cores, epochs = usable_cores(), EPOCHS[model]
    one, one_peak = theirs(model, root, epochs, 1)
    each, each_peak = theirs(model, root, epochs, cores)
    mine, my_peak, overhead = ours(model, root, epochs)
    rows = [
        ["authors' way, one process", f"{one:.0f}", f"{one / mine:.1f}", f"{one_peak:,.0f}"],
        [f"authors' way, {cores} processes", f"{each:.0f}", f"{each / mine:.1f}", f"{each_peak:,.0f}"],
        ["ours", f"{mine:.0f}", "1", f"{my_peak:,.0f}"],
    ]
    lines = [
        f"Cold, warm, S&P and DASH, 2,000 images of CIFAR-10 in 4 chunks, {epochs} epoch(s) of each, batch 128, theirs "
        "in fp32 and ours as `precision: auto` chooses, 1,000 "
        "test images, one seed; whole commands, ours with its services, checkpoints, tracking and report. Checkpoints "
        f"and orchestration took {overhead:.1%} of the seconds of its runs; tracking runs beside them.",
        "",
        *table(["way", "seconds", "× ours", "peak MiB of a training process"], rows),
    ]
    command = f"uv run python -m bench.comparison --models {model} --data-root FOLDER"
    write_section(f"A whole comparison: {model}", command, describe_machine(choose_device("auto"), 1), lines)


if __name__ == "__main__":
    main()
