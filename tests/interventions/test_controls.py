"""The controls of DASH: tensors of their formulae, and the identities that make them controls."""

import pytest
import torch
from torch import nn

from dash_core.interventions import build_intervention
from dash_core.interventions.controls import (
    CONTROLS,
    dash_factors,
    filter_norm_ratios,
    permuted_factors,
    permuted_in_filters,
    uniform_factor,
)
from tests import golden, toy

TENSORS = golden.load("dash_controls")
WEIGHTS = ["0.weight", "3.weight", "8.weight"]
CONVOLUTIONS = ["0.weight", "3.weight"]
EXACT = {"rtol": 0, "atol": 1e-12}


def of(name):
    """Return a parameter, its gradient, DASH's factors, and the dims of its weight vectors."""
    weight, gradient = TENSORS[f"before/{name}"], TENSORS[f"G/{name}"]
    dims = {1: (0,), 2: (1,), 4: (2, 3)}[weight.ndim]
    return weight, gradient, dash_factors(weight, gradient, dims, 0.3), dims


@pytest.mark.parametrize("name", WEIGHTS)
def test_the_factors_are_dashs(name):
    weight, _, factors, _ = of(name)
    torch.testing.assert_close(factors, TENSORS[f"dash_factor/{name}"], **EXACT)
    torch.testing.assert_close(weight * factors, TENSORS[f"dash/{name}"], **EXACT)


@pytest.mark.parametrize("name", WEIGHTS)
def test_permuted_factors_give_the_reference_weights(name):
    weight, _, factors, _ = of(name)
    used = permuted_factors(factors, lambda count: TENSORS[f"perm/{name}"])
    torch.testing.assert_close(weight * used, TENSORS[f"permuted/{name}"], **EXACT)
    assert torch.equal(used.flatten().sort().values, factors.flatten().sort().values)


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_factors_permuted_in_filters_give_the_reference_weights(name):
    weight, _, factors, _ = of(name)
    rows = iter(TENSORS[f"perm_within_filter/{name}"])
    used = permuted_in_filters(factors, lambda count: next(rows))
    torch.testing.assert_close(weight * used, TENSORS[f"permuted_within_filter/{name}"], **EXACT)
    assert torch.equal(used.sort(dim=1).values, factors.sort(dim=1).values)


@pytest.mark.parametrize("name", WEIGHTS)
@pytest.mark.parametrize("by", ["norm", "mean"])
def test_one_factor_gives_the_reference_weights(name, by):
    weight, _, factors, _ = of(name)
    torch.testing.assert_close(weight * uniform_factor(weight, factors, by), TENSORS[f"uniform_{by}/{name}"], **EXACT)


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_norms_and_directions_give_the_reference_weights_and_together_dash(name):
    weight, _, factors, _ = of(name)
    ratios = filter_norm_ratios(weight, factors)
    torch.testing.assert_close(weight * ratios, TENSORS[f"filter_norm/{name}"], **EXACT)
    torch.testing.assert_close(weight * (factors / ratios), TENSORS[f"direction_only/{name}"], **EXACT)
    torch.testing.assert_close(weight * (factors / ratios) * ratios, TENSORS[f"dash/{name}"], **EXACT)
    squares = (weight * ratios).square().flatten(1).sum(1)
    torch.testing.assert_close(squares, (weight * factors).square().flatten(1).sum(1), **EXACT)


def prepared(tmp_path, method, floor=0.3, **parameters):
    """Return a trajectory after its first experiment, and the intervention with the given parameters."""
    moving = toy.advance(toy.trajectory(tmp_path, toy.params().run("warm", 0), toy.dataset()), chunks=1)
    given = parameters if method == "norm_reset" else {"floor": floor, **parameters}
    return moving, build_intervention(method, given)


def weights_after(tmp_path, *methods, **parameters):
    """Return the state after interventions that all see the gradient of the same weights."""
    moving, _ = prepared(tmp_path, methods[0], **parameters)
    for method in methods:
        _, intervention = prepared(tmp_path / method, method, **parameters)
        intervention.before_chunk(moving.learner, moving.images.training(2))
    return {name: tensor.clone() for name, tensor in moving.learner.model.state_dict().items()}


@pytest.mark.parametrize("granularity", ["filter", "layer", "weight"])
@pytest.mark.parametrize("name", WEIGHTS)
def test_other_granularities_give_the_reference_weights(name, granularity):
    weight, gradient, factors, dims = of(name)
    control = build_intervention("dash_granularity", {"granularity": granularity})
    used = control.factors_used(None, None, name, weight, gradient, dims, factors)
    key = {"filter": "per_filter", "layer": "per_layer", "weight": "per_weight_sign"}[granularity]
    torch.testing.assert_close(weight * used, TENSORS[f"{key}/{name}"], **EXACT)


@pytest.mark.parametrize("name", WEIGHTS)
def test_the_reversed_gradient_gives_the_reference_weights(name):
    weight, gradient, factors, dims = of(name)
    used = build_intervention("dash_reversed", {}).factors_used(None, None, name, weight, gradient, dims, factors)
    torch.testing.assert_close(weight * used, TENSORS[f"reversed/{name}"], **EXACT)


@pytest.mark.parametrize("kind", CONTROLS, ids=lambda kind: kind.name)
def test_without_strength_every_control_is_warm_bit_for_bit(tmp_path, kind):
    parameters = {"strength": 0.0} if kind.name == "norm_reset" else {"floor": 1.0}
    moving, control = prepared(tmp_path, kind.name, **parameters)
    before = {name: tensor.clone() for name, tensor in moving.learner.model.state_dict().items()}
    control.before_chunk(moving.learner, moving.images.training(2))
    for name, tensor in moving.learner.model.state_dict().items():
        assert torch.equal(tensor, before[name]), name


@pytest.mark.parametrize("kind", CONTROLS, ids=lambda kind: kind.name)
def test_every_control_changes_weights_and_nothing_of_normalisation(tmp_path, kind):
    moving, control = prepared(tmp_path, kind.name)
    before = {name: tensor.clone() for name, tensor in moving.learner.model.state_dict().items()}
    measured = control.before_chunk(moving.learner, moving.images.training(2))
    after = moving.learner.model.state_dict()
    assert not torch.equal(after["block1.0.weight"], before["block1.0.weight"])
    assert all(torch.equal(after[name], before[name]) for name in before if "running" in name or "block1.1" in name)
    assert all(torch.isfinite(torch.tensor(value)) for value in measured.values())


def test_dash_norms_leaves_the_train_mode_function_where_normalisation_follows():
    """Up to BatchNorm's eps: a filter's norm cancels when its output is normalised by the batch."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6, eps=1e-12), nn.ReLU(), nn.AdaptiveAvgPool2d(1)).double()
    x = torch.randn(8, 3, 8, 8, dtype=torch.float64)
    expected = net(x)
    weight = net[0].weight
    factors = torch.rand(6, 3, 1, 1, dtype=torch.float64) * 0.7 + 0.3
    with torch.no_grad():
        net[0].bias.zero_()
        expected = net(x)
        weight.mul_(filter_norm_ratios(weight, factors))
    torch.testing.assert_close(net(x), expected, rtol=0, atol=1e-8)


def test_a_control_whose_factors_are_dashs_says_so(tmp_path, caplog):
    run = toy.params(model={"name": "mlp"}).run("warm", 0)
    moving = toy.advance(toy.trajectory(tmp_path, run, toy.dataset()), chunks=1)
    control = build_intervention("dash_permuted_in_filter", {})  # no kernels in an MLP
    assert control.before_chunk(moving.learner, moving.images.training(2))["factor_change"] == 0
    assert "dash_permuted_in_filter: its factors are those of DASH, so that this control tells nothing" in caplog.text


def test_norm_reset_gives_each_layer_the_norm_of_its_initialisation(tmp_path):
    moving, control = prepared(tmp_path, "norm_reset")
    control.before_chunk(moving.learner, moving.images.training(2))
    for name, weight in moving.learner.model.state_dict().items():
        if name in ("block1.0.weight", "fc.weight"):
            assert weight.norm().item() == pytest.approx(moving.learner.initial[name].norm().item(), rel=1e-5)


def test_shuffled_labels_are_those_of_each_chunk(tmp_path):
    moving, control = prepared(tmp_path, "dash_shuffled_labels")
    given, used = (
        list(moving.images.training(2).chunks()),
        list(control.chunks(moving.learner, moving.images.training(2))),
    )
    for (images, labels), (same_images, shuffled) in zip(given, used, strict=True):
        assert torch.equal(images, same_images)
        assert torch.equal(labels.sort().values, shuffled.sort().values)
    assert any(not torch.equal(a[1], b[1]) for a, b in zip(given, used, strict=True))
