"""DASH's mechanics against examples small enough to check by hand."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from dash_core import LeftAloneWarning, averaged_gradient, dash_, shrink_along_
from dash_core.shrinking import chunk_weights, cosine_similarity
from tests import golden

pytestmark = pytest.mark.processor


def linear(rows: list[list[float]], bias: list[float] | None = None) -> nn.Linear:
    layer = nn.Linear(len(rows[0]), len(rows), bias=bias is not None, dtype=torch.float64)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(rows))
        if bias is not None:
            layer.bias.copy_(torch.tensor(bias))
    return layer


def shrunk_row(row: list[float], gradient: list[float], floor: float = 0.3) -> list[float]:
    layer = linear([row])
    shrink_along_(layer, {"weight": torch.tensor([gradient], dtype=torch.float64)}, floor)
    return layer.weight[0].tolist()


def test_a_row_that_points_along_the_descent_direction_is_kept():
    assert shrunk_row([3.0, 4.0], [-6.0, -8.0]) == pytest.approx([3.0, 4.0], abs=1e-15)


def test_a_row_that_opposes_the_descent_direction_goes_to_the_floor():
    assert shrunk_row([3.0, 4.0], [6.0, 8.0]) == pytest.approx([0.9, 1.2])


def test_a_row_at_an_angle_is_scaled_by_its_cosine():
    assert shrunk_row([1.0, 0.0], [-3.0, -4.0]) == pytest.approx([0.6, 0.0])


def test_a_zero_gradient_has_cosine_zero_and_gives_the_floor():
    assert shrunk_row([3.0, 4.0], [0.0, 0.0]) == pytest.approx([0.9, 1.2])


def test_each_norm_is_clamped_by_itself_as_torch_does():
    tiny, row = [-3e-9, -4e-9], [3e-3, 4e-3]
    expected = torch.cosine_similarity(torch.tensor(row).double(), -torch.tensor(tiny).double(), dim=0).item()
    assert expected == pytest.approx(0.5)  # ‖tiny‖ = 5e-9 counts as 1e-8
    assert shrunk_row(row, tiny) == pytest.approx([value * expected for value in row])


@pytest.mark.parametrize(("gradient", "factor"), [(-0.2, 1.0), (0.2, 0.3)])
def test_a_1x1_kernel_is_judged_by_the_sign_of_its_gradient(gradient, factor):
    layer = nn.Conv2d(1, 1, 1, bias=False, dtype=torch.float64)
    layer.weight.data.fill_(2.0)
    shrink_along_(layer, {"weight": torch.full((1, 1, 1, 1), gradient, dtype=torch.float64)}, 0.3)
    assert layer.weight.item() == pytest.approx(2.0 * factor)


def test_each_kernel_of_a_convolution_is_one_vector():
    layer = nn.Conv2d(2, 1, (1, 2), bias=False, dtype=torch.float64)
    layer.weight.data = torch.tensor([[[[1.0, 0.0]], [[0.0, 5.0]]]], dtype=torch.float64)
    gradient = torch.tensor([[[[-1.0, 0.0]], [[0.0, 5.0]]]], dtype=torch.float64)
    shrink_along_(layer, {"weight": gradient}, 0.3)
    assert layer.weight.flatten().tolist() == pytest.approx([1.0, 0.0, 0.0, 1.5])  # one kept, one at the floor


def test_a_bias_is_one_vector_whatever_its_length():
    layer = linear([[1.0], [1.0]], bias=[3.0, 4.0])
    weight = -torch.ones(2, 1, dtype=torch.float64)
    shrink_along_(layer, {"weight": weight, "bias": torch.tensor([-1.0, 0.0], dtype=torch.float64)}, 0.3)
    assert layer.bias.tolist() == pytest.approx([3.0 * 0.6, 4.0 * 0.6])


def test_the_newest_chunk_weighs_alpha_and_older_ones_fade():
    layer = linear([[0.0]])
    chunks = [(torch.tensor([[x]], dtype=torch.float64), torch.zeros(1)) for x in (1.0, 10.0, 100.0)]
    gradient = averaged_gradient(layer, chunks, alpha=0.3, loss=lambda outputs, labels: outputs.mean())
    assert gradient["weight"].item() == pytest.approx(0.3 * 100 + 0.3 * 0.7 * 10 + 0.3 * 0.7**2 * 1)


def test_normalisation_layers_and_buffers_are_untouched():
    model = golden.cnn()
    before = {key: value.clone() for key, value in model.state_dict().items() if key.startswith(("1.", "4."))}
    dash_(model, [(torch.randn(6, 3, 8, 8).double(), torch.arange(6))])
    assert before
    assert all(torch.equal(model.state_dict()[key], value) for key, value in before.items())


def test_frozen_weights_are_untouched():
    model = golden.mlp()
    model[1].weight.requires_grad_(False)
    before = model[1].weight.clone()
    with pytest.warns(LeftAloneWarning, match="frozen"):
        report = dash_(model, [(torch.randn(6, 48).double(), torch.arange(6))])
    assert torch.equal(model[1].weight, before)
    assert set(report) == {"1.bias", "4.weight", "4.bias"}


@settings(max_examples=40)
@given(floor=st.floats(0, 1), alpha=st.floats(0.01, 1), seed=st.integers(0, 2**31))
def test_nothing_grows_no_sign_flips_and_no_vector_falls_below_the_floor(floor, alpha, seed):
    generator = torch.Generator().manual_seed(seed)
    model = golden.cnn()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    chunks = [(torch.randn(5, 3, 6, 6, generator=generator).double(), torch.arange(5)) for _ in range(2)]
    dash_(model, chunks, alpha=alpha, floor=floor)
    for name, parameter in model.named_parameters():
        ratio = parameter.detach() / before[name]
        assert ratio.nan_to_num(1.0).max() <= 1 + 1e-9
        assert ratio.nan_to_num(1.0).min() >= floor - 1e-9 or name.startswith(("1.", "4."))


@pytest.mark.parametrize("micro_batch_size", [1, 3, 7, 100])
def test_micro_batches_give_the_gradient_of_whole_chunks_in_eval_mode(micro_batch_size):
    model = golden.cnn()
    chunks = [(torch.randn(n, 3, 6, 6).double(), torch.arange(n) % 10) for n in (7, 11)]
    whole = averaged_gradient(model, chunks)
    parts = averaged_gradient(model, chunks, micro_batch_size=micro_batch_size)
    for name in whole:
        torch.testing.assert_close(parts[name], whole[name], rtol=0, atol=1e-10)


def test_the_fast_gradient_is_the_papers_average_of_chunk_gradients():
    model = golden.mlp().eval()
    chunks = [(torch.randn(n, 48).double(), torch.arange(n) % 10) for n in (4, 9, 5)]
    expected = torch.zeros_like(model[1].weight)
    for inputs, labels in chunks:  # algorithm 1, written as in the paper
        (gradient,) = torch.autograd.grad(functional.cross_entropy(model(inputs), labels), model[1].weight)
        expected = 0.7 * expected + 0.3 * gradient
    torch.testing.assert_close(averaged_gradient(model, chunks)["1.weight"], expected, rtol=0, atol=1e-14)


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_modes_buffers_gradients_and_generators_are_left_as_found(mode):
    model = nn.Sequential(golden.cnn(), nn.Dropout(0.5))
    model.train()
    model[0][1].eval()
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    grads = {name: (p.grad, p.grad.clone()) for name, p in model.named_parameters()}
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    modes = [module.training for module in model.modules()]
    chunks = [(torch.randn(6, 3, 8, 8).double(), torch.arange(6))] * 2
    random = torch.get_rng_state()
    dash_(model, chunks, mode=mode)
    assert torch.equal(torch.get_rng_state(), random)
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(buffer, buffers[name]) for name, buffer in model.named_buffers())
    assert all(p.grad is grads[name][0] and torch.equal(p.grad, grads[name][1]) for name, p in model.named_parameters())


def test_train_mode_uses_batch_statistics():
    model = golden.cnn()
    chunks = [(torch.randn(8, 3, 6, 6).double() * 3 + 1, torch.arange(8))]
    in_eval, in_train = averaged_gradient(model, chunks), averaged_gradient(model, chunks, mode="train")
    assert not torch.allclose(in_eval["0.weight"], in_train["0.weight"])


def test_the_report_counts_the_vectors_at_the_floor():
    layer = linear([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [1.0, 0.0]])
    gradient = torch.tensor([[-1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [-3.0, -4.0]], dtype=torch.float64)
    report = shrink_along_(layer, {"weight": gradient}, 0.3)["weight"]
    assert (report.vectors, report.at_floor) == (4, 2)
    assert report.mean_factor == pytest.approx((1.0 + 0.3 + 0.3 + 0.6) / 4)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"alpha": 0.0}, r"alpha must be in \(0, 1\], got 0.0"),
        ({"alpha": 1.5}, "alpha must be"),
        ({"floor": -0.1}, r"floor must be in \[0, 1\], got -0.1"),
        ({"floor": math.nan}, "floor must be"),
        ({"mode": "test"}, "mode must be 'eval' or 'train', got 'test'"),
        ({"micro_batch_size": -2}, "micro_batch_size must be 1 or more, got -2"),
    ],
)
def test_wrong_settings_are_refused_with_what_is_allowed(settings, words):
    with pytest.raises(ValueError, match=words):
        dash_(golden.mlp(), [(torch.randn(2, 48).double(), torch.arange(2))], **settings)


def test_an_empty_chunk_is_refused():
    with pytest.raises(ValueError, match="without images"):
        dash_(golden.mlp(), [(torch.empty(0, 48).double(), torch.arange(0))])


def test_the_weights_of_chunks_by_hand():
    assert chunk_weights(3, 0.5) == [0.125, 0.25, 0.5]
    assert chunk_weights(3, 0.5, cutoff=1 / 7) == [0.0, 0.25, 0.5]
    assert chunk_weights(3, 0.5, cutoff=2.9 / 7) == [0.0, 0.25, 0.5]
    assert chunk_weights(3, 0.5, cutoff=3.1 / 7) == [0.0, 0.0, 0.5]
    assert chunk_weights(1, 0.01, cutoff=0.99) == [0.01]  # the newest is never left out
    assert sum(weight > 0 for weight in chunk_weights(500, 0.3, cutoff=0.001)) == 20


@given(alpha=st.floats(0.01, 1), chunks=st.integers(1, 60))
def test_the_weighted_loss_has_the_gradient_of_the_running_average(alpha, chunks):
    gradients = torch.randn(chunks, generator=torch.Generator().manual_seed(chunks), dtype=torch.float64).tolist()
    average = 0.0
    for gradient in gradients:
        average = (1 - alpha) * average + alpha * gradient
    weighted = sum(w * g for w, g in zip(chunk_weights(chunks, alpha), gradients, strict=True))
    assert weighted == pytest.approx(average, abs=1e-12)


@given(
    seed=st.integers(0, 2**31),
    alpha=st.floats(0.05, 1),
    chunks=st.integers(1, 60),
    cutoff=st.floats(0, 0.5),
    size=st.integers(1, 9),
)
def test_a_cutoff_moves_a_cosine_by_no_more_than_its_bound(seed, alpha, chunks, cutoff, size):
    draws = torch.Generator().manual_seed(seed)
    gradients = torch.randn(chunks, size, generator=draws, dtype=torch.float64)
    vector = torch.randn(1, size, generator=draws, dtype=torch.float64)
    whole, part = (
        (torch.tensor(chunk_weights(chunks, alpha, cut), dtype=torch.float64) @ gradients)[None] for cut in (0, cutoff)
    )
    moved = cosine_similarity(vector, part, (1,)) - cosine_similarity(vector, whole, (1,))
    mean = whole.norm() / sum(chunk_weights(chunks, alpha))
    dropped = float(gradients.norm(dim=1).max() / mean) * cutoff
    assert abs(float(moved)) <= math.asin(min(dropped, 1)) + 1e-9 or dropped > 1


def test_chunks_below_the_cutoff_are_not_even_read():
    layer = linear([[1.0]])
    unread = (torch.full((1, 1), math.nan, dtype=torch.float64), torch.zeros(1))
    new = (torch.ones(1, 1, dtype=torch.float64), torch.zeros(1))
    gradient = averaged_gradient(
        layer, [unread, new, new], alpha=0.5, cutoff=0.15, loss=lambda outputs, labels: outputs.mean()
    )
    assert gradient["weight"].item() == pytest.approx(0.25 + 0.5)


def test_no_chunk_is_refused_and_no_weight_changes():
    model = golden.mlp()
    before = [parameter.clone() for parameter in model.parameters()]
    with pytest.raises(ValueError, match="no chunk"):
        dash_(model, iter([]))
    assert all(torch.equal(parameter, old) for parameter, old in zip(model.parameters(), before, strict=True))


def test_a_gradient_that_is_not_finite_is_refused_and_no_weight_changes():
    model = golden.mlp()
    before = [parameter.clone() for parameter in model.parameters()]
    inputs = torch.randn(2, 48).double()
    inputs[1, 3] = math.nan
    with pytest.raises(ValueError, match=r"the gradient of 1\.weight is not finite; the weights are as they were"):
        dash_(model, [(inputs, torch.arange(2))])
    assert all(torch.equal(parameter, old) for parameter, old in zip(model.parameters(), before, strict=True))


def test_a_model_without_a_layer_to_shrink_is_refused():
    model = nn.Sequential(nn.BatchNorm1d(3))
    with pytest.raises(ValueError, match=r"nothing to shrink in this model: 0\.weight, 0\.bias \(BatchNorm1d"):
        dash_(model, [(torch.randn(2, 3), torch.arange(2))])
    with pytest.raises(ValueError, match="nothing to shrink in this model: it has no parameters"):
        dash_(nn.Flatten(), [(torch.randn(2, 3), torch.arange(2))])
