"""Training ends at its budget, and a person decides on the model; the next delivery trains further."""

import pytest

from dash_core.cost import Limit
from dash_core.errors import ConfigError
from dash_core.stream.gate import budget_checks
from dash_core.stream.gate_config import Budget
from tasks.store.stream.creating import bounds, change_budget
from tasks.store.stream.folder import StreamFolder
from tests import toy
from tests.stream import small

STEPS = 7
PARAMS = toy.params(chunks=2, training={"batch_size": 16, "max_epochs": 60})


pytestmark = pytest.mark.usefixtures("no_export")


def test_a_training_ends_at_the_step_that_reaches_its_limit_and_has_the_same_bits_if_it_is_interrupted(tmp_path):
    data, run = toy.dataset(), PARAMS.run("dash", 0)
    whole = toy.trajectory(tmp_path / "whole", run, data, limit=Limit(steps=STEPS))
    toy.advance(whole)
    assert [(record.steps, record.converged) for record in whole.records] == [(STEPS, False)] * 2
    assert [record.epochs for record in whole.records] == [4, 2], "the epoch that it ended in counts"
    stops = iter([False] * 3 + [True])
    watch = toy.Watch(stop=lambda: next(stops))
    broken = toy.trajectory(tmp_path / "broken", run, data, limit=Limit(steps=STEPS), watch=watch)
    with pytest.raises(toy.StopRequested):
        toy.advance(broken)
    again = toy.advance(toy.trajectory(tmp_path / "broken", run, data, limit=Limit(steps=STEPS)))
    assert toy.results(again) == toy.results(whole)
    weights = (tmp_path / name / "weights.safetensors" for name in ("whole", "broken"))
    assert len({file.read_bytes() for file in weights}) == 1


def test_flops_and_seconds_are_bounds_too(tmp_path):
    data, run = toy.dataset(), PARAMS.run("dash", 0)
    free = toy.advance(toy.trajectory(tmp_path / "free", run, data), 1)
    cost = free.records[0].cost
    half = (cost["intervene"].flops + cost["train"].flops) // 2
    bounded = toy.advance(toy.trajectory(tmp_path / "flops", run, data, limit=Limit(flops=half)), 1).records[0]
    assert half <= bounded.cost["train"].flops < half * 1.2
    assert not bounded.converged
    at_once = toy.advance(toy.trajectory(tmp_path / "seconds", run, data, limit=Limit(seconds=1e-9)), 1).records[0]
    assert (at_once.steps, at_once.converged) == (1, False)


def test_the_best_weights_are_kept_where_training_stops_at_the_validation_accuracy(tmp_path):
    validation = {"stop": "validation", "patience": 50, "validation_share": 0.25}
    run = toy.params(training={"batch_size": 16, "max_epochs": 60, **validation}).run("warm", 0)
    record = toy.advance(toy.trajectory(tmp_path, run, toy.dataset(), limit=Limit(steps=12)), 1).records[0]
    assert record.steps == 12
    assert record.picked_epoch == 1 + record.validation_accuracy.index(max(record.validation_accuracy))


def test_a_model_that_stopped_at_its_budget_waits_for_a_person_and_spends_no_look(tmp_path):
    stream = small.create(tmp_path)
    ledger, state = stream.read()
    champion = state.champion
    change_budget(stream, ledger, stream.contract(state), bounds([f"training_steps={STEPS}"]), "a test")
    small.deliver(tmp_path / "inbox" / "day-1", 40, seed=1)
    stream = StreamFolder(stream.path)
    said = small.run(stream)
    _, state = stream.read()
    assert (state.latest.steps, state.latest.stopped) == (STEPS, "training_steps")
    assert (state.champion, state.verdicts[-1].verdict, state.looks) == (champion, "hold", ())
    assert any("stopped at its budget (training steps)" in line for line in said)
    assert any("hold: Training was stopped at its budget of 7 training steps" in line for line in said)
    half_trained = state.latest.id
    ledger, state = stream.read()
    change_budget(stream, ledger, stream.contract(state), bounds(["training_steps=none"]), "a test")
    stream = StreamFolder(stream.path)
    small.deliver(tmp_path / "inbox" / "day-2", 40, seed=2)
    small.run(stream)
    _, state = stream.read()
    assert (state.latest.parent, state.latest.stopped, len(state.looks)) == (half_trained, None, 1)


def test_bounds_are_read_and_wrong_ones_are_named(tmp_path):
    assert bounds(["training_flops=1e12", "parameters=none"]) == {"training_flops": 1e12, "parameters": None}
    with pytest.raises(ConfigError, match="KEY=VALUE"):
        bounds(["training_flops"])
    stream = small.begun(tmp_path)
    ledger, state = stream.read()
    with pytest.raises(ConfigError, match="budget"):
        change_budget(stream, ledger, stream.contract(state), {"training_hours": 1.0}, "a test")


def test_the_latency_is_measured_if_it_is_bounded(tmp_path):
    stream = small.create(tmp_path, images=24, rules={"budget": {"latency_ms": 1e9}})
    numbers = stream.verdict(stream.read()[1].champion)["numbers"]
    assert 0 < numbers["latency_ms"] < numbers["latency_ms_bound"]


def test_a_bound_that_did_not_stop_the_training_passes():
    budget = Budget(training_steps=10.0, training_flops=5.0)
    checks = budget_checks(budget, {"training_steps": 10, "training_flops": 4}, "training_steps")
    assert {check.name: check.result for check in checks} == {"budget": "hold", "training_flops": "pass"}
