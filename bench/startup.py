"""Seconds from a command to its first training step: `uv run python -m bench.startup` (some minutes).

`dashpipe --help` to its end; `run` and `compare` on the digits to the first training step, in a new store, its data
decoded and its databases made on the way, and in one that was used before. The first record tells the moment of that
step: its end less its cost.
"""

import argparse
import shutil
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

from bench.comparison import DASHPIPE
from bench.sections import table, write_section
from dash_core.device import choose_device, describe_machine
from dash_core.records import read_records

SHORT = ("chunks=2", "training.max_epochs=1", "seeds=[0]", "compare.methods=[cold, dash]")
OPTIONS = [word for setting in SHORT for word in ("--set", setting)]
COMMANDS = {
    "dashpipe --help": ["--help"],
    "dashpipe run": ["run", "--method", "dash", *OPTIONS],
    "dashpipe compare": ["compare", *OPTIONS],
}
TIMES = 5


def seconds(words: list[str]) -> tuple[float, float]:
    """Return the seconds from a command's start to its first training step, in a new store and in the same again.

    To its end where it trains nothing.
    """
    with tempfile.TemporaryDirectory() as store:
        place = [] if words == ["--help"] else ["--store", store]
        return _seconds(words + place, Path(store)), _seconds(words + place, Path(store))


def _seconds(words: list[str], store: Path) -> float:
    started, before = time.time(), time.perf_counter()
    subprocess.run([DASHPIPE, *words], check=True, stdout=subprocess.DEVNULL)
    taken = time.perf_counter() - before
    begun = min(map(first_step, store.glob("runs/*")), default=started + taken) - started
    for earlier in ("runs", ".dashpipe/beginnings"):  # which the next command would take up
        shutil.rmtree(store / earlier, ignore_errors=True)
    return begun


def first_step(folder: Path) -> float:
    """Return when a run's first training step began, seconds since the epoch."""
    first = read_records(folder)[0]
    return first.finished_at / 1000 - sum(cost.seconds for cost in first.cost.values())


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    rows = []
    for name, words in COMMANDS.items():
        seconds(words)  # files are read from the disk for the first time
        new, used = (sorted(taken) for taken in zip(*(seconds(words) for _ in range(TIMES)), strict=True))
        rows.append([f"`{name}`", *(f"{statistics.median(t):.1f} ({t[0]:.1f} to {t[-1]:.1f})" for t in (new, used))])
    lines = [f"Seconds to the first training step, median and range of {TIMES}.", ""]
    lines += table(["command", "in a new store", "in one used before"], rows)
    write_section("Start-up", "uv run python -m bench.startup", describe_machine(choose_device("auto"), 1), lines)


if __name__ == "__main__":
    main()
