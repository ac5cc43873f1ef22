"""A fan-out of many tiny runs: seconds beside training that each costs, and the command's memory while they pass.

`uv run python -m bench.fan_out --executor local --runs 200`; for `ray` a cluster runs already (RAY_ADDRESS); `slurm`
with `--set compare.cluster.address=local` tries jobs on this machine.
"""

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from dash_core.records import read_records
from flows.command_line.settings import load_params

ROOT = Path(__file__).parents[1]
TINY = (
    "model.name=cnn3_small",
    "chunks=1",
    "dataset.train_size=40",
    "training.max_epochs=1",
    "compare.methods=[warm]",
    "compare.device=cpu",
)
LOOK_SECONDS = 0.5  # between two looks at the command's memory
RUNS_BETWEEN_SIZES = 50  # complete runs between two sizes of the command's memory that are printed


def measure(executor: str, runs: int, workers: int, more: list[str], store: Path) -> dict[str, object]:
    """Train so many tiny runs by an executor, and return what they cost."""
    where = f"compare.executor={executor}", f"compare.workers={workers}"
    overrides = [*TINY, f"seeds={list(range(runs))}", *where, *more]
    words = [word for override in overrides for word in ("--set", override)]
    program = Path(sys.executable).with_name("dashpipe")
    started, sizes = time.monotonic(), []
    with (store.parent / "out").open("w") as out:
        command = subprocess.Popen(
            [program, "compare", "--store", str(store), *words], cwd=ROOT, stdout=out, stderr=subprocess.STDOUT
        )
        driver = psutil.Process(command.pid)
        while command.poll() is None:
            done = sum(1 for _ in store.glob("runs/*/result.json"))
            with contextlib.suppress(psutil.NoSuchProcess):
                sizes.append((done, driver.memory_info().rss / 2**20))
            time.sleep(LOOK_SECONDS)
    if command.returncode:
        raise SystemExit((store.parent / "out").read_text())
    seconds = time.monotonic() - started
    params = load_params(ROOT / "params.yaml", overrides=overrides)
    records = [record for run in params.runs() for record in read_records(store / "runs" / run.id)]
    training = sum(cost.seconds for record in records for cost in record.cost.values())
    return {
        "executor": executor,
        "runs": runs,
        "workers": workers,
        "seconds": round(seconds, 1),
        "seconds of training": round(training, 1),
        "seconds a run beside training, on a worker": round((seconds * workers - training) / runs, 3),
        "driver MiB by complete runs": {
            done: _memory_at(sizes, done) for done in range(min(RUNS_BETWEEN_SIZES, runs), runs + 1, RUNS_BETWEEN_SIZES)
        },
    }


def _memory_at(sizes: list[tuple[int, float]], done: int) -> float | None:
    return next((round(size, 1) for count, size in sizes if count >= done), None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--executor", default="local", choices=["local", "ray", "slurm"])
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--set", action="append", default=[], dest="more", metavar="KEY=VALUE")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        measured = measure(given.executor, given.runs, given.workers, given.more, Path(folder) / "store")
    print(json.dumps(measured, indent=2))


if __name__ == "__main__":
    main()
