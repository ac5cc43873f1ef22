"""Compiled training is the same training: as good as equal, resumed bit for bit, compiled once."""

import sys

import pytest
import torch
from torch import nn

from dash_core.errors import StopRequested
from dash_core.run_state import Watch
from tests import toy

pytestmark = pytest.mark.processor

CHANGES = {"model": {"name": "cnn3_small"}, "training": {"compile": True, "max_epochs": 3}, "chunks": 3}


@pytest.fixture(autouse=True)
def graphs(monkeypatch):
    """Count the graphs that are compiled; the backend runs them as they are, so that no C++ compiler is needed."""
    compiled = []
    original = torch.compile

    def counting(graph: torch.fx.GraphModule, inputs: list) -> object:
        compiled.append(graph)
        return graph.forward

    monkeypatch.setattr(torch, "compile", lambda model, **how: original(model, backend=counting, dynamic=False))
    torch._dynamo.reset()
    return compiled


@pytest.mark.parametrize("method", ["cold", "dash", "l2_init"])
def test_it_is_compiled_once_for_all_chunks_and_gives_the_same(tmp_path, method, graphs):
    eager = toy.params(**{**CHANGES, "training": {"max_epochs": 3}}).run(method, 0)
    compiled = toy.params(**CHANGES).run(method, 0)
    plain = toy.advance(toy.trajectory(tmp_path / "plain", eager, toy.dataset()))
    quick = toy.advance(toy.trajectory(tmp_path / "quick", compiled, toy.dataset()))
    assert len(graphs) == 1
    assert toy.results(quick) == toy.results(plain)


def test_a_stop_within_a_chunk_changes_nothing(tmp_path):
    run = toy.params(**CHANGES).run("warm", 0)
    whole = toy.advance(toy.trajectory(tmp_path / "whole", run, toy.dataset()))
    steps = iter(range(100))
    stopped = toy.trajectory(tmp_path / "stopped", run, toy.dataset(), watch=Watch(stop=lambda: next(steps) == 4))
    with pytest.raises(StopRequested):
        toy.advance(stopped)
    again = toy.advance(toy.trajectory(tmp_path / "stopped", run, toy.dataset()))
    assert toy.results(again) == toy.results(whole)


def test_sam_and_the_schedule_are_compiled_too(tmp_path, graphs):
    changes = {**CHANGES, "optimizer": {"name": "sam"}, "training": {**CHANGES["training"], "schedule": "multistep"}}
    toy.advance(toy.trajectory(tmp_path, toy.params(**changes).run("warm", 0), toy.dataset()))
    assert len(graphs) == 1
    assert isinstance(graphs[0], nn.Module)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="needs a C++ compiler")
def test_the_default_compiler_agrees_to_rounding(tmp_path, monkeypatch):
    monkeypatch.undo()
    eager = toy.params(**{**CHANGES, "training": {"max_epochs": 3, "precision": "exact"}}).run("warm", 0)
    quick = toy.params(**{**CHANGES, "training": {**CHANGES["training"], "precision": "exact"}}).run("warm", 0)
    plain = toy.advance(toy.trajectory(tmp_path / "plain", eager, toy.dataset()))
    compiled = toy.advance(toy.trajectory(tmp_path / "quick", quick, toy.dataset()))
    for one, other in zip(plain.records, compiled.records, strict=True):
        assert other.test_loss == pytest.approx(one.test_loss, rel=1e-3)
