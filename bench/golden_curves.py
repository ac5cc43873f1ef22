"""Our curves beside the authors': `uv run python -m bench.golden_curves --data-root FOLDER` (half an hour, two cores).

The standard setting of CIFAR-10 and ResNet-18 at full scale, as in the preset, for the first experiments; the authors'
logs of the same setting are in tests/golden. Chunks and first weights are not theirs, so only the curves are compared.
Runs are kept in a folder: after a stop the same command continues. `--dry-run` says how many hours the runs take on
this device, from a few seconds of their own training steps, and the epochs of the authors' logs; it trains nothing.
The first five experiments of all four methods:

    uv run python -m bench.golden_curves --experiments 5 --curves cold warm shrink_perturb dash --data-root FOLDER
"""

import argparse
import csv
import multiprocessing
import statistics
from pathlib import Path
from typing import Any, NamedTuple

from bench.precision import records
from bench.sections import table, write_section
from dash_core.config import RunConfig
from dash_core.data import load_dataset
from dash_core.device import choose_device, describe_machine, prepare_device
from dash_core.result import read_result
from dash_core.views.reproduction.measuring import pace
from flows.command_line.reproduction import about
from flows.command_line.settings import load_params
from tests import toy

LOGS = Path("tests/golden/authors_cifar10_runs.csv")
PRESET = "cifar10-resnet18"
POINTS, SHARE = 2.0, 0.2  # largest mean difference from the authors' curve: accuracy in points, steps as a share
WORKERS = 2  # runs at once
KIND = "preset"  # folder of these runs among those that bench.precision keeps: trained as the preset says


class Logged(NamedTuple):
    """A run in the authors' logs: method, hyperparameters as they are written there, seed, and ours for the same."""

    method: str
    hyperparameters: str
    seed: int
    overrides: tuple[str, ...] = ()


CURVES = {
    "cold": Logged("cold", "", 2021),
    "warm": Logged("warm", "", 2022),
    "shrink_perturb": Logged("shrink_perturb", "lambda=0.3 sigma=0.01", 2021),
    "dash": Logged("dash", "lambda=0.3 alpha=0.3", 2021, ("methods.dash.floor=0.3", "methods.dash.mode=train")),
    "dash_0.05": Logged("dash", "lambda=0.05 alpha=0.3", 2021, ("methods.dash.floor=0.05", "methods.dash.mode=train")),
}


def logged(curve: Logged) -> list[dict[str, Any]]:
    """Return the rows of one of the authors' runs, an experiment each."""
    with LOGS.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    wanted = (curve.method, curve.hyperparameters, str(curve.seed))
    return [row for row in rows if (row["method"], row["hyperparameters"], row["seed"]) == wanted]


def run_of(curve: Logged, experiments: int) -> RunConfig:
    """Return our run of the same setting."""
    given = [f"experiments={experiments}", *curve.overrides]
    return load_params(Path("params.yaml"), PRESET, given).run(curve.method, curve.seed)


def expected_seconds(curve: Logged, experiments: int, images_per_second: float) -> float:
    """Return the seconds of our run if it takes as many steps as the authors' did."""
    run = run_of(curve, experiments)
    steps = sum(int(row["steps"]) for row in logged(curve)[:experiments])
    return steps * run.training.batch_size / images_per_second


def tell_expected(names: list[str], experiments: int) -> None:
    """Print the seconds of each run and of all, two at once, on this device."""
    device = choose_device("auto")
    prepare_device(device, 1)
    measured = pace(run_of(CURVES[names[0]], experiments), device)
    seconds = {name: expected_seconds(CURVES[name], experiments, measured.images_per_second) for name in names}
    for name, time in seconds.items():
        print(f"{name}: {experiments} of 50 experiments, {about(time)}")
    together = max(sum(seconds.values()) / WORKERS, *seconds.values())
    print(
        f"together: {together / 3600:.1f} h, {WORKERS} runs at once; measured: "
        f"{measured.images_per_second:,.0f} training images/s a process, {measured.precision}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dry-run", action="store_true", help="say how many hours the runs take here; train nothing")
    parser.add_argument("--data-root", type=Path, help="folder of CIFAR-10 as torchvision has it")
    parser.add_argument("--experiments", type=int, default=3, help="how many of the 50 are trained (default: 3)")
    parser.add_argument("--curves", nargs="+", default=["cold", "dash"], choices=list(CURVES))
    parser.add_argument("--runs", type=Path, default=Path("bench/.runs"), help="where runs are kept")
    given = parser.parse_args()
    if given.dry_run:
        tell_expected(given.curves, given.experiments)
        return
    if given.data_root is None:
        parser.error("--data-root is required: the folder of CIFAR-10, as torchvision lays it out")

    runs = [run_of(CURVES[name], given.experiments) for name in given.curves]
    load_dataset(runs[0].dataset, data_root=given.data_root, cache=given.runs / ".cache")
    with multiprocessing.get_context("forkserver").Pool(WORKERS) as pool:
        found = pool.map(records, [(KIND, run, given.data_root, given.runs) for run in runs], chunksize=1)
    rows, lines = [], []
    for name, ours in zip(given.curves, found, strict=True):
        off, ratios = [], []
        for record, row in zip(ours, logged(CURVES[name]), strict=False):
            mine, theirs, steps = 100 * record.test_accuracy, 100 * float(row["test_accuracy"]), int(row["steps"])
            off.append(abs(mine - theirs))
            ratios.append(record.steps / steps)
            numbers = (f"{mine:.1f}", f"{theirs:.1f}", f"{record.steps:,}", f"{steps:,}", f"{ratios[-1]:.2f}")
            rows.append([f"{name}, {record.experiment}", *numbers])
        near = statistics.fmean(off) <= POINTS and abs(statistics.fmean(ratios) - 1) <= SHARE
        lines.append(
            f"- {name}: accuracy off by {statistics.fmean(off):.1f} points, steps × {statistics.fmean(ratios):.2f} on "
            f"average: {'within' if near else 'not within'} {POINTS:g} points and {SHARE:.0%}"
        )
    precisions = {read_result(given.runs / KIND / run.id, run)["precision"] for run in runs}
    head = (
        f"The first {given.experiments} of 50 experiments of the preset {PRESET}, ours in {', '.join(precisions)} "
        "beside the authors' logs; seed 2021, of warm 2022; 10,000 test images."
    )
    headings = ["method, experiment", "accuracy, ours", "theirs", "steps, ours", "theirs", "ratio"]
    which = f"--experiments {given.experiments} --curves {' '.join(given.curves)}"
    command = f"uv run python -m bench.golden_curves {which} --data-root FOLDER"
    write_section(
        "Golden curves", command, describe_machine(toy.CPU, 1), [head, "", *table(headings, rows), "", *lines]
    )


if __name__ == "__main__":
    main()
