"""All benchmarks, one after another, into bench/RESULTS.md: `uv run python -m bench --data-root FOLDER` (two hours).

Each is a command of its own as well. `bench.precision` and `bench.golden_curves`, which train whole runs, are left out.
"""

import argparse
import subprocess
import sys
from pathlib import Path

ALL = ("training_step", "convolutions", "dash_pass", "scaling", "checkpoints", "decoding", "inbox", "startup")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data-root",
        type=Path,
        help="folder of CIFAR-10; without it rounding, comparison and overheads are left out",
    )
    given = parser.parse_args()
    commands = [[name] for name in ALL]
    if given.data_root:
        commands += [[name, "--data-root", str(given.data_root)] for name in ("rounding", "comparison", "overheads")]
    for name, *options in commands:
        subprocess.run([sys.executable, "-m", f"bench.{name}", *options], check=True)


if __name__ == "__main__":
    main()
