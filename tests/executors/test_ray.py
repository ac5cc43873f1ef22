"""Runs on a Ray cluster of two raylets on loopback: the bits of the local pool, whatever is killed meanwhile."""

import contextlib
import json
import os
import signal

import psutil
import pytest

from tests.executors.conftest import SETTINGS, attempts, mid_run, needs
from tests.executors.raylets import LOOPBACK, raylets
from tests.system import shell

pytestmark = [needs("ray", "ray"), pytest.mark.slow]
RAY = (*SETTINGS, "compare.executor=ray")


def started(cluster, store, settings=RAY, **environment):
    return shell.start(store, "compare", settings=settings, RAY_ADDRESS=cluster.address, **LOOPBACK, **environment)


def assert_equals_local(ended, local, settings=RAY):
    assert ended.code == 0, ended.err
    assert shell.weights(ended.store, settings) == shell.weights(local.store, SETTINGS)
    assert shell.results(ended.store, settings) == shell.results(local.store, SETTINGS)


def assert_nothing_runs_in_prefect(store):
    for table in ("flow_run", "task_run"):
        states = {state for (state,) in shell.sql(store, f"select state_type from {table}")}
        assert states <= {"COMPLETED", "FAILED", "CRASHED"}, table


def test_four_runs_on_two_nodes_have_the_bits_and_the_output_of_the_local_pool(cluster, local, tmp_path):
    ended = started(cluster, tmp_path / "store").end()
    assert ended.err == ""
    assert_equals_local(ended, local)
    assert_nothing_runs_in_prefect(ended.store)
    runs = shell.mlflow_runs(ended.store, RAY)
    assert len(runs) == 5
    assert {run.info.status for run in runs.values()} == {"FINISHED"}
    last_lines = [line for line in ended.out.splitlines() if "complete" in line]
    assert len(last_lines) == 4
    assert not list(ended.store.glob("runs/*/attempt.json"))


def test_a_worker_that_is_killed_costs_its_run_nothing(cluster, local, tmp_path):
    store = tmp_path / "store"
    running = started(cluster, store)
    assert running.until(lambda: mid_run(store))
    victim = mid_run(store)[0]
    os.kill(attempts(store)[victim]["pid"], signal.SIGKILL)
    ended = running.end()
    assert_equals_local(ended, local)
    (line,) = [line for line in ended.err.splitlines() if line.startswith(victim)]
    assert "lost process" in line
    assert int(line.rpartition("step ")[2]) > 0
    assert_nothing_runs_in_prefect(store)
    assert len(shell.mlflow_runs(store, RAY)) == 5


def test_a_node_that_is_lost_costs_its_runs_nothing(local, tmp_path):
    store = tmp_path / "store"
    with raylets(shell.ROOT) as cluster:
        running = started(cluster, store)
        assert running.until(lambda: mid_run(store))
        pid = attempts(store)[mid_run(store)[0]]["pid"]
        cluster.remove_node(_node_of(cluster, pid), allow_graceful=False)
        ended = running.end()
    assert_equals_local(ended, local)
    assert "it goes on from step" in ended.err
    assert_nothing_runs_in_prefect(store)


def _node_of(cluster, worker: int):
    """Return the raylet that a worker process belongs to."""
    parents = {process.pid for process in psutil.Process(worker).parents()}
    for node in cluster.worker_nodes:
        if parents & {started.process.pid for started in node.all_processes["raylet"]}:
            return node
    raise AssertionError(f"{worker} belongs to no raylet")


def test_ctrl_c_saves_every_run_under_way_and_a_local_pool_goes_on_from_there(cluster, local, tmp_path):
    store = tmp_path / "store"
    running = started(cluster, store)
    assert running.until(lambda: len(attempts(store)) == 2 and mid_run(store))
    under_way = attempts(store)
    os.kill(running.process.pid, signal.SIGINT)
    ended = running.end()
    assert ended.code == 130, ended.err
    assert "the runs under way save their state" in ended.err
    assert "is lost" not in ended.err
    for run in under_way:
        folder = store / "runs" / run
        if not (folder / "result.json").exists():
            assert json.loads((folder / "progress.json").read_text())["state"] == "stopped"
            assert (folder / "state.ckpt").exists()
    assert shell.within(60, lambda: not any(psutil.pid_exists(attempt["pid"]) for attempt in under_way.values()))
    assert_equals_local(shell.dashpipe(store, "compare", settings=SETTINGS), local, SETTINGS)


def test_a_killed_command_ends_its_runs_and_the_same_command_goes_on(cluster, local, tmp_path):
    store = tmp_path / "store"
    running = started(cluster, store)
    assert running.until(lambda: mid_run(store))
    before = {run: attempt["number"] for run, attempt in attempts(store).items()}
    running.kill()
    seen = {}
    again = started(cluster, store)

    def note() -> bool:
        for run, attempt in attempts(store).items():
            seen.setdefault((run, attempt["number"]), attempt["pid"])
        return again.process.poll() is not None

    again.until(note)
    assert_equals_local(again.end(), local)
    assert all(seen.get((run, number + 1)) for run, number in before.items() if (run, number + 1) in seen)
    assert any(run in before and number > before[run] for run, number in seen)


def test_a_run_that_kills_its_process_each_time_fails_and_the_others_complete(cluster, tmp_path):
    """No state is saved before the process is killed, or only the one of another run that it begins with."""
    store = tmp_path / "store"
    settings = (*RAY, "compare.checkpoint_seconds=1000")
    doomed = shell.params(settings).run("dash", 1)
    running = started(cluster, store, settings)

    def kill() -> bool:
        attempt = attempts(store).get(doomed.id)
        if attempt and attempt["number"] not in killed:
            with contextlib.suppress(ProcessLookupError):
                os.kill(attempt["pid"], signal.SIGKILL)
                killed.append(attempt["number"])
        return running.process.poll() is not None

    killed: list[int] = []
    running.until(kill)
    ended = running.end()
    assert ended.code == 1
    assert killed in ([1, 2], [1, 2, 3])
    assert "1 of 4 runs failed" in ended.err
    assert "no state was saved in 2 attempts" in ended.err
    assert len(shell.weights(store, settings)) == 3
    assert json.loads((store / "runs" / doomed.id / "progress.json").read_text())["state"] == "failed"
    assert_nothing_runs_in_prefect(store)


def test_no_more_runs_share_a_gpu_than_its_fraction_allows(local, tmp_path):
    """The GPUs are counted by Ray and not there; the runs train on the CPU."""
    store = tmp_path / "store"
    settings = (*RAY, "compare.cluster.gpus=0.5")
    most = 0
    with raylets(shell.ROOT, nodes=1, cpus=8, gpus=1) as cluster:
        running = started(cluster, store, settings)

        def count() -> bool:
            nonlocal most
            states = [path for path in store.glob("runs/*/progress.json") if _trains(path)]
            most = max(most, len(states))
            return running.process.poll() is not None

        running.until(count)
        ended = running.end()
    assert_equals_local(ended, local, settings)
    assert 1 <= most <= 2
    workers = {json.loads(path.read_text())["workers"] for path in store.glob("runs/*/result.json")}
    assert workers == {2}


def _trains(path) -> bool:
    with contextlib.suppress(OSError, ValueError):
        return json.loads(path.read_text())["state"] == "training"
    return False


def test_no_cluster_is_refused_with_the_remedy(tmp_path):
    ended = shell.dashpipe(tmp_path / "store", "compare", settings=RAY, RAY_ADDRESS="127.0.0.1:1", **LOOPBACK)
    assert ended.code == 2
    assert "no Ray cluster can be joined at 127.0.0.1:1" in ended.err
    assert "ray start --head" in ended.err


SPY = """
import os, sys

def spy(event, arguments):
    if event in ("socket.connect", "socket.sendto", "socket.bind", "socket.getaddrinfo"):
        address = arguments[0] if event == "socket.getaddrinfo" else arguments[1]
        host = address[0] if isinstance(address, tuple) else address
        with open({file!r}, "a") as file:
            file.write(repr((os.getpid(), event, host)) + "\\n")

words = " ".join(sys.orig_argv)
if "default_worker.py" in words or "ray/" not in words:  # not Ray's own services, which the user starts
    sys.addaudithook(spy)
"""


def test_our_processes_ask_for_nothing_but_loopback_and_nothing_listens_elsewhere(tmp_path, local):
    import ast

    from tests.system.test_security import is_local

    site, said = tmp_path / "site", tmp_path / "said.txt"
    site.mkdir()
    (site / "sitecustomize.py").write_text(SPY.format(file=str(said)))
    with raylets(f"{site}{os.pathsep}{shell.ROOT}") as cluster:
        ended = started(cluster, tmp_path / "store", PYTHONPATH=f"{site}{os.pathsep}{shell.ROOT}").end()
        raylet_family = [process for process in psutil.Process().children(recursive=True) if process.is_running()]
        addresses = set()
        for process in raylet_family:
            with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                listening = [c for c in process.net_connections("inet") if c.status == psutil.CONN_LISTEN]
                addresses |= {connection.laddr.ip for connection in listening}
    assert_equals_local(ended, local)
    heard = [ast.literal_eval(line) for line in said.read_text().splitlines()]
    assert heard
    assert [line for line in heard if not is_local(line[2])] == []
    assert addresses <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}, addresses  # the last is the first in IPv6
