"""Convolutions by matrix products give what torch's give, in every geometry, and are used where they are faster."""

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from dash_core.convolution import (
    LEAST_CHANNELS,
    LEAST_IMAGES,
    MANY_CHANNELS,
    SMALL_MAP,
    FastConv2d,
    use_fast_convolutions_,
)

pytestmark = pytest.mark.processor

SIDES = st.tuples(st.integers(3, 9), st.integers(3, 9))


def both(layer: nn.Conv2d, images: torch.Tensor) -> list[list[torch.Tensor]]:
    """Return output and gradients (images, weight, bias) of a layer as torch has it, and as it is made here."""
    found = []
    for kind in (nn.Conv2d, FastConv2d):
        layer.__class__ = kind
        given = images.clone().requires_grad_()
        layer.zero_grad()
        output = layer(given)
        (output * torch.arange(output.numel(), dtype=output.dtype).view_as(output).cos()).sum().backward()
        found.append([output.detach(), given.grad, *(parameter.grad.clone() for parameter in layer.parameters())])
    return found


@given(
    side=SIDES,
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    padding=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    bias=st.booleans(),
    channels_last=st.booleans(),
)
def test_outputs_and_gradients_are_those_of_torch(side, kernel, stride, padding, bias, channels_last):
    assert_as_torch(side, kernel, stride, padding, bias, channels_last)


@given(
    side=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    kernel=st.tuples(st.sampled_from([1, 3, 5]), st.sampled_from([1, 3, 5])),
    channels_last=st.booleans(),
)
def test_outputs_and_gradients_of_the_images_size_are_those_of_torch(side, kernel, channels_last):
    assert_as_torch(side, kernel, (1, 1), (kernel[0] // 2, kernel[1] // 2), False, channels_last)


@given(
    side=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    kernel=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    padding=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    bias=st.booleans(),
    channels_last=st.booleans(),
)
def test_outputs_and_gradients_of_one_position_are_those_of_torch(side, kernel, padding, bias, channels_last):
    assume(all(size + 2 * zeros >= taps for size, zeros, taps in zip(side, padding, kernel, strict=True)))
    assert_as_torch(side, kernel, (8, 8), padding, bias, channels_last)


@pytest.mark.parametrize(
    ("side", "stride", "single"), [(1, 1, True), (1, 2, True), (2, 2, True), (2, 1, False), (3, 2, False)]
)
def test_an_output_of_one_position_is_a_product_of_what_meets(side, stride, single):
    layer = nn.Conv2d(3, 5, 3, stride, padding=1, bias=False)
    use_fast_convolutions_(layer)
    assert ("SinglePosition" in layer(torch.ones(2, 3, side, side)).grad_fn.name()) == single


def assert_as_torch(side, kernel, stride, padding, bias, channels_last):
    draws = torch.Generator().manual_seed(0)
    layer = nn.Conv2d(3, 5, kernel, stride, padding, bias=bias).double()
    images = torch.randn(4, 3, *side, generator=draws, dtype=torch.float64)
    if channels_last:
        layer, images = layer.to(memory_format=torch.channels_last), images.to(memory_format=torch.channels_last)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dash_core.convolution.SMALL_MAP", 10_000)  # every map is a small one,
        patch.setattr("dash_core.convolution.MANY_CHANNELS", 1)  # of many channels
        theirs_and_ours = zip(*both(layer, images), strict=True)
    for theirs, ours in theirs_and_ours:
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("images", "outputs", "side"), [(2, 16, 4), (LEAST_IMAGES, 64, 4), (2, 16, 1)]
)  # by columns, by minimal filtering, and where one tap of nine meets the map
def test_every_way_costs_the_flops_of_the_convolution(images, outputs, side):
    layer, given = nn.Conv2d(128, outputs, 3, padding=1), torch.randn(images, 128, side, side, requires_grad=True)
    counts = []
    for kind in (nn.Conv2d, FastConv2d):
        layer.__class__ = kind
        with FlopCounterMode(display=False) as counter:
            layer(given).sum().backward()
        counts.append(counter.get_total_flops())
    assert counts[0] == counts[1] == 3 * 2 * (images * side * side) * outputs * 128 * 9


def test_only_small_maps_are_taken_by_products(monkeypatch):
    seen = []
    monkeypatch.setattr(
        "dash_core.convolution.columns._columns", lambda images, *rest: seen.append(images.shape) or 1 / 0
    )
    layer, narrow = nn.Conv2d(MANY_CHANNELS, 2, 3, padding=1), nn.Conv2d(MANY_CHANNELS - 1, 2, 3, padding=1)
    use_fast_convolutions_(nn.ModuleList([layer, narrow]))
    layer(torch.zeros(1, MANY_CHANNELS, 4, 5))
    narrow(torch.zeros(1, MANY_CHANNELS - 1, 4, 4))
    assert not seen
    assert (SMALL_MAP, MANY_CHANNELS) == (16, 128)
    with pytest.raises(ZeroDivisionError):
        layer(torch.zeros(1, MANY_CHANNELS, 4, 4))


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(128, 4, 3, padding=1, groups=2),
        nn.Conv2d(128, 128, 3, padding=1, groups=2),
        nn.Conv2d(128, 4, 3, padding=1, dilation=2),
        nn.Conv2d(128, 4, 3, padding="same"),
        nn.Conv2d(128, 4, 3, padding=1, padding_mode="reflect"),
    ],
)
def test_convolutions_of_other_kinds_stay_as_they_are(layer):
    images = torch.randn(LEAST_IMAGES, 128, 4, 4)
    expected = layer(images)
    use_fast_convolutions_(layer)
    assert torch.equal(layer(images), expected)


@pytest.mark.parametrize("side", [4, 1])
def test_autocast_computes_in_bf16_and_gives_fp32_gradients(side):
    layer, images = nn.Conv2d(128, 16, 3, padding=1), torch.randn(4, 128, side, side)
    exact = layer(images)
    use_fast_convolutions_(layer)
    with torch.autocast("cpu", torch.bfloat16):
        output = layer(images)
    output.float().sum().backward()
    assert output.dtype == torch.bfloat16
    assert layer.weight.grad.dtype == torch.float32
    torch.testing.assert_close(output.float(), exact, rtol=0.02, atol=0.02)


@pytest.mark.parametrize(
    ("inputs", "outputs", "images", "dtype", "bf16", "filtered"),
    [
        (64, 64, LEAST_IMAGES, torch.float32, False, True),
        (63, 64, LEAST_IMAGES, torch.float32, False, False),
        (64, 63, LEAST_IMAGES, torch.float32, False, False),
        (64, 64, LEAST_IMAGES - 1, torch.float32, False, False),
        (64, 64, LEAST_IMAGES, torch.float64, False, False),
        (128, 128, LEAST_IMAGES, torch.float32, True, False),  # autocast
        (128, 128, LEAST_IMAGES, torch.bfloat16, False, False),
    ],
)
def test_fp32_is_filtered_where_channels_and_images_are_many(inputs, outputs, images, dtype, bf16, filtered):
    assert (LEAST_CHANNELS, LEAST_IMAGES) == (64, 32)
    layer = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False).to(dtype)
    use_fast_convolutions_(layer)
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        made_by = layer(torch.zeros(images, inputs, 4, 5, dtype=dtype)).grad_fn.name()
    assert ("FilteredConvolution" in made_by) == filtered


@pytest.mark.parametrize("side", [(1, 2), (4, 4), (9, 6)])
def test_filtered_outputs_and_gradients_are_those_of_torch_in_fp32(side):
    draws = torch.Generator().manual_seed(0)
    layer = nn.Conv2d(64, 96, 3, padding=1)
    images = torch.randn(LEAST_IMAGES, 64, *side, generator=draws).to(memory_format=torch.channels_last)
    for theirs, ours in zip(*both(layer, images), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5 * float(theirs.abs().max()))


@pytest.mark.parametrize("stride", [(2, 2), (1, 2)])
def test_outputs_apart_from_each_other_are_no_filtering(stride):
    layer, images = nn.Conv2d(64, 64, 3, stride, padding=1, bias=False), torch.randn(LEAST_IMAGES, 64, 8, 8)
    expected = layer(images)
    use_fast_convolutions_(layer)
    assert torch.equal(layer(images), expected)


@pytest.mark.parametrize("channels", [64, 128])
def test_fp64_under_autocast_stays_fp64_as_with_torch(channels):
    layer, images = nn.Conv2d(channels, channels, 3, padding=1).double(), torch.ones(2, channels, 4, 4).double()
    with torch.autocast("cpu", torch.bfloat16):
        expected = layer(images)
        use_fast_convolutions_(layer)
        assert layer(images).dtype == expected.dtype == torch.float64


@pytest.mark.parametrize(
    "images", [torch.zeros(64, 8, 8), torch.zeros(LEAST_IMAGES, 64, 8, 8).double(), torch.zeros(2, 64, 1, 1).long()]
)
def test_an_image_alone_and_a_wrong_type_are_torchs_to_take_or_refuse(images):
    found = []
    for kind in (nn.Conv2d, FastConv2d):
        layer = nn.Conv2d(64, 64, 3, padding=1)
        layer.__class__ = kind
        try:
            found.append(layer(images).shape)
        except RuntimeError as error:
            found.append(str(error))
    assert found[0] == found[1]


@pytest.mark.parametrize(("images", "side"), [(LEAST_IMAGES, 5), (2, 3), (2, 1)])  # by filtering, columns, one product
def test_compiled_it_gives_the_same(images, side):
    layer, images = nn.Conv2d(128, 128, 3, padding=1), torch.randn(images, 128, side, side)
    use_fast_convolutions_(layer)
    expected, found = (
        _output_and_gradient(f, layer, images)
        for f in (layer, torch.compile(layer, backend="aot_eager", fullgraph=True))
    )
    assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))


def _output_and_gradient(call, layer, images):
    layer.zero_grad()
    output = call(images)
    output.sum().backward()
    return output.detach(), layer.weight.grad.clone()


@pytest.mark.parametrize(("images", "side"), [(LEAST_IMAGES, 5), (2, 3), (2, 1)])  # by filtering, columns, one product
def test_outputs_can_be_changed_in_place(images, side):
    """A ReLU has a kink, where one rounding decides, so both networks have the same convolution."""
    layer, given = nn.Conv2d(128, 128, 3, padding=1, bias=False), torch.randn(images, 128, side, side)
    use_fast_convolutions_(layer)
    beside, in_place = (
        _output_and_gradient(nn.Sequential(layer, nn.ReLU(inplace)), layer, given) for inplace in (False, True)
    )
    assert all(torch.equal(a, b) for a, b in zip(beside, in_place, strict=True))


def test_no_image_gives_no_output():
    layer = nn.Conv2d(128, 96, 3, padding=1)
    use_fast_convolutions_(layer)
    assert layer(torch.zeros(0, 128, 4, 4)).shape == (0, 96, 4, 4)
