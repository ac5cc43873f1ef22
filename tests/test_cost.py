"""What is charged: FLOPs against counts by hand, seconds and memory against what was really spent."""

import contextlib
import time
from itertools import pairwise

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from dash_core.cost import PHASES, Cost, CostMeter
from tests import toy

IMAGES, TEST_IMAGES = 16, 8

# Multiply-adds for one 8x8 grey image of 4 classes, layer by layer; the first layer is listed first.
MLP = [64 * 1024, 1024 * 1024, 1024 * 4]
RESNET18 = [
    64 * 64 * 1 * 9,  # stem: 8x8 positions, 64 filters; the max-pool leaves 4x4
    *[16 * 64 * 64 * 9] * 4,  # stage 1: 4x4
    4 * 128 * 64 * 9,  # stage 2: 2x2
    *[4 * 128 * 128 * 9] * 3,
    4 * 128 * 64,
    256 * 128 * 9,  # stage 3: 1x1
    *[256 * 256 * 9] * 3,
    256 * 128,
    512 * 256 * 9,  # stage 4: 1x1
    *[512 * 512 * 9] * 3,
    512 * 256,
    512 * 4,  # classifier
]
LAYERS = {"mlp": MLP, "resnet18": RESNET18}


def forward(model: str) -> int:
    """FLOPs of one image's forward pass: two for each multiply-add."""
    return 2 * sum(LAYERS[model])


def gradient(model: str) -> int:
    """FLOPs of one image forward and backward: nobody asks for the gradient of the first layer's input."""
    return 3 * forward(model) - 2 * LAYERS[model][0]


def costs(folder, model="mlp", method="warm", optimizer="sgd", diagnostics=(), **parameters) -> list[dict[str, int]]:
    """Return the FLOPs of each phase for two chunks of one epoch each."""
    run = toy.params(
        chunks=2,
        model={"name": model},
        optimizer={"name": optimizer, "lr": 1e-4},
        training={"batch_size": 8, "max_epochs": 1},
        methods={method: parameters},
        diagnostics=list(diagnostics),
    ).run(method, 0)
    moving = toy.advance(toy.trajectory(folder, run, toy.dataset(train=IMAGES, test=TEST_IMAGES)))
    return [{phase: cost.flops for phase, cost in record.cost.items()} for record in moving.records]


@pytest.mark.parametrize("model", LAYERS)
def test_a_runs_flops_are_those_counted_by_hand(tmp_path, model):
    first, second = costs(tmp_path, model)
    test = TEST_IMAGES * forward(model)
    assert first == {
        "intervene": 0,
        "train": 8 * gradient(model),
        "evaluate": test,
        "diagnose": 0,
        "checkpoint": 0,
        "orchestrate": 0,
    }
    assert second == {
        "intervene": 0,
        "train": 16 * gradient(model),
        "evaluate": test,
        "diagnose": 0,
        "checkpoint": 0,
        "orchestrate": 0,
    }


def test_sam_trains_at_twice_the_flops_of_sgd(tmp_path):
    sgd, sam = (costs(tmp_path / name, optimizer=name) for name in ("sgd", "sam"))
    assert [row["train"] for row in sam] == [2 * row["train"] for row in sgd]
    assert [row["evaluate"] for row in sam] == [row["evaluate"] for row in sgd]


@pytest.mark.parametrize("micro_batch_size", [None, 3])
def test_dash_intervenes_at_the_flops_of_a_gradient_over_all_chunks_so_far(tmp_path, micro_batch_size):
    first, second = costs(tmp_path, method="dash", micro_batch_size=micro_batch_size)
    assert (first["intervene"], second["intervene"]) == (0, IMAGES * gradient("mlp"))
    assert second["train"] == IMAGES * gradient("mlp")


@pytest.mark.parametrize(
    ("name", "first", "second"),  # chunks of 8 images, in images that pass the network
    [
        ("previous_accuracy", 0, 2 * 8 * forward("mlp")),  # 8 previous images at epochs 0 and 1
        ("previous_accuracy_batch", 0, 2 * 8 * forward("mlp")),
        ("gradient_norm", 8 * gradient("mlp"), 2 * 16 * gradient("mlp")),  # all; all, previous and new
        ("alignment", 0, 16 * gradient("mlp")),
        ("feature_rank", 8 * forward("mlp"), 16 * forward("mlp")),
        ("distance", 0, 0),
    ],
)
def test_diagnostics_are_charged_to_their_own_phase(tmp_path, name, first, second):
    without, found = costs(tmp_path / "without"), costs(tmp_path / "with", diagnostics=[name])
    assert [row.pop("diagnose") for row in found] == [first, second]
    assert [row.pop("diagnose") for row in without] == [0, 0]
    assert found == without


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still unless it is put forward."""
    now = [100.0]
    monkeypatch.setattr("dash_core.cost.time.perf_counter", lambda: now[0])
    return now


def matmul_in(meter: CostMeter, phase: str, rows: int, times: int = 1) -> None:
    a, b = torch.ones(rows, 3), torch.ones(3, 5)
    with meter.phase(phase):
        for _ in range(times):
            with meter.counted(("product", rows)):
                a @ b


def test_each_phase_is_charged_its_own_steps_and_take_starts_again(clock):
    meter = CostMeter(toy.CPU)
    matmul_in(meter, "train", rows=2, times=3)
    matmul_in(meter, "evaluate", rows=4)
    matmul_in(meter, "train", rows=2)
    spent = meter.take()
    assert tuple(spent) == PHASES
    assert {phase: cost.flops for phase, cost in spent.items()} == {
        "intervene": 0,
        "train": 4 * 2 * 2 * 3 * 5,
        "evaluate": 2 * 4 * 3 * 5,
        "diagnose": 0,
        "checkpoint": 0,
        "orchestrate": 0,
    }
    assert set(meter.take().values()) == {Cost()}


def test_what_is_spent_aside_is_charged_to_its_own_phase_and_the_interrupted_one_goes_on():
    meter, began = CostMeter(toy.CPU), time.perf_counter()
    with meter.phase("train"):
        for rows in (2, 4):
            with meter.counted(rows):
                torch.ones(rows, 3) @ torch.ones(3, 5)
            with meter.aside("diagnose"), meter.counted(("aside", rows)):
                torch.ones(10 * rows, 3) @ torch.ones(3, 5)
                torch.ones(50_000_000)  # 200 MB, freed at once
                time.sleep(0.05)
    with meter.aside("diagnose"), meter.counted(2):  # no phase is under way
        torch.ones(2, 3) @ torch.ones(3, 5)
    spent, elapsed = meter.take(), time.perf_counter() - began
    assert (spent["train"].flops, spent["diagnose"].flops) == (180, 1860)
    assert spent["diagnose"].seconds >= 0.1
    assert spent["train"].seconds + spent["diagnose"].seconds <= elapsed  # no second is charged twice
    assert spent["diagnose"].peak_memory - spent["train"].peak_memory > 195e6


def test_an_aside_without_memory_of_its_own_leaves_the_freed_memory_where_it_is(monkeypatch):
    handed_back = []
    monkeypatch.setattr("dash_core.cost.give_back_freed_memory", lambda: handed_back.append(1))
    monkeypatch.setattr("dash_core.cost._peak_can_be_reset", lambda: True)
    meter = CostMeter(toy.CPU)
    with meter.phase("train"):
        before = len(handed_back)
        with meter.aside("checkpoint", own_memory=False), meter.counted("product"):
            torch.ones(2, 2) @ torch.ones(2, 2)
        assert len(handed_back) == before
    spent = meter.take()
    assert spent["checkpoint"].flops == 16
    assert spent["train"].flops == 0
    assert spent["train"].peak_memory >= spent["checkpoint"].peak_memory > 50e6


def test_a_state_taken_aside_holds_what_the_interrupted_phase_had_spent():
    meter, again = CostMeter(toy.CPU), CostMeter(toy.CPU)
    with meter.phase("train"):
        with meter.counted("product"):
            torch.ones(2, 3) @ torch.ones(3, 5)
        with meter.aside("checkpoint"):
            again.load_state_dict(meter.state_dict())
    assert again.take()["train"].flops == meter.take()["train"].flops == 60


def test_a_phase_that_fails_is_charged_what_it_spent():
    meter = CostMeter(toy.CPU)
    with pytest.raises(KeyError), meter.phase("train"), meter.counted("product"):
        raise KeyError
    with contextlib.suppress(KeyError), meter.phase("train"):
        with meter.counted("product"):
            torch.ones(2, 3) @ torch.ones(3, 5)
        raise KeyError
    assert meter.take()["train"].flops == 60


def test_only_the_first_step_of_a_kind_is_watched_by_the_counter(monkeypatch):
    made = []
    monkeypatch.setattr(
        "dash_core.cost.FlopCounterMode", lambda **options: made.append(1) or FlopCounterMode(**options)
    )
    meter = CostMeter(toy.CPU)
    matmul_in(meter, "train", rows=2, times=3)
    matmul_in(meter, "evaluate", rows=2)
    assert len(made) == 1
    spent = meter.take()
    assert (spent["train"].flops, spent["evaluate"].flops) == (3 * 60, 60)


def test_seconds_are_wall_clock():
    meter, moments = CostMeter(toy.CPU), [time.perf_counter()]
    with meter.phase("train"):
        time.sleep(0.05)
    moments.append(time.perf_counter())
    with meter.phase("evaluate"):
        pass
    moments.append(time.perf_counter())
    spent, (train, evaluate) = meter.take(), (end - start for start, end in pairwise(moments))
    assert 0.05 <= spent["train"].seconds <= train
    assert 0 < spent["evaluate"].seconds <= evaluate


def test_peak_memory_is_that_of_the_phase_it_was_reached_in():
    meter = CostMeter(toy.CPU)
    with meter.phase("train"):
        torch.ones(50_000_000)  # 200 MB, freed at once
    with meter.phase("evaluate"):
        torch.ones(1)
    spent = meter.take()
    assert 195e6 < spent["train"].peak_memory - spent["evaluate"].peak_memory < 260e6
    assert spent["evaluate"].peak_memory > 50e6  # the process itself, torch included
    assert spent["intervene"].peak_memory == 0


def test_costs_add_up_but_their_peaks_do_not():
    assert Cost(1.0, 10, 100) + Cost(2.0, 5, 70) == Cost(3.0, 15, 100)


def test_seconds_of_no_phase_are_those_of_orchestration(clock):
    meter = CostMeter(toy.CPU)
    with meter.phase("train"):
        clock[0] += 5
    clock[0] += 2
    spent = meter.take()
    assert (spent["train"].seconds, spent["orchestrate"].seconds) == (5, 2)
    clock[0] += 1
    assert sum(cost.seconds for cost in meter.take().values()) == 1


def test_the_time_behind_a_saved_state_is_not_lost_and_the_time_between_is_not_counted(clock):
    meter = CostMeter(toy.CPU)
    clock[0] += 3
    state = meter.state_dict()
    clock[0] += 1000
    again = CostMeter(toy.CPU)
    again.load_state_dict(state)
    clock[0] += 4
    assert again.take()["orchestrate"].seconds == 7
