"""Precision: bf16 changes a training step by rounding alone, and what must stay exact does."""

import json

import pytest
import torch

from dash_core.errors import ConfigError
from dash_core.precision import BF16_MIN_FLOPS, has_bf16, resolve_precision
from dash_core.result import WEIGHTS_FILE
from tests import toy

pytestmark = pytest.mark.processor

DATA = toy.dataset(train=96)
TRAINING = {"batch_size": 16, "max_epochs": 4, "stop_accuracy": 1.0}


def run(precision: str, method: str = "warm", **optimizer: object):
    return toy.params(training={**TRAINING, "precision": precision}, optimizer=optimizer).run(method, 0)


def trained(folder, precision: str, method: str = "warm", **optimizer: object):
    return toy.advance(toy.trajectory(folder, run(precision, method, **optimizer), DATA))


@pytest.mark.parametrize("asked", ["exact", "bf16"])
def test_what_is_asked_for_is_done(asked):
    assert resolve_precision(asked, toy.CPU, 1) == asked


@pytest.mark.parametrize(
    ("known", "precision"),
    [({"amx_bf16": True}, "bf16"), ({"avx512_bf16": True}, "bf16"), ({"avx512_f": True}, "exact"), ({}, "exact")],
)
def test_auto_is_bf16_only_where_the_processor_has_it(monkeypatch, known, precision):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: known)
    assert has_bf16(toy.CPU) == (precision == "bf16")
    assert resolve_precision("auto", toy.CPU, BF16_MIN_FLOPS) == precision
    assert resolve_precision("auto", toy.CPU, BF16_MIN_FLOPS - 1) == "exact"


@pytest.mark.parametrize("optimizer", [{}, {"name": "sam"}], ids=["sgd", "sam"])
def test_bf16_is_another_arithmetic_that_ends_near_the_exact_one(tmp_path, optimizer):
    exact, rounded = (trained(tmp_path / name, name, **optimizer) for name in ("exact", "bf16"))
    assert (tmp_path / "exact" / WEIGHTS_FILE).read_bytes() != (tmp_path / "bf16" / WEIGHTS_FILE).read_bytes()
    for a, b in zip(exact.learner.model.parameters(), rounded.learner.model.parameters(), strict=True):
        assert b.dtype == torch.float32
        assert torch.nn.functional.cosine_similarity(a.flatten(), b.flatten(), dim=0) > 0.99
    for a, b in zip(exact.records, rounded.records, strict=True):
        assert b.train_loss == pytest.approx(a.train_loss, rel=0.05)
        assert {name: cost.flops for name, cost in a.cost.items()} == {
            name: cost.flops for name, cost in b.cost.items()
        }


def test_dashs_gradient_and_the_evaluation_are_exact_in_a_bf16_run(tmp_path):
    exact, rounded = (toy.trajectory(tmp_path / name, run(name, "dash"), DATA) for name in ("exact", "bf16"))
    toy.advance(exact, 1)
    rounded.learner.load_state_dict(exact.learner.state_dict())
    for moving in (exact, rounded):
        moving.intervention.before_chunk(moving.learner, moving.images.training(2))
    assert all(map(torch.equal, exact.learner.model.parameters(), rounded.learner.model.parameters()))
    assert exact.evaluate(2) == rounded.evaluate(2)


def test_a_bf16_run_goes_on_bit_for_bit(tmp_path):
    trained(tmp_path / "whole", "bf16", "dash")
    toy.advance(toy.trajectory(tmp_path / "stopped", run("bf16", "dash"), DATA), 1)
    toy.advance(toy.trajectory(tmp_path / "stopped", run("bf16", "dash"), DATA))
    assert (tmp_path / "whole" / WEIGHTS_FILE).read_bytes() == (tmp_path / "stopped" / WEIGHTS_FILE).read_bytes()


def test_a_state_does_not_go_on_in_another_arithmetic_than_it_was_made_in(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("dash_core.precision.BF16_MIN_FLOPS", 0)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": True})
    toy.advance(toy.trajectory(tmp_path, run("auto"), DATA), 1)
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)
    again = toy.trajectory(tmp_path, run("auto"), DATA)
    assert again.records == []
    assert "starts anew from its first experiment" in caplog.text
    toy.advance(again)
    assert json.loads((tmp_path / "result.json").read_text())["precision"] == "exact"


def test_another_word_is_refused():
    with pytest.raises(ConfigError, match=r"training\.precision"):
        run("fp8")
