"""The commands compare and run: what is printed where there is no table, and how often the data are opened."""

import contextlib
import subprocess
import sys

import pytest

from flows import compare as flow
from flows.command_line import compare
from flows.command_line.options import SharedOptions
from flows.command_line.output import output_console
from flows.command_line.session import Session
from flows.compare import ComparisonFailed
from flows.services.executor import WorkerDied
from tasks.store.place import Crew, Place
from tasks.store.progress import read_progress
from tests import toy
from tests.system.shell import ROOT, TINY, dashpipe

COUNTED = """
import sys
from flows.command_line.main import main
from dash_core import data

def counted(*given, real=data.load_dataset, **more):
    print("opened")
    return real(*given, **more)

data.load_dataset = counted
main()
"""


def test_a_comparison_that_fails_without_a_table_says_why(tmp_path, monkeypatch, capsys):
    def fail(*given):
        raise ComparisonFailed("2 of 2 runs are no longer there")

    monkeypatch.setattr(flow, "compare_methods", fail)
    monkeypatch.setattr(compare, "watched_services", lambda *given: contextlib.nullcontext())
    monkeypatch.setattr(compare, "fork_early", lambda *given: None)
    options = SharedOptions(ROOT / "params.yaml", overrides=[*TINY], store=tmp_path)
    with pytest.raises(ComparisonFailed, match="2 of 2 runs are no longer there"):
        compare.compare_and_print(options, Session(options.place, output_console(), None), again=False)
    assert capsys.readouterr().out == ""


class DyingPool:
    """An executor whose worker dies in the middle of a run, or after its last word."""

    def __init__(self, train) -> None:
        self._train = train

    def __enter__(self):
        return self

    def __exit__(self, *details) -> None:
        pass

    def call(self, function, run, place, context) -> None:
        self._train(run, place)
        raise WorkerDied("the process of this run died")


@pytest.mark.parametrize("experiments", [1, None], ids=["in the middle", "after its result was written"])
def test_a_worker_that_dies_after_its_last_word_costs_no_run(tmp_path, monkeypatch, experiments):
    run, place = toy.params().run("warm", 0), Place(store=tmp_path, data_root=tmp_path)

    def train(run, place):
        toy.advance(toy.trajectory(place.run_folder(run), run, toy.dataset()), experiments)

    monkeypatch.setattr(flow, "open_executor", lambda *given: DyingPool(train))
    monkeypatch.setattr(flow, "serialize_context", dict)
    failures = flow.train_runs([run], place, Crew(1, 1))
    assert failures == ({run.id: "the process of this run died"} if experiments else {})
    assert read_progress(place.run_folder(run)).state == ("failed" if experiments else "done")


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(["compare"], id="compare", marks=pytest.mark.slow),
        pytest.param(["run", "--method", "dash"], id="run"),
    ],
)
def test_a_command_opens_the_data_once(tmp_path, command):
    overrides = [word for setting in TINY for word in ("--set", setting)]
    words = [sys.executable, "-c", COUNTED, *command, "--store", str(tmp_path), *overrides]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines().count("opened") == 1


@pytest.mark.parametrize("stage", ["prepare", "split"])
def test_a_stage_that_trains_nothing_reads_no_setting_of_prefect(tmp_path, stage):
    """Prefect refuses this value when it is imported."""
    ended = dashpipe(tmp_path, stage, settings=TINY, PREFECT_CLIENT_MAX_RETRIES="abc")
    assert (ended.code, ended.err) == (0, "")
