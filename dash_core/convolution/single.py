"""Convolutions with one output position, on the CPU: one matrix product of the pixels and the weights that meet them.

A 3x3 convolution of a 1x1 map multiplies eight of its nine weights by padding alone. The last stages of a ResNet on 8x8
images consist of such convolutions. oneDNN multiplies the padding too, and the call itself takes longer than the sums.
Here padding and the weights on it are left out: the same sums without their zeros.
"""

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.utils.flop_counter import register_flop_formula


class SinglePosition(torch.autograd.Function):
    """(B, C, H, W) * (O, C, h, w) -> (B, O, 1, 1), zero padding, groups and dilation 1."""

    @staticmethod
    def forward(ctx: FunctionCtx, images: Tensor, weight: Tensor, padding: tuple[int, int]) -> Tensor:
        """Return the output."""
        ctx.save_for_backward(images, weight)
        ctx.padding = padding
        with torch.autocast("cpu", enabled=False):
            return torch.ops.dash_core.single_position(images, weight, padding)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        """Return the gradients of images and weight, each only if it is needed."""
        needed = ctx.needs_input_grad[:2]
        with torch.autocast("cpu", enabled=False):
            gradients = torch.ops.dash_core.single_position_backward(gradient, *ctx.saved_tensors, ctx.padding, needed)
        return *(own if asked else None for own, asked in zip(gradients, needed, strict=True)), None


# These operators count the FLOPs of the direct convolution, as those of `dash_core.convolution.filtered` do.
_LIBRARY = torch.library.Library("dash_core", "FRAGMENT")
_LIBRARY.define("single_position(Tensor images, Tensor weight, int[2] padding) -> Tensor")
_LIBRARY.define(
    "single_position_backward(Tensor gradient, Tensor images, Tensor weight, int[2] padding, bool[2] needed)"
    " -> (Tensor, Tensor)"
)


@register_flop_formula(torch.ops.dash_core.single_position)
def _forward_flops(images: torch.Size, weight: torch.Size, *_: object, **__: object) -> int:
    return 2 * images[0] * weight.numel()


@register_flop_formula(torch.ops.dash_core.single_position_backward)
def _backward_flops(
    gradient: torch.Size, images: torch.Size, weight: torch.Size, padding: list[int], needed: list[bool], **_: object
) -> int:
    return sum(needed) * 2 * images[0] * weight.numel()


@torch.library.impl(_LIBRARY, "single_position", "Meta")
def _forward_shape(images: Tensor, weight: Tensor, padding: list[int]) -> Tensor:
    return images.new_empty((len(images), len(weight), 1, 1))


@torch.library.impl(_LIBRARY, "single_position_backward", "Meta")
def _backward_shapes(
    gradient: Tensor, images: Tensor, weight: Tensor, padding: list[int], needed: list[bool]
) -> tuple[Tensor, Tensor]:
    return tuple(
        torch.empty_like(tensor) if asked else tensor.new_empty(0)
        for tensor, asked in zip((images, weight), needed, strict=True)
    )


@torch.library.impl(_LIBRARY, "single_position", "CPU")
def _forward(images: Tensor, weight: Tensor, padding: list[int]) -> Tensor:
    pixels, weights = _overlap(images, weight, padding)
    output = images.new_empty((len(images), len(weight), 1, 1))
    torch.mm(_rows(pixels), _rows(weights).t(), out=output.view(len(images), -1))
    return output  # no view, so that it can be changed in place


@torch.library.impl(_LIBRARY, "single_position_backward", "CPU")
def _backward(
    gradient: Tensor, images: Tensor, weight: Tensor, padding: list[int], needed: list[bool]
) -> tuple[Tensor, Tensor]:
    """Return the gradients of images and weight. What never meets has gradient 0; one that is not needed is empty."""
    gradient = gradient.flatten(1)
    of_images, of_weight = (
        torch.zeros_like(tensor) if asked else tensor.new_empty(0)
        for tensor, asked in zip((images, weight), needed, strict=True)
    )
    pixels, weights = _overlap(images, weight, padding)
    if needed[0]:
        inner, _ = _overlap(of_images, weight, padding)
        inner.copy_(_as_maps(gradient @ _rows(weights), inner))
    if needed[1]:
        _, inner = _overlap(images, of_weight, padding)
        inner.copy_(_as_maps(gradient.t() @ _rows(pixels), inner))
    return of_images, of_weight


def _overlap(images: Tensor, weight: Tensor, padding: list[int]) -> tuple[Tensor, Tensor]:
    """Return views of the pixels and the weights that meet each other, (B, C, h', w') and (O, C, h', w')."""
    (down, right), (height, width) = padding, images.shape[2:]
    tall = max(min(height, weight.shape[2] - down), 0)
    wide = max(min(width, weight.shape[3] - right), 0)
    return images[:, :, :tall, :wide], weight[:, :, down : down + tall, right : right + wide]


def _rows(maps: Tensor) -> Tensor:
    """Return (N, C, h, w) as (N, h·w·C): a view if it is a whole channels-last tensor."""
    return maps.permute(0, 2, 3, 1).reshape(len(maps), -1)


def _as_maps(rows: Tensor, maps: Tensor) -> Tensor:
    """Return (N, h·w·C) as (N, C, h, w), for maps of that shape."""
    count, channels, height, width = maps.shape
    return rows.view(count, height, width, channels).permute(0, 3, 1, 2)
