"""Each measure against a network or a matrix small enough to work out by hand."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from dash_core.diagnostics.features import effective_rank, features_seen
from dash_core.diagnostics.gradients import alignment_with, quantile, summed_gradient_norm
from dash_core.diagnostics.units import relu_outputs, unit_shares
from dash_core.diagnostics.weights import weight_norms, whole_norm
from dash_core.models import build_model, model_spec

pytestmark = pytest.mark.processor


def linear(rows: list[list[float]], bias: list[float] | None = None) -> nn.Linear:
    layer = nn.Linear(len(rows[0]), len(rows), bias=bias is not None)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(rows))
        if bias is not None:
            layer.bias.copy_(torch.tensor(bias))
    return layer


class Twice(nn.Module):
    """One ReLU module called twice, as in torchvision's BasicBlock, and a functional one after it."""

    def __init__(self) -> None:
        super().__init__()
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.relu(self.relu(x) - 1) - 1)


def shares(model: nn.Module, inputs: Tensor) -> dict[str, float]:
    return unit_shares(relu_outputs(model, lambda: model(inputs)))


def test_a_unit_is_dead_only_if_its_output_is_zero_for_every_image():
    model = nn.Sequential(linear([[1.0], [-1.0]]), nn.ReLU())
    assert shares(model, torch.tensor([[1.0], [2.0]]))["dead"] == 0.5  # the second sees only positive inputs
    assert shares(model, torch.tensor([[1.0], [-2.0]]))["dead"] == 0.0


def test_a_unit_is_dormant_at_a_fortieth_of_its_layers_mean():
    # means 79 and 1: their mean is 40, and 1 / 40 = 0.025; at 80 and 1 the score is 1 / 40.5
    for large, dormant in ((78.0, 0.0), (79.0, 0.5), (80.0, 0.5)):
        model = nn.Sequential(linear([[large], [1.0]]), nn.ReLU())
        found = shares(model, torch.tensor([[0.5], [1.5]]))
        assert (found["dead"], found["dormant"]) == (0.0, dormant)


def test_all_units_of_a_layer_that_gives_nothing_are_dead_and_dormant():
    model = nn.Sequential(linear([[-1.0], [-2.0]]), nn.ReLU())
    found = shares(model, torch.ones(3, 1))
    assert (found["dead"], found["dormant"]) == (1.0, 1.0)


def test_a_maps_unit_is_a_channel_and_lives_by_a_single_pixel():
    x = torch.full((1, 2, 3, 3), -1.0)
    x[0, 1, 2, 2] = 1.0
    assert shares(nn.Sequential(nn.ReLU()), x)["dead"] == 0.5


def test_calls_of_one_relu_are_told_apart_and_their_block_counts_all_of_them():
    model = nn.ModuleDict({"block": Twice()})
    model.forward = lambda x: model["block"](x)
    found = shares(
        model, torch.tensor([[3.5, 2.5, 1.5, 0.5]])
    )  # 3.5, 2.5, 1.5, 0.5 → 2.5, 1.5, 0.5, 0 → 1.5, 0.5, 0, 0
    assert [found[f"dead/block/{call}"] for call in (1, 2, 3)] == [0.0, 0.25, 0.5]
    assert found["dead/block"] == found["dead"] == 0.25


def test_batches_add_up_and_a_new_pass_counts_its_calls_from_the_first():
    model = Twice()
    batches = [torch.tensor([[1.0, -1.0]]), torch.tensor([[-1.0, -1.0]]), torch.tensor([[3.0, -1.0]])]
    outputs = relu_outputs(model, lambda: [model(batch.clone()) for batch in batches])
    assert {call: sums.tolist() for call, sums in outputs.items()} == {
        ("relu", 1): [4.0, 0.0],
        ("relu", 2): [2.0, 0.0],
        ("model", 1): [1.0, 0.0],
    }


def test_every_relu_of_resnet18_is_seen_and_named_by_its_block():
    model = build_model("resnet18", (1, 8, 8), 4, seed=0).eval()
    with torch.no_grad():
        outputs = relu_outputs(model, lambda: model(torch.rand(2, 1, 8, 8)))
    blocks = [f"layer{stage}.{block}" for stage in (1, 2, 3, 4) for block in (0, 1)]
    assert list(outputs) == [("relu", 1), *((block, call) for block in blocks for call in (1, 2))]
    assert [len(sums) for sums in outputs.values()] == [64] * 5 + [128] * 4 + [256] * 4 + [512] * 4


def test_watching_leaves_no_hook_behind():
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    relu_outputs(model, lambda: model(torch.ones(1, 2)))
    features_seen(model, "0", lambda: model(torch.ones(1, 2)))
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_a_model_without_relu_has_no_units():
    model = nn.Sequential(nn.Linear(2, 2), nn.GELU())
    assert shares(model, torch.ones(1, 2)) == {}


@pytest.mark.parametrize(
    ("singular", "rank"),
    [
        ([1.0, 1.0, 1.0], 3.0),
        ([5.0, 0.0, 0.0], 1.0),
        ([2.0, 1.0, 1.0], 2 * math.sqrt(2)),  # p = 1/2, 1/4, 1/4: entropy 1.5 ln 2
        ([0.0, 0.0, 0.0], 0.0),
    ],
)
def test_effective_rank_of_known_singular_values(singular, rank):
    turned, _ = torch.linalg.qr(torch.randn(7, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64))
    other, _ = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64))
    matrix = turned @ torch.diag(torch.tensor(singular, dtype=torch.float64)) @ other
    assert effective_rank(matrix) == pytest.approx(rank, abs=1e-9)
    assert effective_rank(10 * matrix) == pytest.approx(rank, abs=1e-9)


def test_features_that_are_not_finite_have_no_rank():
    assert math.isnan(effective_rank(torch.tensor([[1.0, math.inf]])))


def test_features_are_the_input_of_the_heads_last_layer_and_maps_are_averaged():
    model = nn.Sequential(linear([[2.0, 0.0], [0.0, 3.0]]), nn.Sequential(nn.ReLU(), linear([[1.0, 1.0]])))
    seen = features_seen(model, "1", lambda: [model(torch.tensor([[1.0, 1.0]])), model(torch.tensor([[-1.0, 2.0]]))])
    assert seen.tolist() == [[2.0, 3.0], [0.0, 6.0]]
    convolution = nn.Sequential(nn.Conv2d(1, 1, 1))
    assert features_seen(convolution, "0", lambda: convolution(torch.tensor([[[[1.0, 3.0]]]]))).tolist() == [[2.0]]


@pytest.mark.parametrize("name", ["cnn3", "torchvision:squeezenet1_1", "torchvision:mobilenet_v3_small"])
def test_every_head_has_a_last_layer(name):
    model = build_model(name, (3, 32, 32), 4, seed=0).eval()
    with torch.no_grad():
        seen = features_seen(model, model_spec(name).head[-1], lambda: model(torch.rand(2, 3, 32, 32)))
    assert len(seen) == 2


def test_norms_are_of_weights_without_biases_and_normalisation():
    model = nn.Sequential(linear([[3.0, 0.0], [0.0, 4.0]], bias=[9.0, 9.0]), nn.BatchNorm1d(2), linear([[12.0, 0.0]]))
    assert weight_norms(model) == {"weights": 13.0, "weights/0.weight": 5.0, "weights/2.weight": 12.0}
    assert whole_norm([]) == 0.0


def test_quantiles_lie_on_the_line_between_neighbours():
    values = torch.tensor([1.0, 2.0, 4.0, 8.0])
    assert [quantile(values, share) for share in (0.0, 0.25, 0.5, 0.75, 1.0)] == [1.0, 1.75, 3.0, 5.0, 8.0]
    assert quantile(values[:1], 0.5) == 1.0


def test_alignment_of_rows_with_known_cosines():
    layer = linear([[3.0, 4.0], [3.0, 4.0], [1.0, 0.0], [1.0, 0.0]])
    gradient = torch.tensor([[-3.0, -4.0], [3.0, 4.0], [0.0, 1.0], [-3.0, -4.0]])  # cosines 1, −1, 0 and 0.6
    found = alignment_with(layer, {"weight": gradient}, floor=0.6)
    assert found.pop("at_floor/weight") == 0.75
    assert found == pytest.approx({"above_0.1": 0.5, "min": 0.6, "q25": 0.7, "median": 0.8, "q75": 0.9, "max": 1.0})


def test_single_weights_and_biases_have_a_sign_but_no_quantile():
    layer = nn.Conv2d(2, 1, 1)
    with torch.no_grad():
        layer.weight.fill_(1.0)
        layer.bias.fill_(1.0)
    gradient = {"weight": torch.tensor([-1.0, 1.0]).view(1, 2, 1, 1), "bias": torch.tensor([-1.0])}
    assert alignment_with(layer, gradient, floor=0.3) == {"at_floor/weight": 0.5, "at_floor/bias": 0.0}


def test_where_nothing_is_aligned_there_are_no_quantiles():
    found = alignment_with(linear([[1.0, 0.0]]), {"weight": torch.tensor([[1.0, 0.0]])}, floor=0.3)
    assert found == {"above_0.1": 0.0, "at_floor/weight": 1.0}


def test_the_gradient_norm_is_of_the_sum_of_the_batches_mean_gradients():
    """With zero weights both classes have p = 1/2: the gradient of an image x of class 0 is ∓x/2 in the two rows."""
    model = linear([[0.0], [0.0]], bias=[0.0, 0.0])
    label = torch.tensor([0])
    batches = [(torch.tensor([[6.0], [2.0]]), label.repeat(2)), (torch.tensor([[4.0]]), label)]
    assert summed_gradient_norm(model, batches) == pytest.approx(math.hypot(4.0, 4.0))  # (4 + 4) / 2 in each row
    opposed = [(torch.tensor([[4.0]]), label), (torch.tensor([[4.0]]), 1 - label)]
    assert summed_gradient_norm(model, opposed) == pytest.approx(0.0)


def test_the_gradient_norm_is_taken_in_train_mode_and_leaves_all_as_found():
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 2)).eval()
    model[0].weight.grad = torch.ones_like(model[0].weight)
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    batch, generator, modes = (torch.rand(5, 3), torch.tensor([0, 1, 0, 1, 0])), torch.get_rng_state(), []
    model[1].register_forward_hook(lambda module, given, output: modes.append(module.training))
    assert summed_gradient_norm(model, [batch]) > 0
    assert modes == [True]
    assert not any(module.training for module in model.modules())
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), generator)
    assert bool((model[0].weight.grad == 1).all())
    assert model[3].weight.grad is None
