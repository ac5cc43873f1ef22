"""How many runs share a machine: one a core, or a few on each GPU as memory allows."""

import pytest
import torch

from dash_core.device import visible_gpus
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
