"""Calls through each engine, without a training: answers, errors, lost processes and ends, as from the local pool."""

import contextlib
import os
import signal
from concurrent.futures import ThreadPoolExecutor

import pytest

from dash_core.errors import ConfigError
from flows.services.clusters import open_cluster
from flows.services.executor import Ended, Stopped, WorkerDied
from tasks.store.place import Crew, place_of
from tests import jobs, toy
from tests.executors.conftest import needs
from tests.system.shell import ROOT, within

pytestmark = pytest.mark.filterwarnings("ignore")  # of the engines


def opened(tmp_path, **compare):
    place = place_of(toy.params(compare={"device": "cpu", **compare}), tmp_path / "store", None)
    return open_cluster(place, Crew(2, 1))


def assert_calls_work(executor) -> None:
    assert executor.call(jobs.whoami) != os.getpid()
    assert executor.call(jobs.threads)[0] == "1"
    with pytest.raises(ConfigError, match="refused: no"):
        executor.call(jobs.refuse, "no")
    with pytest.raises(WorkerDied):
        executor.call(jobs.die)
    assert executor.call(jobs.divide, 6, 3) == 2


def assert_ends(executor, mark) -> None:
    """End an executor while a call is under way: its process gets the signal, and no other call begins."""
    with ThreadPoolExecutor(1) as callers:
        call = callers.submit(executor.call, jobs.until_stopped, str(mark))
        assert within(120, lambda: mark.exists())
        with contextlib.suppress(KeyError), executor:
            raise KeyError
        with contextlib.suppress(Ended):
            call.result()
    assert within(60, lambda: mark.read_text() in ("SIGINT", "SIGTERM"))
    with pytest.raises(Stopped):
        executor.call(jobs.whoami)


@needs("ray", "ray")
def test_ray(cluster, tmp_path, capsys, monkeypatch):
    before = signal.getsignal(signal.SIGTERM)
    with opened(tmp_path, executor="ray", cluster={"address": cluster.address}) as executor:
        assert signal.getsignal(signal.SIGTERM) is before
        assert (executor.slots, executor.fit(executor.place).device) == (2, "cpu")
        assert executor.fit(executor.place).orchestrated is False
        assert_calls_work(executor)
    with opened(tmp_path, executor="ray", cluster={"address": cluster.address, "cpus": 64}) as executor:
        assert "no node of the Ray cluster has 64 CPU(s), 0 GPU(s) for a run now" in capsys.readouterr().err
    ending = opened(tmp_path, executor="ray", cluster={"address": cluster.address})
    ending.__enter__()
    assert_ends(_entered(ending), tmp_path / "mark")


@needs("submitit", "slurm")
def test_submitit(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    with opened(tmp_path, executor="slurm", cluster={"address": "local"}) as executor:
        assert_calls_work(executor)
    ending = opened(tmp_path, executor="slurm", cluster={"address": "local"})
    ending.__enter__()
    assert_ends(_entered(ending), tmp_path / "mark")


@needs("submitit", "slurm")
def test_a_job_of_a_command_that_is_gone_is_waited_for_by_the_next(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    settings = {"executor": "slurm", "cluster": {"address": "local", "preflight": False}}
    run, mark = toy.params().run("warm", 0), tmp_path / "mark"
    with ThreadPoolExecutor(1) as callers, opened(tmp_path, **settings) as first:
        callers.submit(first.call, jobs.pid_once_marked, run, first.place, str(mark))
        assert within(120, lambda: mark.exists())
        with opened(tmp_path, **settings) as second:
            waiting = ThreadPoolExecutor(1).submit(second.call, jobs.pid_once_marked, run, second.place, str(mark))
            printed = []
            assert within(60, lambda: printed.append(capsys.readouterr().err) or "is waited for" in "".join(printed))
            pid = int(mark.read_text())
            mark.write_text("go on")
            assert waiting.result() == pid
    assert not list((tmp_path / "store" / ".dashpipe" / "slurm" / "jobs").iterdir())


def _entered(executor):
    """Return an executor whose block has begun as one that begins with the block of the test."""
    executor.__class__ = type("Entered", (type(executor),), {"__enter__": lambda self: self})
    return executor
