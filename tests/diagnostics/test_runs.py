"""Diagnostics in a run: what they say, and that nothing else in the run knows of them."""

import contextlib
import itertools
from collections import OrderedDict
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from dash_core.comparison import Params
from dash_core.config import parse
from dash_core.diagnostics import DIAGNOSTICS, base
from dash_core.errors import ConfigError, StopRequested, TrainingError
from dash_core.interventions import INTERVENTIONS
from dash_core.models import MODELS, ModelSpec, build_model
from dash_core.run_images import input_normalisation
from dash_core.run_state import Watch
from dash_core.seeding import derive_seed
from tests import toy

pytestmark = pytest.mark.processor

ALL = list(DIAGNOSTICS)


def small(image_shape: tuple[int, int, int], classes: int) -> nn.Module:
    """A network with everything that a careless measure disturbs: BatchNorm's statistics and dropout's draws."""
    parts = OrderedDict(
        flatten=nn.Flatten(),
        first=nn.Linear(64, 16),
        norm=nn.BatchNorm1d(16),
        relu=nn.ReLU(),
        dropout=nn.Dropout(0.2),
        fc=nn.Linear(16, classes),
    )
    return nn.Sequential(parts)


@pytest.fixture(autouse=True)
def small_model(monkeypatch):
    monkeypatch.setitem(MODELS, "small", ModelSpec("small", "BatchNorm and dropout", "here", small, ("fc",)))


def config(method: str, diagnostics=ALL, **changes):
    training = {"batch_size": 8, "max_epochs": 7}
    return toy.params(model={"name": "small"}, training=training, diagnostics=diagnostics, **changes).run(method, 0)


def run(folder, method: str, diagnostics=ALL, chunks=None, **changes):
    return toy.advance(toy.trajectory(folder, config(method, diagnostics, **changes), toy.dataset()), chunks)


def own(record: dict) -> dict:
    """The diagnostics of a record that the intervention itself recorded."""
    return {name: value for name, value in record["diagnostics"].items() if name.partition("/")[0] not in DIAGNOSTICS}


@pytest.mark.parametrize("method", INTERVENTIONS)
def test_a_run_with_all_diagnostics_is_the_run_without_any_bit_for_bit(tmp_path, method):
    torch.manual_seed(7)
    before = torch.get_rng_state()
    runs = [run(tmp_path / name, method, chosen) for name, chosen in (("with", ALL), ("without", []))]
    assert torch.equal(torch.get_rng_state(), before)
    weights = [load_file(tmp_path / name / "weights.safetensors") for name in ("with", "without")]
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[1])
    rows = [toy.results(one) for one in runs]
    for measured, plain in zip(*rows, strict=True):
        assert {name.partition("/")[0] for name in measured["diagnostics"]} >= {"units", "norms"}
        assert measured["cost"].pop("diagnose") > plain["cost"].pop("diagnose") == 0
        assert own(measured) == plain["diagnostics"]
        assert {**measured, "diagnostics": {}} == {**plain, "diagnostics": {}}


@pytest.mark.parametrize("name", DIAGNOSTICS)
def test_each_diagnostic_leaves_modes_gradients_buffers_and_generators_as_found(tmp_path, name):
    moving = run(tmp_path, "dash", [name], chunks=1)
    model = moving.learner.model
    model.train()
    model.dropout.eval()
    model.first.weight.grad = torch.ones_like(model.first.weight)
    state = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    modes, random = [module.training for module in model.modules()], torch.get_rng_state()
    subject = base.Subject(moving.learner, moving.images.training(2), moving.intervention, batch_size=8)
    assert DIAGNOSTICS[name].measure(subject)
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(tensor, state[key]) for key, tensor in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)
    assert torch.equal(model.first.weight.grad, torch.ones_like(model.first.weight))
    assert model.fc.weight.grad is None


@pytest.mark.parametrize("method", ["cold", "dash", "shrink_perturb"])
def test_a_run_that_stops_after_any_steps_has_the_same_diagnostics(tmp_path, method):
    whole = run(tmp_path / "whole", method)
    steps = itertools.count(1)
    for _ in range(200):  # stops again after every third step: within epochs, at their ends, and between chunks
        watch = Watch(stop=lambda: next(steps) % 3 == 0)
        with contextlib.suppress(StopRequested):
            stopped = toy.trajectory(tmp_path / "stopped", config(method), toy.dataset(), watch=watch)
            toy.advance(stopped)
            break
    assert toy.results(stopped) == toy.results(whole)
    assert next(steps) > sum(record.steps for record in whole.records)


def test_what_is_recorded_when(tmp_path):
    moving = run(tmp_path, "dash", methods={"dash": {"floor": 0.0}})
    assert moving.records[1].epochs > 5
    first, second, _ = (record.diagnostics for record in moving.records)
    assert not [name for name in first if name.startswith(("alignment", "previous_accuracy"))]
    assert [name for name in first if name.startswith("gradient_norm")] == ["gradient_norm/all"]
    measured = [name for name in second if name.startswith("previous_accuracy")]
    names = ("previous_accuracy", "previous_accuracy_batch")
    assert measured == [f"{name}/epoch_{epoch}" for epoch in range(6) for name in names]
    assert {"gradient_norm/all", "gradient_norm/previous", "gradient_norm/new"} <= set(second)
    assert {"units/dead", "units/dormant", "units/dead/relu", "feature_rank/effective", "distance/total"} <= set(second)
    assert {"norms/weights", "norms/features", "norms/weights/fc.weight", "floor_share"} <= set(second)


def test_without_previous_data_and_where_the_protocol_does_not_intervene_their_measures_are_left_out(tmp_path):
    protocol = {"name": "discarding", "interval": 2}  # chunk by chunk alone; the intervention comes before the third
    records = run(tmp_path, "dash", protocol=protocol).records
    names = [{name.partition("/")[0] for name in record.diagnostics} for record in records]
    assert ["alignment" in found for found in names] == [False, False, True]
    assert not any("previous_accuracy" in found for found in names)
    assert [name for name in records[2].diagnostics if "gradient_norm" in name] == ["gradient_norm/all"]


@pytest.mark.parametrize(("method", "known"), [("shrink", "low"), ("warm", "high")])
def test_the_previous_accuracy_is_that_of_the_intervened_model_on_the_chunks_before(tmp_path, method, known):
    moving = run(tmp_path, method, ["previous_accuracy"], chunks=1, methods={"shrink": {"shrink": 0.0}})
    measured = moving.intervene(2).diagnostics
    data, chunk = toy.dataset().train, moving.plan.chunks[0]
    images = input_normalisation("small", data, toy.CPU)(data.images[chunk].permute(0, 3, 1, 2))
    with torch.no_grad():
        right = (moving.learner.model.eval()(images).argmax(1) == data.labels[chunk]).double().mean()
    found = measured["previous_accuracy/epoch_0"]
    assert found == float(right)
    assert found < 0.5 if known == "low" else found > 0.5


def test_with_batch_statistics_the_loss_of_previous_accuracy_is_the_weights_and_not_batchnorms(tmp_path):
    """Weights before a BatchNorm, scaled by a tenth: eval mode has forgotten much, the function of training nothing."""
    names = ["previous_accuracy", "previous_accuracy_batch"]
    moving = run(tmp_path, "warm", names, chunks=1)
    kept = moving.intervene(2).diagnostics
    model = moving.learner.model
    before = model.norm.running_mean.clone()
    with torch.no_grad():
        model.first.weight.mul_(0.1)
        model.first.bias.mul_(0.1)
    subject = base.Subject(moving.learner, moving.images.training(2), moving.intervention, batch_size=8)
    stale, fresh = (DIAGNOSTICS[name].measure(subject)["epoch_0"] for name in names)
    assert fresh == kept["previous_accuracy_batch/epoch_0"] > 0.5
    assert stale < kept["previous_accuracy/epoch_0"] - 0.2
    assert torch.equal(model.norm.running_mean, before)


def test_a_single_previous_image_has_no_accuracy_with_batch_statistics(tmp_path):
    moving = run(tmp_path, "warm", [], chunks=1)
    data = moving.images.training(2)
    subject = base.Subject(moving.learner, SimpleNamespace(previous_images=1, experiment=data.experiment), None, 8)
    assert DIAGNOSTICS["previous_accuracy_batch"].measure(subject) == {}


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_alignment_foretells_what_the_runs_own_dash_does(tmp_path, mode):
    dash = {"alpha": 0.7, "floor": 0.15, "mode": mode}
    found = run(tmp_path, "dash", ["alignment"], chunks=2, methods={"dash": dash}).records[1].diagnostics
    shares = {name.removeprefix("floor_share/"): share for name, share in found.items() if "floor_share/" in name}
    assert shares
    assert all(found[f"alignment/at_floor/{name}"] == share for name, share in shares.items())


def test_the_distance_is_from_the_very_first_initialisation(tmp_path):
    moving = run(tmp_path, "cold", ["distance"])
    first = build_model("small", (1, 8, 8), 4, seed=derive_seed(0, "init", 1))
    pairs = zip(moving.learner.model.parameters(), first.parameters(), strict=True)
    squares = sum(float((now - then).detach().double().square().sum()) for now, then in pairs)
    assert moving.records[-1].diagnostics["distance/total"] == pytest.approx(squares**0.5)


def test_features_are_those_of_the_stated_number_of_images_at_most(tmp_path, monkeypatch):
    monkeypatch.setattr(base, "MOST_IMAGES", 5)
    moving = run(tmp_path, "warm", ["feature_rank"], chunks=2)
    assert moving.records[1].cost["diagnose"].flops == 5 * 2 * (64 * 16 + 16 * 4)
    assert moving.records[1].diagnostics["feature_rank/effective"] <= 5


def test_the_images_that_are_measured_are_the_same_for_every_method_and_spread_over_all_chunks(tmp_path, monkeypatch):
    monkeypatch.setattr(base, "MOST_IMAGES", 30)
    drawn = []
    for method in ("warm", "dash"):
        moving = run(tmp_path / method, method, [], chunks=2)
        subject = base.Subject(moving.learner, moving.images.training(3), moving.intervention, batch_size=8)
        drawn.append(subject.draw(64))
    assert torch.equal(*drawn)
    assert len(drawn[0].unique()) == 30
    assert min(torch.bincount(drawn[0] // 22)[:2]) > 5


def test_a_value_that_is_not_finite_stops_the_run_with_its_name(tmp_path, monkeypatch):
    broken = base.Diagnostic("broken", "", "", ("after_training",), lambda subject: {"part": float("nan")})
    monkeypatch.setitem(DIAGNOSTICS, "broken", broken)
    with pytest.raises(TrainingError, match=r"the diagnostic broken/part is nan at experiment 1: lower"):
        run(tmp_path, "warm", ["broken"])


def test_the_order_in_which_diagnostics_are_listed_makes_no_other_run():
    one, other = config("warm", ["units", "norms"]), config("warm", ["norms", "units"])
    assert one == other
    assert one.id != config("warm", ["norms"]).id


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["unit"], r"diagnostics: unknown diagnostic 'unit' \(did you mean 'units'\?\); known: "),
        (["units"] * 2, "repeats"),
    ],
)
def test_unknown_and_repeated_names_are_refused(names, words):
    with pytest.raises(ConfigError, match=words):
        parse(Params, {"diagnostics": names})
