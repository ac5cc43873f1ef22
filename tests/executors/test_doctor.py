"""What `doctor` says of executors: the extras that are missing, and what a cluster offers."""

import importlib.util
import os

import pytest

from flows.command_line.cluster_findings import executor_findings
from tasks.store.place import place_of
from tests import toy
from tests.executors.conftest import needs
from tests.executors.raylets import LOOPBACK, raylets
from tests.system import shell


def findings(tmp_path, **compare) -> dict[str, tuple]:
    place = place_of(toy.params(compare=compare), tmp_path, None)
    return {finding[1]: finding for finding in executor_findings(place)}


def test_missing_extras_are_a_note_unless_the_parameters_name_them(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    plain = findings(tmp_path)
    assert {name: finding[0] for name, finding in plain.items()} == {"executor": "ok", "ray": "note", "slurm": "note"}
    assert "run(s) at once on this machine" in plain["executor"][2]
    assert plain["slurm"][3] == "uv sync --extra slurm"
    assert findings(tmp_path, executor="ray")["ray"][0] == "missing"


@needs("submitit", "slurm")
def test_slurm_s_partitions_are_listed_and_missing_programs_named(tmp_path, monkeypatch):
    programs = tmp_path / "bin"
    programs.mkdir()
    monkeypatch.setenv("PATH", str(programs))
    assert "no sbatch, srun, sacct, scancel, sinfo here" in findings(tmp_path, executor="slurm")["slurm"][2]
    for name in ("sbatch", "srun", "sacct", "scancel", "sinfo"):
        (programs / name).write_text("#!/bin/sh\necho 'gpu*|4|32|gpu:a100:8|2-00:00:00'\n")
        (programs / name).chmod(0o755)
    verdict, _, words, _ = findings(tmp_path, executor="slurm")["slurm"]
    assert (verdict, words) == ("ok", "partition gpu*: 4 node(s) of 32 cores, GPUs gpu:a100:8, at most 2-00:00:00")
    local = findings(tmp_path, executor="slurm", cluster={"address": "local"})
    assert "processes of this machine" in local["slurm"][2]


@needs("ray", "ray")
@pytest.mark.slow
def test_a_ray_cluster_s_nodes_and_its_room_are_listed(tmp_path):
    with raylets(shell.ROOT, nodes=2, cpus=3) as cluster:
        (tmp_path / "params.yaml").write_text(
            f"compare: {{executor: ray, cluster: {{address: '{cluster.address}'}}}}\n"
        )
        out = _doctor(tmp_path)
    assert out.count("ray node") == 2
    assert "3 CPUs, 0 GPUs" in out
    assert "room for 6 run(s) at once of 1 CPU(s), 0 GPU(s) each" in out


def _doctor(folder) -> str:
    import subprocess

    environment = {**os.environ, **LOOPBACK}
    words = [str(shell.PROGRAM), "doctor", "--params", str(folder / "params.yaml"), "--store", str(folder)]
    done = subprocess.run(words, capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stdout
    return done.stdout
