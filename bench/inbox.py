"""An inbox of many files against `sha256sum`, and a pass over nothing new: `uv run python -m bench.inbox` (minutes).

PNGs of 32x32 pixels are made in a temporary folder. In turns on the same files, all in the page cache: `sha256sum`;
the listing of the delivery; the listing with the hash of each file; and all that receiving does with the files, with
decoding and the hash of the pixels. The files that are opened when the inbox is looked at again are counted. The pass
over nothing new is the command `dashpipe stream arrive` in a process of its own.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from bench.sections import write_section
from dash_core.comparison import Params
from dash_core.config import parse
from dash_core.device import describe_machine, usable_cores
from dash_core.stream.identities import file_id
from tasks.store.stream.creating import contract_for
from tasks.store.stream.inbox import Seen, delivery
from tasks.store.stream.receiving import _read_all

SIDE, CLASSES = 32, 10
SETTINGS = ("model.name=cnn3_small", "model.width=null", "training.max_epochs=1")


def make_files(folder: Path, count: int) -> None:
    """Write so many different PNGs, in folders of ten classes."""
    random = np.random.default_rng(0)
    for label in range(CLASSES):
        (folder / f"class {label}").mkdir(parents=True)
    for number in range(count):
        pixels = random.integers(0, 255, (SIDE, SIDE), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"class {number % CLASSES}" / f"{number:06d}.png", compress_level=0)


def seconds(action: Callable[[], object]) -> float:
    """Return how long a call takes."""
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def sha256sum(folder: Path) -> None:
    """Hash every file below a folder as a person would."""
    command = f"find '{folder}' -type f -print0 | xargs -0 sha256sum > /dev/null"
    subprocess.run(["sh", "-c", command], check=True)


def hash_files(folder: Path) -> None:
    """List a delivery, and hash each of its files, one after the other: threads cost more than such small files."""
    for item in delivery(folder, (), 0.0).items:
        with open(os.path.join(folder, item.file), "rb", buffering=0) as file:
            file_id(file.read())


def opened_again(folder: Path, cache: Path) -> int:
    """Return how many files of a delivery that was received are opened when the inbox is looked at again."""
    opened = []
    Seen(cache).add(delivery(folder, (), 0.0))
    sys.addaudithook(lambda event, words: opened.append(words[0]) if event == "open" else None)
    assert delivery(folder, (), 0.0) in Seen(cache)
    return sum(str(path).startswith(str(folder)) for path in opened)


def idle_pass(store: Path, turns: int) -> float:
    """Return the median seconds of a pass over nothing new."""
    overrides = [word for setting in SETTINGS for word in ("--set", setting)]
    program = Path(sys.executable).with_name("dashpipe")
    command = [str(program), "stream"]
    made = [*command, "create", "demo", "--from", "digits", "--store", str(store), *overrides]
    subprocess.run(made, check=True, stdout=subprocess.DEVNULL)
    idle = [*command, "arrive", "demo", "--store", str(store)]
    return statistics.median(
        seconds(lambda: subprocess.run(idle, check=True, stdout=subprocess.DEVNULL)) for _ in range(turns)
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=100_000, help="in the inbox (default: 100,000)")
    parser.add_argument("--turns", type=int, default=5, help="of each way (default: 5)")
    given = parser.parse_args()

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "inbox" / "delivery"
        make_files(folder, given.files)
        found = delivery(folder, (), 0.0)
        settings = parse(Params, {})
        contract = contract_for(found, settings, "dash", {"salt": "salt"}, {})
        ways = {
            "sha256sum": lambda: sha256sum(folder),
            "listing": lambda: delivery(folder, (), 0.0),
            "hashing": lambda: hash_files(folder),
            "reading": lambda: _read_all(found, contract, Path(name) / "scratch"),
        }
        taken: dict[str, list[float]] = {way: [] for way in ways}
        for _ in range(given.turns):
            for way, action in ways.items():
                taken[way].append(seconds(action))
        again = opened_again(folder, Path(name))
        idle = idle_pass(Path(name) / "store", given.turns)
    medians = {way: statistics.median(times) for way, times in taken.items()}
    against = medians["sha256sum"]
    lines = [
        f"{given.files:,} files: `sha256sum` {against:.2f} s",
        f"- listing {medians['listing']:.2f} s, × {medians['listing'] / against:.2f}",
        f"- listing and hashing {medians['hashing']:.2f} s, × {medians['hashing'] / against:.2f}",
        f"- with decoding and the hash of the pixels {medians['reading']:.2f} s, × {medians['reading'] / against:.2f}",
        f"- opened when the inbox is looked at again: {again} files",
        f"- a pass over nothing new: {idle:.2f} s (load {os.getloadavg()[0]:.1f} on {usable_cores()} cores)",
    ]
    machine = describe_machine(torch.device("cpu"), usable_cores())
    write_section("An inbox", f"uv run python -m bench.inbox --files {given.files}", machine, lines)


if __name__ == "__main__":
    main()
