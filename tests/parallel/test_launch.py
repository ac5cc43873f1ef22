"""The processes of one run: which GPUs they get, how they are started and asked to stop, and what ends them."""

import signal

import psutil
import pytest
import torch

from dash_core.comparison import CompareConfig
from dash_core.device import visible_gpus
from dash_core.errors import ConfigError, StopRequested, TrainingError
from flows import experiment, rank
from flows.command_line.settings import load_params
from flows.experiment import RunFailed
from flows.services import ranks
from flows.services.executor import WorkerDied
from tasks.store.place import Crew, check_gpus_per_run, place_of
from tasks.store.progress import read_progress
from tests import toy
from tests.system import shell

RUN = ("run", "--method", "dash")
ENDLESS = (shell.MODEL, "chunks=2", "seeds=[0]", "dataset.train_size=400", "training.stop_accuracy=null")
SETTINGS = (*ENDLESS, "training.max_epochs=40", "training.precision=exact", "compare.device=cpu")
TOGETHER = (*SETTINGS, "compare.gpus_per_run=2")


@pytest.fixture
def five_gpus(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,1,0,2,7")


def test_each_run_gets_gpus_of_its_own_and_those_left_over_stay_idle(five_gpus):
    assert visible_gpus("auto") == ["3", "1", "0", "2", "7"]
    assert visible_gpus("auto", 2) == ["3,1", "0,2"]
    assert visible_gpus("auto", 5) == ["3,1,0,2,7"]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (
            {"gpus_per_run": 6},
            r"6 is more than the 5 GPU\(s\) .* set compare\.gpus_per_run to 5, or compare\.device=cpu",
        ),
        ({"gpus_per_run": 2, "device": "cuda:1"}, r"compare\.device=cuda:1 is one GPU; set compare\.device=auto"),
    ],
)
def test_gpus_that_are_not_here_are_refused(five_gpus, settings, words):
    with pytest.raises(ConfigError, match=words):
        check_gpus_per_run(CompareConfig(**settings))
    check_gpus_per_run(CompareConfig(gpus_per_run=5))
    check_gpus_per_run(CompareConfig(gpus_per_run=6, device="cpu"))


def test_the_cores_are_shared_by_the_processes_of_all_runs(monkeypatch):
    monkeypatch.setattr("tasks.store.place.usable_cores", lambda: 9)
    settings = {"device": "cpu", "gpus_per_run": 2, "threads": 2}
    assert Crew.of(toy.params(compare=settings), 10).workers == 2


def test_the_number_of_processes_is_no_part_of_a_runs_identity():
    one, two = (load_params(shell.ROOT / "params.yaml", overrides=settings) for settings in (SETTINGS, TOGETHER))
    assert [run.id for run in one.runs()] == [run.id for run in two.runs()]


def test_what_cannot_be_divided_is_refused_with_the_parameters():
    with pytest.raises(ConfigError, match=r"training\.compile"):
        load_params(shell.ROOT / "params.yaml", overrides=(*TOGETHER, "training.compile=true"))


def test_an_error_meant_for_people_comes_before_what_it_led_to(tmp_path):
    ranks.leave_outcome(tmp_path, 0, ranks.RankFailed("connection closed by peer"))
    ranks.leave_outcome(tmp_path, 1, TrainingError("out of memory"))
    with pytest.raises(TrainingError, match="out of memory"):
        ranks._raise_outcome(tmp_path, 2)


def test_what_every_rank_says_is_said_and_all_tracebacks_are_kept_beside_the_run(tmp_path, monkeypatch):
    params = toy.params(compare={"device": "cpu", "gpus_per_run": 2})
    place, run = place_of(params, tmp_path / "store", None), params.run("warm", 0)
    folder = place.run_folder(run)
    folder.mkdir(parents=True)
    (folder / "error.txt").write_text("Traceback: the cause")  # as rank 0 leaves it

    def end(job, size, threads):
        (tmp_path / "ranks").mkdir()
        cause = rank._meant(RunFailed(f"KeyError: 'a' (the traceback is in {folder / 'error.txt'})"), 0, 2, folder)
        ranks.leave_outcome(tmp_path / "ranks", 0, cause)
        ranks.leave_outcome(tmp_path / "ranks", 1, rank._meant(RuntimeError("closed by peer"), 1, 2, folder))
        ranks._raise_outcome(tmp_path / "ranks", size)

    monkeypatch.setattr(experiment, "run_ranks", end)
    with pytest.raises(ranks.RankFailed) as caught:
        experiment._train_in_ranks(run, place.model_copy(update={"orchestrated": False}), wait=True)
    where = f"(the traceback is in {folder / 'error.txt'})"
    assert str(caught.value) == f"rank 0 of 2: KeyError: 'a' {where}; rank 1 of 2: RuntimeError: closed by peer"
    kept = (folder / "error.txt").read_text()
    assert kept.startswith("Traceback: the cause\n")
    assert "RuntimeError: closed by peer" in kept
    assert read_progress(folder).state == "failed"


def test_a_rank_that_left_no_word_is_named(tmp_path):
    ranks.leave_outcome(tmp_path, 0, ranks.RankFailed("connection closed by peer"))
    with pytest.raises(WorkerDied, match=r"rank 1 of the 2 processes of this run died .* the same command continues"):
        ranks._raise_outcome(tmp_path, 2)


def test_ranks_that_all_ended_well_raise_nothing_and_a_stop_is_a_stop(tmp_path):
    for number in range(2):
        ranks.leave_outcome(tmp_path, number, None)
    ranks._raise_outcome(tmp_path, 2)
    with pytest.raises(StopRequested):
        ranks._raise_outcome(tmp_path, 3, asked=True)  # the third still imported when they were asked to stop
    ranks.leave_outcome(tmp_path, 1, StopRequested("asked to stop"))
    with pytest.raises(StopRequested):
        ranks._raise_outcome(tmp_path, 2)


def in_mid_chunk(store) -> bool:
    return any(run.epoch >= 2 and run.state == "training" for run in map(read_progress, store.glob("runs/*")))


def processes(running: shell.Running) -> list[psutil.Process]:
    """Return the processes of its ranks, by rank."""
    running.look()
    alive = [child for child in running.family.values() if child.is_running() and "flows.rank" in child.cmdline()]
    return sorted((child for child in alive if "torch.distributed.run" not in child.cmdline()), key=rank_of)


def rank_of(process: psutil.Process) -> int:
    return int(process.environ()["RANK"])


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_command_asked_to_stop_saves_the_state_and_one_process_goes_on(tmp_path, number):
    running = shell.start(tmp_path / "store", *RUN, settings=TOGETHER)
    assert running.until(lambda: in_mid_chunk(running.store)), running.outputs[1].read_text()
    running.process.send_signal(number)
    stopped = running.end(120)
    assert stopped.code == 128 + number, stopped.err
    assert "asked to stop" in stopped.err
    assert shell.within(30, lambda: not shell.processes_of(running.store))
    again = shell.dashpipe(running.store, *RUN, settings=SETTINGS)
    assert again.code == 0, again.err
    assert shell.records(running.store, SETTINGS)["dash 0"][0].process_seconds is not None


@pytest.mark.slow
def test_one_rank_asked_to_stop_stops_all_with_a_saved_state(tmp_path):
    running = shell.start(tmp_path / "store", *RUN, settings=TOGETHER)
    assert running.until(lambda: in_mid_chunk(running.store)), running.outputs[1].read_text()
    processes(running)[1].send_signal(signal.SIGTERM)
    stopped = running.end(120)
    assert "asked to stop" in stopped.err
    assert (next(running.store.glob("runs/*")) / "state.ckpt").exists()


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_that_is_killed_ends_the_run_which_continues_from_its_saved_state(tmp_path, rank):
    settings = (*TOGETHER, "compare.checkpoint_seconds=0.2")
    running = shell.start(tmp_path / "store", *RUN, settings=settings)
    saved = lambda: in_mid_chunk(running.store) and any(running.store.glob("runs/*/state.ckpt"))
    assert running.until(saved), running.outputs[1].read_text()
    processes(running)[rank].kill()
    ended = running.end(300)
    assert ended.code == 1
    assert f"rank {rank} of the 2 processes of this run died without a word" in ended.err
    assert not running.survivors()
    again = shell.dashpipe(running.store, *RUN, settings=settings)
    assert again.code == 0, again.err
