"""Minimal filtering: the sums of the convolution in fewer products, exact but for rounding."""

from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from dash_core.convolution import filtered
from dash_core.convolution.filtered import FilteredConvolution
from dash_core.convolution.filtering import FOUR, ONE, TWO, filtering, tiles, toom_cook
from dash_core.memory import saved_bytes

POINTS = st.fractions(min_value=-2, max_value=2, max_denominator=4)


def test_f_2_3_has_the_matrices_of_lavin_and_gray():
    found = toom_cook((0, 1, -1), 2)
    assert found.outputs.tolist() == [[1, 1, 1, 0], [0, 1, -1, 1]]
    rows = {0: -1, 1: 1, 2: 1, 3: 1}  # theirs has another sign of the first product's two factors
    taps = [[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]]
    inputs = [[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, -1, 0, 1]]
    assert found.taps.tolist() == [[rows[i] * value for value in row] for i, row in enumerate(taps)]
    assert found.inputs.tolist() == [[rows[i] * value for value in row] for i, row in enumerate(inputs)]


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
    found = toom_cook(tuple(points), outputs)
    given = found.outputs @ ((found.taps @ taps) * (found.inputs @ inputs))
    torch.testing.assert_close(given, inputs.unfold(0, 3, 1) @ taps, rtol=1e-6, atol=1e-6)  # points may lie close


@pytest.mark.parametrize(("size", "products"), [(1, 1), (2, 3), (3, 6), (4, 6), (9, 6)])
def test_products_of_a_tile_along_one_dimension(size, products):
    assert [len(part) for part in (filtering(size).taps, filtering(size).inputs)] == [products, products]
    assert (len(ONE.outputs), len(TWO.outputs), len(FOUR.outputs)) == (1, 2, 4)


@pytest.mark.parametrize("size", range(1, 14))
def test_tiles_cover_each_output_once_and_see_its_neighbours(size):
    covered = [place for tile in tiles(size, torch.float32) for place in range(tile.to.start, tile.to.stop)]
    assert covered == list(range(size))
    for tile in tiles(size, torch.float32):
        assert (tile.of.start, tile.of.stop) == (max(tile.to.start - 1, 0), min(tile.of.stop, size))
        assert tile.of.stop >= min(tile.to.stop + 1, size)
        assert tile.outputs.shape[0] == tile.to.stop - tile.to.start
        assert tile.inputs.shape[1] == tile.of.stop - tile.of.start


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
def test_products_over_the_channels_are_a_quarter_and_fewer(side, share, monkeypatch):
    images, weight = _example(4, 64, 64, (side, side), torch.float32)
    direct = 2 * images.numel() * 64 * 9
    spent, real = [], torch.bmm
    monkeypatch.setattr(torch, "bmm", lambda a, b: spent.append(2 * a.numel() * b.shape[2]) or real(a, b))
    filtered._forward(images.detach(), weight.detach())
    assert sum(spent) == pytest.approx(share * direct)


def test_nothing_but_images_and_weights_is_kept_for_the_backward_pass():
    class Layer(torch.nn.Conv2d):
        def forward(self, images):
            return FilteredConvolution.apply(images, self.weight)

    layer, images = Layer(64, 64, 3, padding=1, bias=False), torch.zeros(32, 64, 8, 8)
    plain = torch.nn.Conv2d(64, 64, 3, padding=1, bias=False)
    assert saved_bytes(layer, images) == saved_bytes(plain, images)


def test_no_second_derivative_is_given_rather_than_a_wrong_one():
    images, weight = _example(2, 3, 3, (4, 4), torch.float64)
    (gradient,) = torch.autograd.grad(
        FilteredConvolution.apply(images, weight).square().sum(), weight, create_graph=True
    )
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


def test_flops_are_those_of_the_convolution():
    images, weight = _example(4, 8, 6, (5, 7), torch.float32)
    with FlopCounterMode(display=False) as counter:
        FilteredConvolution.apply(images, weight).sum().backward()
    assert counter.get_total_flops() == 3 * 2 * (4 * 5 * 7) * 9 * 8 * 6


def test_shapes_alone_can_be_had():
    images, weight = torch.empty(4, 8, 5, 7, device="meta"), torch.empty(6, 8, 3, 3, device="meta")
    output = torch.ops.dash_core.filtered(images, weight)
    assert output.shape == (4, 6, 5, 7)
    gradients = torch.ops.dash_core.filtered_backward(output, images, weight)
    assert [part.shape for part in gradients] == [images.shape, weight.shape]


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
