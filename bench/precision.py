"""Whether speed changes the science: `uv run python -m bench.precision --data-root FOLDER` (half an hour on two cores).

Cold, warm, S&P and DASH on a subset of CIFAR-10 with cnn3, each seed once in fp32 and once in bf16, or with
`--of filtering` in fp32 by torch's convolutions and by minimal filtering; with the same chunks, first weights and
batches. The result is the difference of the two, paired by seed, in accuracy and steps. Runs are kept in a folder:
after a stop the same command continues.
"""

import argparse
import multiprocessing
from pathlib import Path

from bench.convolution_ways import take
from bench.sections import table, write_section
from dash_core.comparison import Params
from dash_core.config import DatasetConfig, RunConfig, merge, parse
from dash_core.data import ChunkPlan, load_dataset
from dash_core.device import choose_device, describe_machine, prepare_device
from dash_core.records import ChunkRecord, read_records
from dash_core.result import read_result
from dash_core.trajectory import Trajectory
from dash_core.views.statistics import paired_differences
from dash_core.views.summary import MethodRuns
from tasks.store.code import code_digest
from tests import toy

METHODS = ("cold", "warm", "shrink_perturb", "dash")
COLUMNS = ("last_accuracy", "average_accuracy", "last_steps", "average_steps")
TEST = 1000  # images
STOP = 0.95  # train accuracy
CHUNKS, BATCH = 3, 32
PAIRS = {  # the two kinds of run that are compared, the plain one first, with their names in the table
    "bf16": {"exact": "fp32", "bf16": "bf16"},
    "filtering": {"torch": "torch's convolutions", "exact": "filtering"},
}


def records(job: tuple[str, RunConfig, Path, Path]) -> list[ChunkRecord]:
    """Return the records of one run: (kind, config, folder of the data, folder of the kept runs)."""
    kind, run, root, kept = job
    folder = kept / kind / run.id
    if read_result(folder, run, code=code_digest()):
        return read_records(folder)
    take("torch" if kind == "torch" else "ours")
    prepare_device(choose_device("cpu"), 1)
    data = load_dataset(run.dataset, data_root=root, cache=kept / ".cache")
    plan = ChunkPlan.split(data.train, run.dataset, run.chunks, run.seed)
    folder.mkdir(parents=True, exist_ok=True)
    return toy.advance(Trajectory(run, data, plan, folder, device=toy.CPU, code=code_digest())).records


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", type=Path, required=True, help="folder of CIFAR-10 as torchvision has it")
    parser.add_argument("--of", choices=list(PAIRS), default="bf16", help="compared option (default: bf16)")
    parser.add_argument("--images", type=int, default=240, help="of the training set (default: 240)")
    parser.add_argument("--seeds", type=int, default=5, help="(default: 5)")
    parser.add_argument("--runs", type=Path, default=Path("bench/.runs"), help="where runs are kept")
    given = parser.parse_args()

    base = {
        "dataset": {"name": "cifar10", "train_size": given.images, "test_size": TEST},
        "chunks": CHUNKS,
        "model": {"name": "cnn3"},
        "training": {"batch_size": BATCH, "stop_accuracy": STOP},
    }
    kinds = {
        kind: parse(Params, merge(base, {"training": {"precision": "bf16" if kind == "bf16" else "exact"}}))
        for kind in PAIRS[given.of]
    }
    load_dataset(DatasetConfig(name="cifar10"), data_root=given.data_root, cache=given.runs / ".cache")
    jobs = [(kind, m, s) for s in range(given.seeds) for m in METHODS for kind in kinds]
    with multiprocessing.get_context("forkserver").Pool(2) as pool:
        runs = [(kind, kinds[kind].run(m, s), given.data_root, given.runs) for kind, m, s in jobs]
        found = dict(zip(jobs, pool.map(records, runs, chunksize=1), strict=True))
    names, rows, held = PAIRS[given.of], [], []
    for method in METHODS:
        by_kind = [
            MethodRuns(names[kind], method, {s: found[kind, method, s] for s in range(given.seeds)}) for kind in kinds
        ]
        differences = {d.column.key: d for d in paired_differences(by_kind, by_kind[0])}
        held += [differences[key].low <= 0 <= differences[key].high for key in COLUMNS]
        rows.append([method, *(differences[key].write() for key in COLUMNS)])
    options = f"--of {given.of} --images {given.images} --seeds {given.seeds} --data-root FOLDER"
    plain, fast = names.values()
    lines = [
        f"{fast} − {plain}, mean and 95 % interval, paired by seed: {given.seeds} seeds, cnn3 on {given.images} images "
        f"of CIFAR-10 in {CHUNKS} chunks, batch {BATCH}, to {STOP:.0%} train accuracy; {TEST:,} test images.",
        "",
        *table(["method", "last accuracy", "average accuracy", "last steps", "average steps"], rows),
        "",
        f"{sum(held)} of {len(held)} intervals contain 0; at 95 % about one in twenty does not, by chance.",
    ]
    machine = describe_machine(toy.CPU, 1)
    write_section(f"Precision: {fast} against {plain}", f"uv run python -m bench.precision {options}", machine, lines)


if __name__ == "__main__":
    main()
