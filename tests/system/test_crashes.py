"""Runs on the real digits, killed with SIGKILL at random moments: they end as if nothing had happened, bit for bit."""

import multiprocessing
import random
import signal
from pathlib import Path

import pytest

from dash_core.comparison import Params
from dash_core.config import parse
from dash_core.interventions import INTERVENTIONS
from dash_core.records import read_records
from dash_core.result import WEIGHTS_FILE
from tests import crashing

BASE = {"chunks": 3, "dataset": {"train_size": 240}, "training": {"batch_size": 32, "max_epochs": 15}}
SAM = {"optimizer": {"name": "sam", "lr": 0.01}}
PROTOCOLS = [
    {"chunks": 2, "protocol": {"name": "two_phase", "pretrain_epochs": 5, "epochs": 15}},
    {"protocol": {"name": "discarding", "interval": 1}},
    {"protocol": {"name": "continuous", "interval": 1, "final_epochs": 30}},
    {"chunks": 10, "protocol": {"name": "class_incremental"}},
]
SOTA = {"training": {"recipe": "sota", "batch_size": 32, "max_epochs": 12}, "model": {"name": "mlp"}}
CASES = [
    *((method, {}) for method in INTERVENTIONS),
    ("dash", SAM),
    ("shrink_perturb", SAM),
    ("dash", SOTA),
    ("warm", SOTA),
    *(("dash", protocol) for protocol in PROTOCOLS),
]
KILLS = 4  # a case: 72 in all
LONGEST = 0.6  # seconds that an attempt may live after it has saved its state, or after it was started


def _context():
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.crashing"])
    return context


def attempt(run, folder: Path, moments: random.Random | None) -> bool:
    """Carry the run out in a process of its own, killed at a random moment if one is drawn; tell whether it was."""
    process = _context().Process(target=crashing.train_run, args=(run, folder))
    before = _saved(folder)
    process.start()
    if moments and moments.random() < 0.8:  # else it is killed wherever it is, perhaps before it has begun
        while process.is_alive() and _saved(folder) == before:
            process.join(0.005)
    process.join(moments and moments.uniform(0, LONGEST))  # without a limit where it is not to be killed
    process.kill()  # it may have ended in this very moment
    process.join()
    assert process.exitcode in (0, -signal.SIGKILL)
    return process.exitcode != 0


def _saved(folder: Path) -> int:
    """Tell one saved state from another."""
    try:
        return (folder / "state.ckpt").stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def outcome(folder: Path) -> tuple[bytes, list[dict]]:
    return (folder / WEIGHTS_FILE).read_bytes(), [record.result() for record in read_records(folder)]


def survives(tmp_path: Path, method: str, changes: dict, kills: int) -> None:
    run = parse(Params, {**BASE, **changes}).run(method, 0)
    attempt(run, tmp_path / "undisturbed", None)
    moments = random.Random(f"{method} {changes}")
    done = 0
    for number in range(100):
        folder = tmp_path / f"killed {number}"
        while done < kills and attempt(run, folder, moments):
            done += 1
        attempt(run, folder, None)  # the rest; nothing where it had ended
        assert outcome(folder) == outcome(tmp_path / "undisturbed"), f"after {done} kills"
        if done == kills:
            return
    raise AssertionError(f"only {done} of {kills} kills met a run")


def test_a_run_killed_at_random_moments_ends_bit_for_bit_as_if_it_had_not_been(tmp_path):
    survives(tmp_path, "dash", {}, kills=3)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "changes"), CASES, ids=lambda part: part if isinstance(part, str) else "-".join(part)
)
def test_every_method_survives_kills(tmp_path, method, changes):
    survives(tmp_path, method, changes, KILLS)
