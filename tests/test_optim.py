"""Our optimisers are torch's, bit for bit: only torch's compiler is left aside."""

import copy

import pytest
import torch
from torch import nn

from dash_core.config import OptimizerConfig
from dash_core.optim import build_optimizer

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
