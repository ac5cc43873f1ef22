"""How many runs share a machine: one a core, or a few on each GPU as memory allows."""

import pytest
import torch

from dash_core import device
from dash_core.device import usable_cores, visible_gpus
from tasks.store import place
from tasks.store.place import RUN_BYTES, RUNS_PER_GPU, Crew
from tests import toy


@pytest.fixture
def machine(monkeypatch):
    """Pretend to have 16 cores and GPUs with the given free memory, in runs."""

    def pretend(free: list[float], visible: str | None = None) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: bool(free))
        monkeypatch.setattr(torch.cuda, "device_count", lambda: len(free))
        monkeypatch.setattr(place, "free_memory", lambda gpu: int(free[gpu.index or 0] * RUN_BYTES))
        monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(16)))
        monkeypatch.setattr(device, "_cpu_quotas", lambda: [])
        if visible is None:
            monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        else:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)

    return pretend


def crew(runs: int = 100, **given: object) -> Crew:
    return Crew.of(toy.params(compare=given), runs)


def test_without_a_gpu_there_is_a_run_a_core(machine):
    machine([])
    assert crew() == Crew(16, 1)
    assert crew(threads=4) == Crew(4, 4)
    assert crew(runs=3) == Crew(3, 1)
    assert visible_gpus("auto") == []


def test_gpus_take_a_few_runs_each_as_far_as_their_memory_goes(machine):
    machine([100, 2.5])
    assert crew() == Crew(RUNS_PER_GPU + 2, 1)
    assert crew(device="cuda:1") == Crew(2, 1)
    assert crew(workers=9) == Crew(9, 1)
    assert visible_gpus("auto") == ["0", "1"]
    assert visible_gpus("cuda:1") == []  # given: there is nothing to choose


def test_a_full_gpu_still_gets_one_run(machine):
    machine([0.1])
    assert crew() == Crew(1, 1)


def test_only_the_visible_gpus_are_taken(machine):
    machine([9, 9], visible="3,GPU-ab12")
    assert visible_gpus("cuda") == ["3", "GPU-ab12"]


@pytest.mark.parametrize(
    ("membership", "files", "cores"),
    [
        ("0::/\n", {"cpu.max": "200000 100000\n"}, 2),  # a container: the root is its own group
        ("0::/\n", {"cpu.max": "150000 100000\n"}, 2),
        ("0::/\n", {"cpu.max": "50000 100000\n"}, 1),
        ("0::/\n", {"cpu.max": "max 100000\n"}, 16),
        ("0::/\n", {}, 16),
        ("0::/\n", {"cpu.max": "nonsense\n"}, 16),
        ("0::/\n", {"cpu.max": "9900000 100000\n"}, 16),
        ("0::/a.slice/b.scope\n", {"a.slice/cpu.max": "300000 100000", "a.slice/b.scope/cpu.max": "max 100000"}, 3),
        (
            "4:cpu,cpuacct:/docker/1\n2:memory:/x\n",
            {"cpu/cpu.cfs_quota_us": "400000", "cpu/cpu.cfs_period_us": "100000"},
            4,
        ),
        ("4:cpu:/\n", {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 16),
    ],
)
def test_a_containers_quota_of_cpu_time_limits_the_runs_at_once(tmp_path, monkeypatch, membership, files, cores):
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(16)))
    monkeypatch.setattr(device, "CGROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(device, "OWN_CGROUPS", tmp_path / "own")
    (tmp_path / "own").write_text(membership)
    for name, text in files.items():
        path = tmp_path / "cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert usable_cores() == cores
    assert crew() == Crew(cores, 1)


def test_a_system_without_control_groups_has_no_quota(tmp_path, monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(16)))
    monkeypatch.setattr(device, "OWN_CGROUPS", tmp_path / "missing")
    assert usable_cores() == 16
