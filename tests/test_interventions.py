"""What each intervention changes, and what it carries over."""

import pytest
import torch

from dash_core.errors import ConfigError
from dash_core.interventions import INTERVENTIONS, build_intervention
from dash_core.penalties import l2_init_penalty
from dash_core.shrinking import shrink_, shrink_perturb_
from tests import golden, toy

pytestmark = pytest.mark.processor


def after_one_chunk(tmp_path, method, **changes):
    """Return a trajectory that trained its first chunk, and its state before the intervention of the second."""
    moving = toy.advance(toy.trajectory(tmp_path, toy.params(**changes).run(method, 0), toy.dataset()), chunks=1)
    before = {name: tensor.clone() for name, tensor in moving.learner.model.state_dict().items()}
    momentum = [moving.learner.optimizer.state[p]["momentum_buffer"].clone() for p in moving.learner.model.parameters()]
    moving.intervene(2)
    return moving.learner, before, momentum


def momentum_of(learner):
    return [learner.optimizer.state[p].get("momentum_buffer") for p in learner.model.parameters()]


@pytest.mark.parametrize(
    "method", ["warm", "shrink", "shrink_perturb", "head_reset", "l2_init", "l2_init_authors", "dash"]
)
def test_momentum_is_kept(tmp_path, method):
    learner, _, momentum = after_one_chunk(tmp_path, method)
    assert all(torch.equal(now, then) for now, then in zip(momentum_of(learner), momentum, strict=True))


@pytest.mark.parametrize("method", ["cold", "warm_rm", "shrink_perturb_ash_adams"])
def test_the_optimiser_starts_anew(tmp_path, method):
    learner, _, _ = after_one_chunk(tmp_path, method)
    assert momentum_of(learner) == [None] * len(list(learner.model.parameters()))


@pytest.mark.parametrize("method", ["warm", "warm_rm", "l2_init", "l2_init_authors"])
def test_weights_and_buffers_are_kept(tmp_path, method):
    learner, before, _ = after_one_chunk(tmp_path, method)
    assert all(torch.equal(tensor, before[name]) for name, tensor in learner.model.state_dict().items())


def test_cold_draws_new_weights_and_statistics_each_time(tmp_path):
    learner, before, _ = after_one_chunk(tmp_path, "cold")
    state = learner.model.state_dict()
    first = learner.fresh_state("init", 1)
    assert not torch.equal(state["fc.weight"], before["fc.weight"])
    assert not torch.equal(state["fc.weight"], first["fc.weight"])
    assert torch.equal(state["block1.1.running_mean"], torch.zeros(16))


def test_shrink_scales_weights_and_biases_and_leaves_normalisation(tmp_path):
    learner, before, _ = after_one_chunk(tmp_path, "shrink", methods={"shrink": {"shrink": 0.25}})
    for name, tensor in learner.model.state_dict().items():
        convolution_or_linear = name in (
            "block1.0.weight",
            "block2.0.weight",
            "block3.0.weight",
            "fc.weight",
            "fc.bias",
        )
        assert torch.equal(tensor, before[name] * 0.25 if convolution_or_linear else before[name]), name


def test_shrink_perturb_adds_noise_of_the_given_standard_deviation():
    model = torch.nn.Linear(400, 500)
    before = model.weight.detach().clone()
    shrink_perturb_(model, shrink=0.3, sigma=0.05, generator=torch.Generator().manual_seed(0))
    noise = model.weight.detach() - 0.3 * before
    assert noise.std().item() == pytest.approx(0.05, rel=0.01)
    assert noise.mean().item() == pytest.approx(0.0, abs=5e-4)


def test_shrink_perturb_touches_biases_and_not_batchnorm():
    model = golden.cnn()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    shrink_perturb_(model, generator=torch.Generator().manual_seed(0))
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == {"0.weight", "0.bias", "3.weight", "8.weight", "8.bias"}


def test_ash_and_adams_mix_all_parameters_with_a_fresh_model(tmp_path):
    learner, before, _ = after_one_chunk(tmp_path, "shrink_perturb_ash_adams")
    fresh = learner.fresh_state("perturb", 2)
    for name, parameter in learner.model.named_parameters():
        torch.testing.assert_close(parameter.detach(), 0.4 * before[name] + 0.1 * fresh[name])
    for name, buffer in learner.model.named_buffers():
        assert torch.equal(buffer, fresh[name])


def test_head_reset_draws_the_head_anew_and_keeps_the_rest(tmp_path):
    learner, before, _ = after_one_chunk(tmp_path, "head_reset")
    state = learner.model.state_dict()
    changed = {name for name in state if not torch.equal(state[name], before[name])}
    assert changed == {"fc.weight", "fc.bias"}
    assert torch.equal(state["fc.weight"], learner.fresh_state("head", 2)["fc.weight"])


def test_l2_init_pulls_towards_the_first_initialisation(tmp_path):
    distances = {}
    for strength in (0.0, 1.0):
        changes = {"methods": {"l2_init": {"strength": strength}}, "training": {"max_epochs": 10}}
        moving = toy.trajectory(tmp_path / str(strength), toy.params(**changes).run("l2_init", 0), toy.dataset())
        learner = toy.advance(moving, chunks=1).learner
        drift = [(p.detach() - learner.initial[name]).norm() for name, p in learner.model.named_parameters()]
        distances[strength] = float(torch.stack(drift).norm())
    assert distances[1.0] < 0.8 * distances[0.0]


def test_l2_init_penalises_every_parameter_by_its_squared_distance():
    model = torch.nn.Linear(2, 1)
    initial = {"weight": model.weight.detach() - torch.tensor([[1.0, 2.0]]), "bias": model.bias.detach() - 3.0}
    assert l2_init_penalty(model, initial).item() == pytest.approx(1 + 4 + 9)


@pytest.mark.parametrize("method", list(INTERVENTIONS))
def test_modes_gradients_and_global_generators_are_left_as_found(tmp_path, method):
    moving = toy.advance(toy.trajectory(tmp_path, toy.params().run(method, 0), toy.dataset()), chunks=1)
    modes = [module.training for module in moving.learner.model.modules()]
    random = torch.get_rng_state()
    moving.intervene(2)
    assert [module.training for module in moving.learner.model.modules()] == modes
    assert all(parameter.grad is None for parameter in moving.learner.model.parameters())
    assert torch.equal(torch.get_rng_state(), random)


@pytest.mark.parametrize("normalisation", ["batch", "layer", "group"])
@pytest.mark.parametrize("method", ["dash", "shrink_perturb", "shrink"])
def test_shrinking_leaves_every_kind_of_normalisation_as_it_is(tmp_path, method, normalisation):
    run = toy.params(model={"name": "resnet18", "normalisation": normalisation}).run(method, 0)
    moving = toy.trajectory(tmp_path, run, toy.dataset(train=12))
    model, kinds = moving.learner.model, (torch.nn.BatchNorm2d, torch.nn.GroupNorm)
    parts = {name: part for name, part in model.named_modules() if isinstance(part, kinds)}
    before = {name: {key: value.clone() for key, value in part.state_dict().items()} for name, part in parts.items()}
    convolution = model.conv1.weight.clone()
    moving.intervention.before_chunk(moving.learner, moving.images.training(2))
    assert len(parts) == 20
    for name, part in parts.items():
        assert all(torch.equal(value, before[name][key]) for key, value in part.state_dict().items())
    assert not torch.equal(model.conv1.weight, convolution)


@pytest.mark.parametrize("factor", [-0.1, 1.1, float("nan")])
def test_a_factor_outside_0_to_1_is_refused(factor):
    with pytest.raises(ValueError, match=r"factor must be in \[0, 1\]"):
        shrink_(golden.mlp(), factor)


@pytest.mark.parametrize(
    ("name", "parameters", "words"),
    [
        ("dash", {"alpha": 0}, "dash.alpha: input should be greater than 0, got 0"),
        ("dash", {"flor": 0.1}, r"unknown key dash.flor \(did you mean 'floor'\?\)"),
        ("dash", {"floor": "0.3"}, "dash.floor: input should be a valid number, got '0.3'"),
        ("shrink_perturb", {"sigma": -1}, "shrink_perturb.sigma"),
        ("dahs", {}, r"unknown intervention 'dahs' \(did you mean 'dash'\?\)"),
    ],
)
def test_wrong_parameters_name_the_key_and_what_is_allowed(name, parameters, words):
    with pytest.raises(ConfigError, match=words):
        build_intervention(name, parameters)
