"""What needs no cluster: refusals, the rule of resubmission, and that nothing of the engines is on the default path."""

import importlib.util
import subprocess
import sys
from dataclasses import replace

import pytest

from dash_core.config import RunConfig
from dash_core.errors import ConfigError, StopRequested
from flows import compare as flow
from flows.command_line.options import SharedOptions
from flows.services import clusters
from flows.services.clusters import check_installed, open_cluster
from flows.services.clusters.cluster import Cluster
from flows.services.clusters.node import Answer
from flows.services.clusters.remote import Outcome
from flows.services.executor import WorkerDied
from tasks.store.attempts import Attempt
from tasks.store.place import Crew, Place, place_of
from tests import toy
from tests.executors.conftest import needs
from tests.system.shell import ROOT, TINY

ANSWER = Answer("node-1", "", True, "", {}, "cpu", "one processor", False, False)


@pytest.fixture
def place(tmp_path) -> Place:
    return Place(store=tmp_path, data_root=tmp_path, executor="ray", orchestrated=False)


class Engine(Cluster):
    """A cluster of given answers, whose processes are lost as a test says."""

    given: tuple[Answer, ...] = ()
    work = staticmethod(lambda: Outcome())

    def _connect(self):
        self.gpus, self.slots = 0.0, 3

    def _disconnect(self):
        self.left = True

    def _survey(self, question):
        own = {"token": question.token, "code": question.code, "versions": question.versions}
        return [replace(answer, **own) for answer in self.given]

    def _do(self, call, arguments):
        return self.work()

    def _stop(self):
        pass


@pytest.fixture
def engine(place) -> Engine:
    return Engine(place, Crew(2, 1))


@pytest.mark.parametrize(("executor", "package"), [("ray", "ray"), ("slurm", "submitit")])
def test_an_executor_whose_extra_is_missing_is_refused_before_anything_starts(monkeypatch, tmp_path, executor, package):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    options = SharedOptions(ROOT / "params.yaml", overrides=[*TINY, f"compare.executor={executor}"], store=tmp_path)
    with pytest.raises(ConfigError, match=rf"needs the package {package}, .*`uv sync --extra {executor}`"):
        options.place  # noqa: B018
    assert list(tmp_path.iterdir()) == []
    check_installed("local")


def test_settings_of_the_cluster_belong_to_no_run_and_are_checked():
    plain = toy.params().run("warm", 0)
    given = {"executor": "slurm", "cluster": {"gpus": 0.5, "partition": "a,b", "time": 60, "memory_gib": 8}}
    assert toy.params(compare=given).run("warm", 0).digest == plain.digest
    assert "cluster" not in RunConfig.model_fields
    for wrong in ({"gpus": -1}, {"partition": "x; rm -rf /"}, {"time": 0}, {"address": ""}, {"nodes": 2}):
        with pytest.raises(ConfigError, match=r"compare\.cluster"):
            toy.params(compare={"cluster": wrong})
    assert Crew.of(toy.params(compare={"executor": "ray"}), 50) == Crew(50, 1)
    assert Crew.of(toy.params(compare={"executor": "ray", "workers": 8}), 50) == Crew(8, 1)


def test_a_cluster_s_device_and_precision_are_resolved_once_and_differing_machines_are_named(engine, place, capsys):
    other = replace(ANSWER, device_name="another", bf16=True)
    Engine.given = (ANSWER, other, other)
    with engine:
        fitted = engine.fit(place)
    assert (fitted.device, fitted.bf16, fitted.orchestrated, fitted.workers) == ("cpu", False, False, 2)
    assert "the machines differ: another (2), one processor (1)" in capsys.readouterr().err
    Engine.given = (other, other)
    with engine:
        assert engine.fit(place).bf16 is True
    assert capsys.readouterr().err == ""


def test_machines_that_do_not_reach_the_prefect_server_are_named(engine, place, monkeypatch, capsys):
    reaching = replace(ANSWER, api_answers=True)
    monkeypatch.setenv("PREFECT_API_URL", "http://prefect.example.org:4200/api")
    Engine.given = (reaching, replace(ANSWER, host="node-2"), replace(ANSWER, host="node-2"))
    with engine:
        assert engine.fit(place).orchestrated is False
    assert "warning: node-2 cannot reach your Prefect server" in capsys.readouterr().err
    Engine.given = (reaching, reaching)
    with engine:
        assert engine.fit(place).orchestrated is True
    assert capsys.readouterr().err == ""


def test_a_machine_that_cannot_train_ends_the_command_before_a_call(engine):
    Engine.given = (ANSWER, replace(ANSWER, host="node-2", excluded=False))
    with pytest.raises(ConfigError, match="keep node-2 out"), engine:
        pass
    assert engine.left


@pytest.mark.parametrize(
    ("device", "words"),
    [
        ("cuda", r"compare\.device: cuda, and compare\.cluster\.gpus gives a run none"),
        ("cuda:1", r"compare\.device: cuda:1 names a GPU of one machine, .* set compare\.device=cuda"),
    ],
)
def test_a_gpu_that_no_run_is_given_is_refused(place, device, words):
    engine = Engine(place.model_copy(update={"device": device}), Crew(1, 1))
    with pytest.raises(ConfigError, match=words), engine:
        pass


class Losing:
    """An executor that loses a run's process each time, after so many saved steps."""

    def __init__(self, *saved: int) -> None:
        self.saved, self.calls, self.now = list(saved), 0, 0

    def call(self, function, run, place, context) -> None:
        self.calls += 1
        Attempt.begin(place.run_folder(run))
        if not self.saved:
            return
        self.now = self.saved.pop(0)
        raise WorkerDied("its process was lost")


@pytest.mark.parametrize(
    ("saved", "calls", "fails"),
    [([5, 10, 15], 4, False), ([0, 0], 2, True), ([5, 5, 5], 3, True), ([0, 5, 5, 9], 5, False)],
)
def test_a_lost_run_is_submitted_again_while_it_makes_progress(place, monkeypatch, capsys, saved, calls, fails):
    run, losing = toy.params().run("warm", 0), Losing(*saved)
    monkeypatch.setattr(flow, "saved_steps", lambda folder: losing.now)
    if fails:
        with pytest.raises(WorkerDied, match=r"no state was saved in 2 attempts.*compare\.cluster\.memory_gib"):
            flow._train_again_when_lost(losing, run, place, b"")
    else:
        flow._train_again_when_lost(losing, run, place, b"")
    assert losing.calls == calls
    lines = capsys.readouterr().err.splitlines()
    steps = [line.rpartition("step ")[2] for line in lines if line.startswith(f"{run.id}: lost process")]
    assert steps == [str(step) for step in saved[: calls - 1]]


def test_a_lost_local_process_is_not_replaced(place):
    losing = Losing(5, 10)
    with pytest.raises(WorkerDied):
        flow._train_again_when_lost(
            losing, toy.params().run("warm", 0), place.model_copy(update={"executor": "local"}), b""
        )
    assert losing.calls == 1


@needs("submitit", "slurm")
def test_a_slurm_job_is_given_up_only_without_progress(tmp_path, monkeypatch):
    from flows.services.clusters import slurm_cluster

    saved = iter([0, 7, 7, 9, 9, 9])
    monkeypatch.setattr(slurm_cluster, "saved_steps", lambda folder: next(saved))
    job = slurm_cluster._Job(None, str(tmp_path))
    assert [job.checkpoint() is not None for _ in range(6)] == [True, True, True, True, True, False]


@needs("submitit", "slurm")
def test_a_job_that_was_told_to_save_is_queued_again_and_no_other(monkeypatch):
    import signal

    from flows.services.clusters import slurm_cluster

    stopped = Outcome(error=StopRequested("saved"))
    monkeypatch.setattr(slurm_cluster, "work", lambda call: stopped)
    requeued = []
    before = signal.signal(signal.SIGUSR2, lambda *given: requeued.append(given))
    try:
        for asked in (signal.SIGTERM, None, signal.SIGUSR2):
            monkeypatch.setattr(slurm_cluster.stopping, "_signal", asked)
            assert slurm_cluster._Job(None)() is stopped
            assert len(requeued) == (asked == signal.SIGUSR2)
    finally:
        signal.signal(signal.SIGUSR2, before)


@needs("submitit", "slurm")
@pytest.mark.parametrize(
    ("cluster", "words"),
    [
        ({"gpus": 0.25}, r"gpus: 0\.25, and Slurm gives a job whole GPUs"),
        ({"address": "10.0.0.5:6379"}, "means nothing to Slurm"),
        ({}, "sbatch and srun"),
    ],
)
def test_what_slurm_cannot_do_is_refused(tmp_path, monkeypatch, cluster, words):
    monkeypatch.setenv("PATH", str(tmp_path))
    place = place_of(toy.params(compare={"executor": "slurm", "cluster": cluster}), tmp_path, None)
    with pytest.raises(ConfigError, match=words), open_cluster(place, Crew(1, 1)):
        pass


@needs("ray", "ray")
def test_a_ray_client_address_is_refused(tmp_path):
    place = place_of(toy.params(compare={"executor": "ray", "cluster": {"address": "ray://h:1"}}), tmp_path, None)
    with pytest.raises(ConfigError, match="Ray Client address"), open_cluster(place, Crew(1, 1)):
        pass


DEFAULT_PATH = """
import sys
import flows.compare, flows.command_line.main, flows.services.clusters, flows.services.workers
print(sorted(name for name in sys.modules if name.partition(".")[0] in ("ray", "submitit")))
"""


def test_nothing_of_the_engines_is_imported_on_the_default_path():
    done = subprocess.run([sys.executable, "-c", DEFAULT_PATH], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.stdout == "[]\n", done.stderr
    assert clusters.is_installed("local")
