"""Which weights are shrunk, along which axes, and what is said about the others."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, prune
from torch.nn.utils import spectral_norm as old_spectral_norm
from torch.nn.utils import weight_norm as old_weight_norm

from dash_core import LeftAloneWarning, averaged_gradient, dash_, find_weights, shrink_, shrink_along_, shrink_perturb_
from dash_core.shrinking import cosine_similarity

old_hooks = pytest.mark.filterwarnings("ignore:.*torch.nn.utils.weight_norm:FutureWarning")


class Conv1D(nn.Module):
    """The layer of transformers: a Linear layer whose weight is (in, out)."""

    def __init__(self, nf: int, nx: int) -> None:
        super().__init__()
        self.nf = nf
        self.weight = nn.Parameter(torch.randn(nx, nf))
        self.bias = nn.Parameter(torch.randn(nf))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight + self.bias


@pytest.mark.parametrize(
    ("layer", "dims"),
    [
        (nn.Conv1d(2, 4, 3), {"weight": (2,), "bias": (0,)}),
        (nn.Conv2d(2, 4, 3), {"weight": (2, 3), "bias": (0,)}),
        (nn.Conv3d(2, 4, 3, bias=False), {"weight": (2, 3, 4)}),
        (nn.ConvTranspose1d(2, 4, 3, groups=2), {"weight": (2,), "bias": (0,)}),
        (nn.ConvTranspose2d(2, 4, 3), {"weight": (2, 3), "bias": (0,)}),
        (nn.ConvTranspose3d(2, 4, 3), {"weight": (2, 3, 4), "bias": (0,)}),
        (nn.Linear(2, 3), {"weight": (1,), "bias": (0,)}),
        (nn.Bilinear(2, 3, 4), {"weight": (1, 2), "bias": (0,)}),
        (Conv1D(3, 2), {"weight": (0,), "bias": (0,)}),
        (nn.GRUCell(2, 3), {"weight_ih": (1,), "weight_hh": (1,), "bias_ih": (0,), "bias_hh": (0,)}),
        (nn.RNN(2, 3, bias=False), {"weight_ih_l0": (1,), "weight_hh_l0": (1,)}),
        (
            nn.LSTM(2, 3, bias=False, proj_size=1, bidirectional=True),
            {f"weight_{kind}_l0{way}": (1,) for way in ("", "_reverse") for kind in ("ih", "hh", "hr")},
        ),
        (
            nn.MultiheadAttention(4, 2),
            {"in_proj_weight": (1,), "in_proj_bias": (0,), "out_proj.weight": (1,), "out_proj.bias": (0,)},
        ),
        (
            nn.MultiheadAttention(4, 2, kdim=3, vdim=5, bias=False),
            {"q_proj_weight": (1,), "k_proj_weight": (1,), "v_proj_weight": (1,), "out_proj.weight": (1,)},
        ),
    ],
    ids=lambda value: type(value).__name__,
)
def test_every_weight_of_a_layer_is_found_and_its_vectors_lie_along_its_inputs(layer, dims):
    found = find_weights(layer)
    assert {weight.name: weight.dims for weight in found.shrunk} == dims
    assert found.left_alone == {}
    assert set(dict(layer.named_parameters())) == set(dims)


def test_each_kernel_of_a_transposed_convolution_is_one_vector():
    layer = nn.ConvTranspose1d(1, 2, 2, bias=False)
    layer.weight.data = torch.tensor([[[1.0, 0.0], [0.0, 5.0]]])  # (in, out, kernel)
    shrink_along_(layer, {"weight": torch.tensor([[[-1.0, 0.0], [0.0, 5.0]]])}, 0.3)
    assert layer.weight.flatten().tolist() == [1.0, 0.0, 0.0, 1.5]  # one kept, one at the floor


def data(features: int = 6) -> list[tuple[Tensor, Tensor]]:
    draws = torch.Generator().manual_seed(0)
    return [(torch.randn(n, features, generator=draws).double(), torch.arange(n) % 3) for n in (7, 9)]


def net(*layers: nn.Module) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(*layers).double()


def test_the_conv1d_of_transformers_is_shrunk_as_the_linear_layer_that_it_stands_for():
    linear, transposed = net(nn.Linear(6, 3)), net(Conv1D(3, 6))
    with torch.no_grad():
        transposed[0].weight.copy_(linear[0].weight.T)
        transposed[0].bias.copy_(linear[0].bias)
    reports = [dash_(model, data()) for model in (linear, transposed)]
    torch.testing.assert_close(transposed[0].weight.T, linear[0].weight, rtol=0, atol=1e-12)
    assert [reports[0][name].at_floor for name in reports[0]] == [reports[1][name].at_floor for name in reports[1]]


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(6, 2, batch_first=True)
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        tokens = x[:, None] * torch.linspace(0.5, 2, 4, dtype=x.dtype)[:, None]
        return self.head(self.attention(tokens, tokens, tokens)[0].mean(1))


def test_attention_is_shrunk_by_the_rows_of_its_projections():
    model = Attention().double()
    before, gradient = model.attention.in_proj_weight.detach().clone(), averaged_gradient(model, data())
    reports = dash_(model, data())
    factors = torch.cosine_similarity(before, -gradient["attention.in_proj_weight"], dim=1).clamp(min=0.3)
    expected = before * factors[:, None]
    torch.testing.assert_close(model.attention.in_proj_weight.detach(), expected, rtol=0, atol=1e-12)
    assert reports["attention.in_proj_weight"].vectors == 18
    assert reports.left_alone == {}


def plain_and_normed(norm, layer=None) -> tuple[nn.Sequential, nn.Sequential]:
    """Return a network, and one with the same weights whose first layer computes its weight."""
    plain = net(layer or nn.Linear(6, 5), nn.Tanh(), nn.Flatten(), nn.LazyLinear(3, dtype=torch.float64))
    plain(data()[0][0])
    normed = copy.deepcopy(plain)
    norm(normed[0])
    return plain, normed


NORMS = {
    "new": parametrizations.weight_norm,
    "new, by column": lambda layer: parametrizations.weight_norm(layer, dim=1),
    "old": old_weight_norm,
    "old, one norm": lambda layer: old_weight_norm(layer, dim=None),
}


@old_hooks
@pytest.mark.parametrize("way", ["dash", "loader of batches", "shrink", "shrink_perturb"])
@pytest.mark.parametrize("norm", NORMS)
def test_weight_norm_is_shrunk_through_and_the_next_forward_pass_keeps_it(norm, way):
    plain, normed = plain_and_normed(NORMS[norm])
    parameters = dict(normed.named_parameters())
    for model in (plain, normed):
        if way == "dash":
            reports = dash_(model, data())
        elif way == "loader of batches":
            dash_(model, [[pair] for pair in data()])
        elif way == "shrink":
            shrink_(model, 0.4)
        else:
            shrink_perturb_(model, generator=torch.Generator().manual_seed(1))
    inputs = data()[0][0]
    torch.testing.assert_close(normed[0].weight, plain[0].weight, rtol=0, atol=1e-12)
    torch.testing.assert_close(normed(inputs), plain(inputs), rtol=0, atol=1e-12)
    assert all(parameter is parameters[name] for name, parameter in normed.named_parameters())  # the optimiser has them
    assert all(parameter.grad is None for parameter in normed.parameters())
    if way == "dash":
        assert reports["0.weight"].vectors == 5
        assert reports.left_alone == {}
    normed(inputs).sum().backward()  # and trains on
    assert all(parameter.grad is not None for parameter in normed.parameters())


@pytest.mark.parametrize("norm", [parametrizations.weight_norm])
def test_convolutions_and_attention_are_shrunk_through_weight_norm(norm):
    for model, kinds in ((net(nn.Conv1d(1, 4, 3), nn.Flatten(), nn.Linear(16, 3)), ["0.weight"]), (Attention(), [])):
        twin = copy.deepcopy(model.double())
        norm(twin[0] if kinds else twin.attention, "weight" if kinds else "in_proj_weight")
        chunks = [(inputs[:, None] if kinds else inputs, labels) for inputs, labels in data()]
        for each in (model, twin):
            dash_(each, chunks)
        (name,) = kinds or ["attention.in_proj_weight"]
        shrunk = {weight.name: weight.value() for weight in find_weights(twin).shrunk}
        torch.testing.assert_close(shrunk[name], model.get_parameter(name).detach(), rtol=0, atol=1e-12)


def test_an_lstm_is_shrunk_through_weight_norm():
    class Reader(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm, self.head = nn.LSTM(2, 4, batch_first=True), nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.lstm(x.view(len(x), 3, 2))[0][:, -1])

    model = Reader().double()
    twin = copy.deepcopy(model)
    parametrizations.weight_norm(twin.lstm, "weight_hh_l0")
    for each in (model, twin):
        dash_(each, data())
    torch.testing.assert_close(twin.lstm.weight_hh_l0, model.lstm.weight_hh_l0, rtol=0, atol=1e-12)
    torch.testing.assert_close(twin(data()[0][0]), model(data()[0][0]), rtol=0, atol=1e-12)


CONSTRAINTS = {
    "0.weight": (parametrizations.spectral_norm, r"its parametrisation \(SpectralNorm\) would undo the shrinking"),
    "0.weight ": (parametrizations.orthogonal, r"its parametrisation \(Orthogonal\) would undo the shrinking"),
    "0.weight_orig": (old_spectral_norm, "a hook computes the layer's weight from it, and would undo the shrinking"),
    "0.weight_orig ": (
        lambda layer: prune.l1_unstructured(layer, "weight", amount=0.5),
        "a hook computes the layer's weight from it, and would undo the shrinking",
    ),
}


@pytest.mark.parametrize("name", CONSTRAINTS)
def test_a_constraint_that_would_undo_the_shrinking_is_left_alone_and_named(name):
    constrain, words = CONSTRAINTS[name]
    _, model = plain_and_normed(constrain, nn.Linear(6, 8))
    before = {key: tensor.clone() for key, tensor in model.state_dict().items() if key.startswith("0.")}
    with pytest.warns(LeftAloneWarning, match=rf"67% of the weights are left alone: {name.strip()} \(.*{words}"):
        reports = dash_(model, data())
    assert list(reports) == ["0.bias", "3.weight", "3.bias"]
    assert list(reports.left_alone) == [name.strip()]
    after = model.state_dict()
    assert all(torch.equal(after[key], tensor) for key, tensor in before.items() if key != "0.bias")


@old_hooks
@pytest.mark.parametrize("norm", ["new", "old"])
def test_a_floor_of_zero_on_normalised_weights_is_refused_before_anything_changes(norm):
    _, model = plain_and_normed(NORMS[norm])
    before = copy.deepcopy(model.state_dict())
    gradient = averaged_gradient(model, data())
    gradient["0.weight"] = next(weight.value() for weight in find_weights(model).shrunk)  # every factor is the floor
    for shrink in (lambda: shrink_along_(model, gradient, 0.0), lambda: shrink_(model, 0.0)):
        with pytest.raises(ValueError, match=r"0\.weight cannot have a weight vector of zeros"):
            shrink()
        assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_inside_a_cache_of_parametrisations_shrinking_is_refused():
    _, model = plain_and_normed(parametrizations.weight_norm)
    with parametrize.cached():
        model(data()[0][0])
        with pytest.raises(ValueError, match=r"outside of torch's parametrize\.cached"):
            dash_(model, data())


def test_an_embedding_is_left_alone_for_tokens_without_a_gradient_and_a_warning_says_so():
    model = net(nn.Embedding(5, 4), nn.Flatten(), nn.Linear(8, 3))
    chunks = [(torch.randint(5, (6, 2)), torch.arange(6) % 3)]
    with pytest.warns(
        LeftAloneWarning, match=r"45% of the weights are left alone: 0\.weight \(Embedding: the gradient"
    ):
        reports = dash_(model, chunks)
    assert list(reports) == ["2.weight", "2.bias"]
    assert list(reports.left_alone) == ["0.weight"]
    with pytest.warns(LeftAloneWarning, match="45%"):
        shrink_(model, 0.5)


def test_a_weight_that_an_embedding_shares_with_a_linear_layer_is_shrunk_once():
    model = net(nn.Embedding(5, 4), nn.Linear(4, 5, bias=False))
    model[1].weight = model[0].weight
    before = model[0].weight.detach().clone()
    shrink_(model, 0.5)
    assert torch.equal(model[0].weight, before * 0.5)
    assert find_weights(model).left_alone == {}


def test_a_frozen_layer_is_named_and_a_frozen_model_is_refused():
    model = net(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Linear(5, 3))
    model[0].requires_grad_(False)
    with pytest.warns(LeftAloneWarning, match=r"67% of the weights are left alone: 0\.weight, 0\.bias \(frozen"):
        reports = dash_(model, data())
    assert {name: reason.split(":")[0] for name, reason in reports.left_alone.items()} == {
        **{"0.weight": "frozen", "0.bias": "frozen"},
        **{"1.weight": "BatchNorm1d", "1.bias": "BatchNorm1d"},
    }
    model.requires_grad_(False)
    before = copy.deepcopy(model.state_dict())
    for shrink in (lambda: dash_(model, data()), lambda: shrink_(model, 0.5), lambda: shrink_perturb_(model)):
        with pytest.raises(
            ValueError, match=r"nothing to shrink .* \(frozen: .*requires_grad_\(\) on a layer makes it"
        ):
            shrink()
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_a_little_that_is_left_alone_is_no_warning():
    model = net(nn.Linear(60, 40), nn.Linear(40, 3))
    model[0].bias.requires_grad_(False)
    model.token = nn.Parameter(torch.zeros(1, 20))
    shrink_(model, 0.5)
    assert find_weights(model).left_alone == {
        "token": "Sequential: this parameter has no known weight vectors",
        "0.bias": "frozen: its requires_grad is False",
    }


class Dense(nn.Module):
    """A layer of another library: its kernel is (in, out)."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.randn(6, 3))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.kernel


def columns(model: nn.Module):
    return [("0.kernel", model[0].kernel, (0,))]


def test_a_caller_names_further_layers():
    model, linear = net(Dense()), net(nn.Linear(6, 3, bias=False))
    with torch.no_grad():
        linear[0].weight.copy_(model[0].kernel.T)
    with pytest.raises(ValueError, match=r"nothing to shrink in this model: 0\.kernel \(Dense: this parameter has no"):
        dash_(model, data())
    dash_(model, data(), vectors=columns)
    dash_(linear, data())
    torch.testing.assert_close(model[0].kernel.T, linear[0].weight, rtol=0, atol=1e-12)
    for each, further in ((model, {"vectors": columns}), (linear, {})):
        shrink_(each, 0.5, **further)
    torch.testing.assert_close(model[0].kernel.T, linear[0].weight, rtol=0, atol=1e-12)


def test_a_caller_may_choose_other_vectors_of_a_known_layer():
    model = net(nn.Linear(6, 3))
    before, gradient = model[0].weight.detach().clone(), averaged_gradient(model, data())["0.weight"]
    reports = dash_(model, data(), vectors=lambda model: [("columns", model[0].weight, (0,))])
    assert {name: report.vectors for name, report in reports.items()} == {"0.bias": 1, "columns": 6}
    factors = -cosine_similarity(before, gradient, (0,))
    torch.testing.assert_close(model[0].weight.detach(), before * factors.clamp(min=0.3), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("named", "words"),
    [
        (lambda model: [("x", nn.Parameter(torch.ones(2, 2)), (0,))], "named x, which is no parameter of the model"),
        (lambda model: [("x", model[0].weight, (2,))], r"gave the dims \(2,\) for x of shape \(3, 6\): .* \(0, 1\)"),
        (lambda model: [("x", model[0].weight, ())], r"gave the dims \(\) for x"),
        (lambda model: [("x", model[0].weight, (0,)), ("x", model[0].bias, (0,))], "named a weight or a name twice"),
        (lambda model: [("x", model[0].bias.requires_grad_(False), (0,))], "named x, which is frozen"),
    ],
)
def test_further_layers_that_cannot_be_are_refused(named, words):
    with pytest.raises(ValueError, match=words):
        shrink_(net(nn.Linear(6, 3)), 0.5, vectors=named)


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (nn.Linear(6, 3, device="meta"), "weight has no values: it is on the meta device. Load or initialise"),
        (nn.LazyLinear(3), "weight has no values yet: call the model once on a batch"),
    ],
)
def test_a_model_without_values_is_refused(model, words):
    for shrink in (lambda: shrink_perturb_(model), lambda: shrink_(model, 0.3), lambda: dash_(model, data())):
        with pytest.raises(ValueError, match=words):
            shrink()


def test_torchvisions_vit_is_shrunk_but_for_tokens_positions_and_normalisation():
    from torchvision.models import VisionTransformer

    model = VisionTransformer(image_size=8, patch_size=4, num_layers=2, num_heads=2, hidden_dim=64, mlp_dim=128)
    assert {weight.name.split(".")[-1] for weight in find_weights(model).shrunk} >= {"in_proj_weight", "in_proj_bias"}
    left_alone = find_weights(model).left_alone
    others = {name for name, reason in left_alone.items() if not reason.startswith("LayerNorm")}
    assert others == {"class_token", "encoder.pos_embedding"}
    shrink_(model, 0.5)  # too few for a warning
