"""What must be equal on a card, where one is present; and that `bench.gpu` runs where none is, as far as it can."""

import os
import subprocess
import sys

import pytest
import torch

from bench import gpu, gpu_equalities

pytestmark = pytest.mark.processor

on_a_card = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
DEVICES = [pytest.param("cpu"), pytest.param("cuda", marks=on_a_card)]
BARE = """
import importlib.abc, sys

REFUSED = {"PIL", "cloudpickle", "jinja2", "mlflow", "plotly", "prefect", "psutil", "pytest", "rich", "scipy"}

class Refuse(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in REFUSED | {"sklearn", "torchvision", "typer", "yaml"}:
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Refuse())
from bench import gpu

print(len(gpu.PARTS))
"""


@pytest.fixture
def data():
    return gpu_equalities.made_up(64)


@on_a_card
def test_fp32_is_the_cpus_but_for_rounding(data):
    assert gpu_equalities.against_cpu(torch.device("cuda"), data) < 1e-3


@on_a_card
def test_every_method_trains_on_a_card(data):
    assert set(gpu_equalities.methods(torch.device("cuda"), data).values()) == {"ok"}


@pytest.mark.parametrize("device", [pytest.param("cpu", marks=pytest.mark.slow), DEVICES[1]])
def test_a_run_stopped_twice_has_the_bits_of_one_that_is_not(data, device):
    assert gpu_equalities.continues(torch.device(device), data)


@pytest.mark.parametrize("device", DEVICES)
def test_dash_with_little_memory_takes_the_same_gradient_in_parts(data, device):
    halved = gpu_equalities.halves(torch.device(device), data)
    assert 0 < halved.size < 32
    assert halved.furthest < 1e-4


@pytest.mark.parametrize("device", [pytest.param("cpu", marks=pytest.mark.slow), DEVICES[1]])
def test_three_chunks_compile_one_graph(data, device):
    compiled = gpu_equalities.compiles(torch.device(device), data)
    assert compiled.graphs == 1
    assert compiled.furthest < 1e-2


def test_without_a_card_it_says_so(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu.main([]) == 1
    assert "no CUDA device here" in capsys.readouterr().out


def test_it_needs_torch_numpy_pydantic_and_safetensors_alone():
    done = subprocess.run(
        [sys.executable, "-c", BARE], capture_output=True, text=True, timeout=600, env={**os.environ, "PYTHONPATH": "."}
    )
    assert done.stdout.strip() == str(len(gpu.PARTS)), done.stderr


def test_a_part_that_fails_is_told_and_one_that_is_late_is_left_out(monkeypatch):
    def fail(card):
        raise ValueError("no kernel")

    monkeypatch.setattr(gpu, "PARTS", {"First": fail, "Second": lambda card: ["fine"]})
    assert [line for line in gpu.measured(None, 1.0) if line.startswith(("FAILED", "fine"))] == [
        "FAILED: ValueError('no kernel')",
        "fine",
    ]
    assert "left out" in gpu.measured(None, -1.0)[0]


def test_steps_of_table_1_by_hand():
    cifar = 5 * 50 * ((3 * 2916 + 2 * 665) + 2 * (3 * 8121 + 2 * 2153))
    tiny = 4 * 3 * 50 * ((3 * 17503 + 2 * 1785) + 2 * (3 * 22513 + 2 * 2773))
    assert gpu.table_1_steps() == 3 * cifar + tiny


@pytest.mark.slow
def test_every_path_that_a_cpu_has_runs(tmp_path, capsys):
    assert gpu.main(["--device", "cpu", "--quick"]) == 0
    printed = capsys.readouterr().out
    assert all(f"**{title}**" in printed for title in gpu.PARTS)
    assert "none fails" in printed
