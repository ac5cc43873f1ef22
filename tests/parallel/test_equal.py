"""Two processes train as one does: the same DASH, steps, curve, weights and stop, over gloo on the loopback."""

from pathlib import Path
from typing import Any

import pytest
import torch

from dash_core.parallel import ALONE, Ranks
from tests.parallel import work

QUICK = {
    "sgd": {"max_epochs": 60},
    "sam": {"optimizer": {"name": "sam", "rho": 0.05}, "augmentation": "crop_flip", "max_epochs": 2},
    "l2_init": {"method": "l2_init", "micro_batch_size": 10, "max_epochs": 2},
    "fp32": {"dtype": torch.float32, "max_epochs": 4},  # 20 steps
}
SLOW = {
    "adamw": {"optimizer": {"name": "adamw", "lr": 0.003}},
    "losses": {"class_weights": "balanced", "label_smoothing": 0.1, "clip_norm": 0.5},
    "authors' penalty": {"method": "l2_init_authors", "augmentation": "crop_flip"},
    "sota": {"recipe": "sota", "images": 150, "max_epochs": 6},
    "sam": {"optimizer": {"name": "sam", "rho": 0.05}, "max_epochs": 40},
}
# of weights, in fp64. The losses are in fp32, where the share of one of three ranks is rounded and a half is not
WEIGHTS = {2: 1e-9, 3: 1e-6}
CURVE = {torch.float64: 1e-6, torch.float32: 1e-5}  # losses are computed in fp32 in either case


def quick(ranks: Ranks, folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = {name: work.train(ranks, **case) for name, case in QUICK.items()}
    found["dash"] = work.shrink(ranks)
    run = work.run_of(diagnostics=["alignment", "gradient_norm"])
    found["whole"] = work.carry_out(ranks, folder / "whole", run)
    if ranks.size > 1:
        found["first stop"] = work.carry_out(ranks, folder / "stopped", run, stop_on=(1, 7))
        found["second stop"] = work.carry_out(ranks, folder / "stopped", run, stop_on=(0, 11))
        found["continued"] = work.carry_out(ranks, folder / "stopped", run)
        found["stop for one"] = work.carry_out(ranks, folder / "for one", run, stop_on=(1, 8))
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("ranks")


@pytest.fixture(scope="module")
def two(folder):
    return work.in_ranks(2, folder, quick)


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    return quick(ALONE, tmp_path_factory.mktemp("one"))


def furthest(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> float:
    assert found.keys() == expected.keys()
    return max(float((found[name].double() - expected[name].double()).abs().max()) for name in expected)


def assert_same_training(found: dict[str, Any], expected: dict[str, Any], size: int = 2) -> None:
    assert found["outcome"] == expected["outcome"]
    dtype = next(iter(expected["weights"].values())).dtype
    torch.testing.assert_close(found["curve"], expected["curve"], rtol=0, atol=CURVE[dtype])
    assert furthest(found["weights"], expected["weights"]) < (WEIGHTS[size] if dtype == torch.float64 else 1e-3)
    if dtype == torch.float64:
        assert found["test"][0] == expected["test"][0]
        assert found["test"][2] == expected["test"][2]
    assert found["test"][1] == pytest.approx(expected["test"][1], rel=1e-4)


@pytest.mark.parametrize("case", QUICK)
def test_training_is_that_of_one_process_and_equal_on_both_ranks(two, one, case):
    for rank in two:
        assert_same_training(rank[case], one[case])
        assert all(torch.equal(tensor, two[0][case]["weights"][name]) for name, tensor in rank[case]["weights"].items())


def test_training_converges_in_the_epochs_of_one_process(one):
    assert one["sgd"]["outcome"][2]


def test_dash_over_chunks_smaller_than_the_number_of_ranks_is_that_of_one_process(two, one):
    for rank in two:
        assert furthest(rank["dash"]["gradient"], one["dash"]["gradient"]) < 1e-10
        assert furthest(rank["dash"]["weights"], one["dash"]["weights"]) < 1e-10
        assert rank["dash"]["report"] == one["dash"]["report"]  # shares of vectors at the floor


def test_a_run_stopped_by_either_rank_stops_on_both_after_the_same_step_and_goes_on_bit_for_bit(two):
    for stop in ("first stop", "second stop"):
        assert two[0][stop] == two[1][stop]
        assert two[0][stop]["stopped"]
    assert two[0]["continued"]["records"] == two[0]["whole"]["records"]
    for rank in two:
        for name, tensor in two[0]["whole"]["weights"].items():
            assert torch.equal(rank["continued"]["weights"][name], tensor)


def test_one_process_continues_what_two_began_in_the_middle_of_an_epoch(two, one, folder):
    assert two[0]["stop for one"]["stopped"]
    continued = work.carry_out(ALONE, folder / "for one", work.run_of(diagnostics=["alignment", "gradient_norm"]))
    for found, expected in zip(continued["records"], one["whole"]["records"], strict=True):
        for key in ("epochs", "steps", "converged", "images", "cost"):
            assert found[key] == expected[key]
    assert continued["process_seconds"][0] is not None
    assert one["whole"]["process_seconds"] == [None, None]


def test_rank_0_writes_the_records_with_the_costs_of_all(two, one):
    first, second = (rank["whole"] for rank in two)
    assert first["files"] == one["whole"]["files"]
    for found, expected, of_other in zip(first["records"], one["whole"]["records"], second["records"], strict=True):
        assert found["cost"] == expected["cost"]  # FLOPs of both ranks, and of the diagnostics, which rank 0 measures
        assert found["diagnostics"].keys() == expected["diagnostics"].keys()
        assert found["diagnostics"].keys() > of_other["diagnostics"].keys()
    for seconds, together in zip(first["seconds"], first["process_seconds"], strict=True):
        assert together > 1.5 * seconds


def slow(ranks: Ranks, folder: Path) -> dict[str, Any]:
    return {name: work.train(ranks, **case) for name, case in SLOW.items()}


@pytest.mark.slow
@pytest.mark.parametrize("size", [2, 3])
def test_any_number_of_ranks_trains_as_one_process_with_every_setting(tmp_path, size):
    expected = slow(ALONE, tmp_path)
    for rank in work.in_ranks(size, tmp_path, slow):
        for name in SLOW:
            assert_same_training(rank[name], expected[name], size)


def broken(ranks: Ranks, folder: Path) -> dict[str, Any]:
    """Let the ranks' weights differ, as a method would that draws from the global generator."""
    moving = work.trajectory(ranks, folder / "broken", work.run_of())
    trained = moving.train(1, moving.intervene(1))
    with torch.no_grad():
        moving.learner.model.fc.bias[0] += ranks.rank
    try:
        moving.record(1, trained, moving.evaluate(1))
    except Exception as error:
        return {"error": str(error), "records": len(moving.records)}
    return {}


@pytest.mark.slow
def test_ranks_whose_weights_differ_record_nothing(tmp_path):
    for rank in work.in_ranks(2, tmp_path, broken):
        assert "do not hold the same weights: fc.bias differs" in rank["error"]
        assert rank["records"] == 0


def diverging(ranks: Ranks, folder: Path) -> dict[str, Any]:
    try:
        work.train(ranks, optimizer={"lr": 1e9}, max_epochs=30, stop_accuracy=None)
    except Exception as error:
        return {"error": str(error)}
    return {}


@pytest.mark.slow
def test_a_loss_that_is_not_finite_ends_every_rank_with_the_same_words(tmp_path):
    first, second = work.in_ranks(2, tmp_path, diverging)
    assert "the loss is" in first["error"]
    assert first == second


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_two_ranks_on_one_card_with_torchs_synchronised_batchnorm_train_as_one_process(tmp_path):
    expected = work.train(device="cuda", dtype=torch.float32, max_epochs=4)
    for rank in work.in_ranks(2, tmp_path, on_card, device="cuda"):
        assert rank["outcome"] == expected["outcome"]
        torch.testing.assert_close(rank["curve"], expected["curve"], rtol=0, atol=1e-5)


def on_card(ranks: Ranks, folder: Path) -> dict[str, Any]:
    return work.train(ranks, device="cuda", dtype=torch.float32, max_epochs=4)
