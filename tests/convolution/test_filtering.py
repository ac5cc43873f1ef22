"""Minimal filtering: the sums of the convolution in fewer products, exact but for rounding."""

from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from dash_core.convolution import LEAST_IMAGES, use_fast_convolutions_
from dash_core.convolution.filtered import FilteredConvolution
from dash_core.convolution.filtering import TWO, filtering, tiles, toom_cook
from dash_core.memory import saved_bytes

POINTS = st.fractions(min_value=-2, max_value=2, max_denominator=4)


def test_f_2_3_has_the_matrices_of_winograd():
    found = toom_cook(0, 1, -1)
    assert found.outputs.tolist() == [[1, 1, 1, 0], [0, 1, -1, 1]]
    assert found.taps.tolist() == [[-1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]]
    assert found.inputs.tolist() == [[-1, 0, 1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, -1, 0, 1]]


def test_two_outputs_between_zeros_by_hand():
    inputs, taps = torch.tensor([0.0, 3, 5, 0]).double(), torch.tensor([2.0, 7, 11]).double()
    products = (TWO.taps @ taps) * (TWO.inputs @ inputs)
    assert products.tolist() == [7 * (3 + 5), (11 - 7) * 5, (2 - 7) * 3]
    assert (TWO.outputs @ products).tolist() == [7 * 3 + 11 * 5, 2 * 3 + 7 * 5]


@given(points=st.lists(POINTS, min_size=2, max_size=5, unique=True), data=st.data())
def test_any_distinct_points_give_the_sums_of_the_taps(points: list[Fraction], data):
    outputs = len(points) - 1
    numbers = st.integers(-9, 9)
    inputs = torch.tensor(data.draw(st.lists(numbers, min_size=outputs + 2, max_size=outputs + 2))).double()
    taps = torch.tensor(data.draw(st.lists(numbers, min_size=3, max_size=3))).double()
    found = toom_cook(*points)
    given = found.outputs @ ((found.taps @ taps) * (found.inputs @ inputs))
    torch.testing.assert_close(given, inputs.unfold(0, 3, 1) @ taps, rtol=1e-6, atol=1e-6)  # points may lie close


@pytest.mark.parametrize(("size", "outputs", "products"), [(1, 1, 1), (2, 2, 3), (3, 4, 6), (4, 4, 6), (9, 4, 6)])
def test_outputs_and_products_of_a_tile_along_one_dimension(size, outputs, products):
    assert filtering(size).outputs.shape == (outputs, products)
    assert filtering(size).taps.shape == (products, 3)
    assert filtering(size).inputs.shape == (products, outputs + 2)


@pytest.mark.parametrize("size", range(1, 14))
def test_tiles_make_each_output_once_and_see_its_neighbours(size):
    found = tiles(size, torch.float32)
    assert [place for tile in found for place in range(tile.made.start, tile.made.stop)] == list(range(size))
    for tile in found:
        assert tile.seen.start == max(tile.made.start - 1, 0)
        assert min(tile.made.stop + 1, size) <= tile.seen.stop <= size
        assert len(tile.outputs) == tile.made.stop - tile.made.start
        assert tile.inputs.shape[1] == tile.seen.stop - tile.seen.start


@given(side=st.tuples(st.integers(1, 9), st.integers(1, 9)), channels_last=st.booleans())
def test_outputs_and_gradients_are_those_of_torch(side, channels_last):
    images, weight = _example(3, 5, 4, side, torch.float64)
    if channels_last:
        images = images.to(memory_format=torch.channels_last)
    expected = _all(functional.conv2d(images, weight, padding=1), images, weight)
    given = _all(FilteredConvolution.apply(images, weight), images, weight)
    for theirs, ours in zip(expected, given, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
        assert ours.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(("channels", "side"), [(64, 16), (128, 8), (256, 4), (512, 2)])
def test_rounding_in_fp32_is_that_of_fp32(channels, side):
    images, weight = _example(32, channels, channels, (side, side), torch.float32)
    exact = _all(functional.conv2d(images.double(), weight.double(), padding=1), images, weight)
    ours, theirs = (
        _all(make(images, weight), images, weight)
        for make in (FilteredConvolution.apply, lambda x, w: functional.conv2d(x, w, padding=1))
    )
    for true, found, direct in zip(exact, ours, theirs, strict=True):
        assert _error(found, true) < 2e-6
        assert _error(found, true) < 5 * _error(direct, true)


def test_the_same_bits_each_time():
    images, weight = _example(32, 64, 64, (7, 6), torch.float32)
    first, second = (_all(FilteredConvolution.apply(images, weight), images, weight) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize(("side", "share"), [(16, 0.25), (2, 0.25), (1, 1 / 9)])
def test_products_over_the_channels_are_a_quarter_and_fewer_in_either_pass(side, share, monkeypatch):
    images, weight = _example(4, 64, 64, (side, side), torch.float32)
    direct = 2 * images.numel() * 64 * 9
    spent, bmm, baddbmm = [], torch.bmm, torch.Tensor.baddbmm_

    def counted(a: torch.Tensor, b: torch.Tensor) -> None:
        spent.append(2 * a.numel() * b.shape[2])

    monkeypatch.setattr(torch, "bmm", lambda a, b: counted(a, b) or bmm(a, b))
    monkeypatch.setattr(torch.Tensor, "baddbmm_", lambda to, a, b: counted(a, b) or baddbmm(to, a, b))
    output = FilteredConvolution.apply(images, weight)
    assert sum(spent) == pytest.approx(share * direct)
    output.sum().backward()
    assert sum(spent) == pytest.approx(3 * share * direct)


def test_nothing_but_images_and_weights_is_kept_for_the_backward_pass():
    layer, images = torch.nn.Conv2d(64, 64, 3, padding=1, bias=False), torch.zeros(LEAST_IMAGES, 64, 8, 8)
    kept = saved_bytes(layer, images)
    use_fast_convolutions_(layer)
    assert saved_bytes(layer, images) == kept


@pytest.mark.parametrize("needed", [(True, True), (True, False), (False, True)])
def test_what_needs_no_gradient_gets_none_and_costs_nothing(needed):
    images, weight = _example(4, 8, 6, (5, 7), torch.float32)
    expected = torch.autograd.grad(FilteredConvolution.apply(images, weight).sum(), (images, weight))
    for tensor, asked in zip((images, weight), needed, strict=True):
        tensor.requires_grad_(asked)
    with FlopCounterMode(display=False) as counter:
        FilteredConvolution.apply(images, weight).sum().backward()
    assert counter.get_total_flops() == (1 + sum(needed)) * 2 * (4 * 5 * 7) * 9 * 8 * 6
    for tensor, asked, gradient in zip((images, weight), needed, expected, strict=True):
        assert torch.equal(tensor.grad, gradient) if asked else tensor.grad is None


def test_autocast_changes_nothing():
    images, weight = _example(4, 8, 6, (5, 7), torch.float32)
    expected = _all(FilteredConvolution.apply(images, weight), images, weight)
    with torch.autocast("cpu", torch.bfloat16):
        found = _all(FilteredConvolution.apply(images, weight), images, weight)
    assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))


def test_no_second_derivative_is_given_rather_than_a_wrong_one():
    images, weight = _example(2, 3, 3, (4, 4), torch.float64)
    (gradient,) = torch.autograd.grad(
        FilteredConvolution.apply(images, weight).square().sum(), weight, create_graph=True
    )
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


def test_shapes_alone_can_be_had():
    images, weight = torch.empty(4, 8, 5, 7, device="meta"), torch.empty(6, 8, 3, 3, device="meta")
    output = torch.ops.dash_core.filtered(images, weight)
    assert output.shape == (4, 6, 5, 7)
    gradients = torch.ops.dash_core.filtered_backward(output, images, weight, [True, False])
    assert [part.shape for part in gradients] == [images.shape, (0,)]


def _example(count, inputs, outputs, side, kind):
    draws = torch.Generator().manual_seed(0)
    images = torch.randn(count, inputs, *side, generator=draws, dtype=kind)
    weight = torch.randn(outputs, inputs, 3, 3, generator=draws, dtype=kind) / (3 * inputs**0.5)
    return images.requires_grad_(), weight.requires_grad_()


def _all(output, images, weight):
    """Return output and gradients of a sum that weighs each output otherwise."""
    weights = torch.arange(output.numel(), dtype=torch.float64).cos().view(output.shape).to(output.dtype)
    return [output.detach(), *torch.autograd.grad((output * weights).sum(), (images, weight))]


def _error(found, true):
    return float((found.double() - true.double()).norm() / true.double().norm())
