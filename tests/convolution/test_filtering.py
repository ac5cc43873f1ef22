"""Minimal filtering: the sums of the convolution in fewer products, exact but for rounding."""

from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from dash_core.convolution import LEAST_IMAGES, filtered, use_fast_convolutions_
from dash_core.convolution.filtered import FilteredConvolution
from dash_core.convolution.filtering import TWO, filtering, tiles, toom_cook
from dash_core.memory import saved_bytes

POINTS = st.fractions(min_value=-2, max_value=2, max_denominator=4)
IMAGES = 32
SHAPES = [(64, 16), (128, 8), (256, 4), (512, 2)]  # channels and side of the map, as in ResNet-18


@pytest.fixture
def four(monkeypatch):
    """Give a function that puts another algorithm in the place of FOUR, for this test."""

    def forget() -> None:
        tiles.cache_clear()
        filtered._taps.cache_clear()

    def put(algorithm):
        monkeypatch.setattr("dash_core.convolution.filtering.FOUR", algorithm)
        forget()

    yield put
    monkeypatch.undo()
    forget()


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
@pytest.mark.processor
def test_outputs_and_gradients_are_those_of_torch(side, channels_last):
    images, weight = _example(3, 5, 4, side, torch.float64)
    if channels_last:
        images = images.to(memory_format=torch.channels_last)
    expected = _all(functional.conv2d(images, weight, padding=1), images, weight)
    given = _all(FilteredConvolution.apply(images, weight), images, weight)
    for theirs, ours in zip(expected, given, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
        assert ours.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(("size", "squared"), [(1, 1), (2, 2)])
def test_amplification_by_hand(size, squared):
    """Two outputs have three products with |A|²|G|²|B|² = 2·1·2, 1·2·1 and 1·2·1, for 4 products of the plain sums."""
    assert amplification(size) ** 2 == pytest.approx(squared)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 9, 16])
def test_amplification_is_that_of_noise_in_the_products(size):
    draws = torch.Generator().manual_seed(0)
    inputs, taps = (torch.randn(length, 20_000, generator=draws, dtype=torch.float64) for length in (size, 3))
    error = truth = 0.0
    for tile in tiles(size, torch.float64):
        products = (filtering(size).taps @ taps) * (tile.inputs @ inputs[tile.seen])
        scale = products.square().mean(1, keepdim=True).sqrt()
        noise = scale * torch.randn(products.shape, generator=draws, dtype=torch.float64)
        error += float((tile.outputs @ noise).square().sum())
        truth += float((tile.outputs @ products).square().sum())
    assert (error / truth) ** 0.5 == pytest.approx(amplification(size), rel=0.02)


@pytest.mark.processor
@pytest.mark.parametrize(("channels", "side"), SHAPES)
def test_rounding_in_fp32_is_that_of_fp32(channels, side):
    errors = _errors(channels, side)
    assert all(error < bound for error, bound in zip(errors, _allowed(channels, side), strict=True))
    assert max(errors) < 2e-6


@pytest.mark.processor
@pytest.mark.parametrize(("channels", "side"), SHAPES[:3])  # a map of 2x2 is not filtered by FOUR
def test_points_that_round_twice_as_much_are_beyond_the_bound(channels, side, four):
    allowed = _allowed(channels, side)
    four(toom_cook(0, 1, -1, 2, -2))
    assert _errors(channels, side)[0] > allowed[0]


@pytest.mark.processor
@pytest.mark.parametrize(("channels", "side"), SHAPES)
def test_images_in_bf16_are_beyond_the_bound(channels, side):
    errors = _errors(channels, side, lambda images: images.bfloat16().float())
    assert errors[0] > 100 * _allowed(channels, side)[0]


@pytest.mark.processor
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
@pytest.mark.processor
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


@pytest.mark.processor
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


def amplification(size):
    """Return by how much filtering raises the rounding of sums along one dimension of a map, root mean squares.

    An output is Σ_j A_ij (G g)_j (Bᵀ d)_j. If each product j is off by the same share of its own size, independently of
    the others, then the square of the output's error is Σ_j A_ij² |G_j|² |B_j|², for g and d of unit variance, where
    the square of the output is the number of its terms. In the gradients the three matrices change places, so over the
    whole map the ratio is the same for outputs and both gradients: Σ |A_j|² |G_j|² |B_j|² / terms.
    """
    of_taps = filtering(size).taps.square().sum(1)
    squares = [
        tile.outputs.square().sum(0) * of_taps * tile.inputs.square().sum(1) for tile in tiles(size, torch.double)
    ]
    return float(sum(part.sum() for part in squares) / (3 * size - 2)) ** 0.5


def _allowed(channels, side):
    """Return bounds of the relative errors of outputs, images' gradient and weights' gradient in fp32.

    A rounding is off by up to u = eps / 2 of the sum so far, evenly to both sides: a variance of u² / 3. The partial
    sums of n terms of random sign have half of the last one's variance on average, so their roundings add up to
    u √(n / 6), relative to the sum; any other order of summation rounds less. Of a product n are the terms that are
    summed over channels, or over images and tiles, and those of the five transforms on the way: 9 of the taps, at most
    6 in each dimension of inputs and outputs. Nothing of it depends on the processor.
    """
    transforms = 9 + 4 * 6
    terms = channels, channels, IMAGES * len(tiles(side, torch.float32)) ** 2
    unit = torch.finfo(torch.float32).eps / 2
    return [unit * amplification(side) ** 2 * ((count + transforms) / 6) ** 0.5 for count in terms]


def _errors(channels, side, rounded=lambda images: images):
    """Return the errors of filtering in fp32 against float64, relative, root mean square: outputs and gradients."""
    images, weight = _example(IMAGES, channels, channels, (side, side), torch.float32)
    exact = _all(functional.conv2d(images.double(), weight.double(), padding=1), images, weight)
    found = _all(FilteredConvolution.apply(rounded(images), weight), images, weight)
    return [float((ours.double() - true).norm() / true.norm()) for ours, true in zip(found, exact, strict=True)]
