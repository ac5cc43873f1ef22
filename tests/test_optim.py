"""Our optimisers are torch's, bit for bit: only torch's compiler is left aside."""

import copy
from pathlib import Path

import pytest
import torch
from torch import nn

from dash_core.config import OptimizerConfig
from dash_core.errors import ConfigError
from dash_core.optim import build_optimizer
from dash_core.rehearsal import rehearse
from tests import toy

pytestmark = pytest.mark.processor

TORCHS = {
    "sgd": lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9, weight_decay=5e-4, fused=True),
    "adam": lambda parameters: torch.optim.Adam(parameters, lr=0.1, weight_decay=5e-4, fused=True),
    "adamw": lambda parameters: torch.optim.AdamW(parameters, lr=0.1, weight_decay=5e-4, fused=True),
}
INPUTS, LABELS = torch.rand(16, 5, generator=torch.Generator().manual_seed(0)), torch.arange(16) % 3


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3))


def steps(model: nn.Module, optimizer: torch.optim.Optimizer, count: int) -> list[torch.Tensor]:
    for _ in range(count):
        nn.functional.cross_entropy(model(INPUTS), LABELS).backward()
        optimizer.step()
        optimizer.zero_grad()
    return [parameter.detach().clone() for parameter in model.parameters()]


@pytest.mark.parametrize("name", TORCHS)
def test_a_step_is_that_of_torchs_own_optimiser_also_with_a_state_that_was_saved(name: str) -> None:
    ours, theirs = network(), network()
    mine = build_optimizer(ours, OptimizerConfig(name=name, lr=0.1, momentum=0.9 * (name == "sgd"), weight_decay=5e-4))
    torchs = TORCHS[name](theirs.parameters())
    for _ in range(2):
        for a, b in zip(steps(ours, mine, 3), steps(theirs, torchs, 3), strict=True):
            assert torch.equal(a, b)
        assert all(parameter.grad is None for parameter in ours.parameters())
        states = [copy.deepcopy(optimizer.state_dict()) for optimizer in (mine, torchs)]
        assert [list(state["state"]) for state in states] == [[0, 1, 2, 3]] * 2
        mine = build_optimizer(ours, OptimizerConfig(name=name, lr=0.5, momentum=0.9 * (name == "sgd")))
        mine.load_state_dict(states[1])
        torchs.load_state_dict(states[0])
        assert mine.param_groups[0]["lr"] == 0.1


def test_gradients_are_tracked_again_after_a_step() -> None:
    model = network()
    steps(model, build_optimizer(model, OptimizerConfig()), 1)
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("name", ["sgd", "sam", "adamw"])
def test_a_layer_with_its_own_rate_is_trained_as_by_a_group_of_torchs_optimiser(name: str) -> None:
    """With lr 0.1 and a factor of 0.5 the second layer moves as with lr 0.05, the others as before."""
    config = OptimizerConfig(name=name, lr=0.1, lr_multipliers={"2": 0.5})
    whole, half, own = network(), network(), network()
    optimizers = [
        build_optimizer(whole, OptimizerConfig(name=name, lr=0.1)),
        build_optimizer(half, OptimizerConfig(name=name, lr=0.05)),
        build_optimizer(own, config),
    ]
    assert [group["lr"] for group in optimizers[-1].param_groups] == [0.1, 0.05]
    for model, optimizer in zip((whole, half, own), optimizers, strict=True):
        nn.functional.cross_entropy(model(INPUTS), LABELS).backward()
        optimizer.step()
    assert torch.equal(own[0].weight, whole[0].weight)
    assert torch.equal(own[2].weight, half[2].weight)
    assert not torch.equal(own[2].weight, whole[2].weight)


def test_of_nested_layers_the_inner_ones_rate_counts() -> None:
    model = nn.Sequential(network(), nn.Linear(3, 3))
    config = OptimizerConfig(lr=1.0, lr_multipliers={"0": 0.1, "0.2": 0.01})
    groups = build_optimizer(model, config).param_groups
    assert [(group["lr"], len(group["params"])) for group in groups] == [(1.0, 2), (0.1, 2), (0.01, 2)]


@pytest.mark.parametrize(
    ("layer", "words"),
    [
        ("1", r"the model has no layer '1'; its layers: 0, 2|1 has no parameter of its own"),
        ("first", "the model has no layer 'first'; its layers: 0, 1, 2"),
        ("0", "0 has no parameter of its own that is trained; leave it out"),
    ],
)
def test_a_rate_that_no_parameter_takes_is_refused(layer: str, words: str, tmp_path: Path) -> None:
    model = network()
    model[0].requires_grad_(False)
    with pytest.raises(ConfigError, match=rf"optimizer\.lr_multipliers: ({words})"):
        build_optimizer(model, OptimizerConfig(lr_multipliers={layer: 0.1}))
    run = toy.params(optimizer={"lr_multipliers": {"nowhere": 0.1}}).run("warm", 0)
    with pytest.raises(ConfigError, match="no layer 'nowhere'"):
        rehearse(run, toy.dataset())
    with pytest.raises(ConfigError, match="no layer 'nowhere'"):
        toy.trajectory(tmp_path, run, toy.dataset())


def test_tied_weights_take_the_rate_of_the_first_layer_that_has_them() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3, bias=False))
    model[1].weight = model[0].weight
    with pytest.raises(ConfigError, match="1 has no parameter of its own"):
        build_optimizer(model, OptimizerConfig(lr_multipliers={"1": 0.1}))
