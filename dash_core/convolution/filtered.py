"""3x3 convolutions by minimal filtering, on the CPU.

With the matrices of `filtering` in both dimensions a tile of m x m outputs y of taps g over inputs d is::

    y = Aᵀ [(G g Gᵀ) ⊙ (Bᵀ d B)] A

where ⊙ is n² products of a matrix (images x input channels) by one (input channels x output channels): 36 products
instead of 144 for a tile of 4x4, 9 instead of 36 on a map of 2x2. The gradients are the adjoints of the same linear
maps. Everything is a matrix product, one tile after another.

The sums are those of the convolution with different rounding (bench/rounding.py measures it). The error depends on the
largest value in a tile: a pixel of 1e5 among ones changes the third digit of its neighbours, and a pixel that is not
finite spoils the whole tile of its image.
"""

from functools import cache

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.utils.flop_counter import register_flop_formula

from dash_core.convolution.filtering import filtering, tiles


class FilteredConvolution(torch.autograd.Function):
    """(B, C, H, W) * (O, C, 3, 3) -> (B, O, H, W), stride and padding 1, in fp32 or fp64; channels-last."""

    @staticmethod
    def forward(ctx: FunctionCtx, images: Tensor, weight: Tensor) -> Tensor:
        """Return the output."""
        ctx.save_for_backward(images, weight)
        with torch.autocast("cpu", enabled=False):
            return torch.ops.dash_core.filtered(images, weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """Return the gradients of images and weight, each only if it is needed."""
        needed = ctx.needs_input_grad
        with torch.autocast("cpu", enabled=False):
            found = torch.ops.dash_core.filtered_backward(gradient, *ctx.saved_tensors, needed)
        return tuple(made if asked else None for made, asked in zip(found, needed, strict=True))


# These are operators of torch, so that its FLOP counter gets a formula and its compiler the shapes. The formula is that
# of the direct convolution, whatever is computed in its place, so that costs are comparable between machines.
_LIBRARY = torch.library.Library("dash_core", "DEF")
_LIBRARY.define("filtered(Tensor images, Tensor weight) -> Tensor")
_LIBRARY.define("filtered_backward(Tensor gradient, Tensor images, Tensor weight, bool[2] needed) -> (Tensor, Tensor)")


@register_flop_formula(torch.ops.dash_core.filtered)
def _forward_flops(images: torch.Size, weight: torch.Size, *_: object, out_shape: torch.Size, **__: object) -> int:
    return 2 * out_shape.numel() * weight[1:].numel()


@register_flop_formula(torch.ops.dash_core.filtered_backward)
def _backward_flops(
    gradient: torch.Size, images: torch.Size, weight: torch.Size, needed: list[bool], **_: object
) -> int:
    return sum(needed) * 2 * gradient.numel() * weight[1:].numel()


@torch.library.impl(_LIBRARY, "filtered", "Meta")
def _forward_shape(images: Tensor, weight: Tensor) -> Tensor:
    shape = images.shape[0], weight.shape[0], *images.shape[2:]
    return torch.empty(shape, dtype=images.dtype, device="meta", memory_format=torch.channels_last)


@torch.library.impl(_LIBRARY, "filtered_backward", "Meta")
def _backward_shapes(gradient: Tensor, images: Tensor, weight: Tensor, needed: list[bool]) -> tuple[Tensor, Tensor]:
    of_images, of_weight = (
        torch.empty_like(tensor, memory_format=torch.channels_last) if asked else tensor.new_empty(0)
        for tensor, asked in zip((images, weight), needed, strict=True)
    )
    return of_images, of_weight


@torch.library.impl(_LIBRARY, "filtered", "CPU")
def _forward(images: Tensor, weight: Tensor) -> Tensor:
    height, width = images.shape[2:]
    products_with = _transformed(weight, _taps(height, width, weight.dtype)).transpose(1, 2)
    output = torch.empty(
        (len(images), len(weight), height, width), dtype=weight.dtype, memory_format=torch.channels_last
    )
    for row in tiles(height, images.dtype):
        strip = _along_rows(row.inputs, _batch_inner(images[:, :, row.seen]))
        for column in tiles(width, images.dtype):
            seen = _along_columns(column.inputs, strip[:, column.seen])
            products = torch.bmm(seen.flatten(0, 1), products_with).view(*seen.shape[:3], -1)
            made = _along_rows(row.outputs, _along_columns(column.outputs, products))
            output[:, :, row.made, column.made] = _batch_outer(made)
    return output  # no view, so that it can be changed in place


@torch.library.impl(_LIBRARY, "filtered_backward", "CPU")
def _backward(gradient: Tensor, images: Tensor, weight: Tensor, needed: list[bool]) -> tuple[Tensor, Tensor]:
    """Return the gradients of images and weight; one that is not needed is empty."""
    height, width = images.shape[2:]
    taps = _taps(height, width, weight.dtype)
    products_with = _transformed(weight, taps)
    of_products_with = torch.zeros_like(products_with)
    of_images = torch.zeros_like(images, memory_format=torch.channels_last)
    for row in tiles(height, images.dtype):
        strip = _along_rows(row.inputs, _batch_inner(images[:, :, row.seen]))
        of_made = _along_rows(row.outputs.t(), _batch_inner(gradient[:, :, row.made]))
        of_strip = torch.zeros_like(strip)
        for column in tiles(width, images.dtype):
            of_products = _along_columns(column.outputs.t(), of_made[:, column.made]).flatten(0, 1)
            if needed[1]:
                seen = _along_columns(column.inputs, strip[:, column.seen]).flatten(0, 1)
                of_products_with.baddbmm_(of_products.transpose(1, 2), seen)
            if needed[0]:
                of_seen = torch.bmm(of_products, products_with).view(len(of_strip), -1, *of_strip.shape[2:])
                of_strip[:, column.seen] += _along_columns(column.inputs.t(), of_seen)
        if needed[0]:
            of_images[:, :, row.seen] += _batch_outer(_along_rows(row.inputs.t(), of_strip))
    of_weight = (taps.t() @ of_products_with.flatten(1)).view(3, 3, *weight.shape[:2])
    found = of_images, _batch_outer(of_weight).contiguous(memory_format=torch.channels_last)
    return tuple(made if asked else made.new_empty(0) for made, asked in zip(found, needed, strict=True))


@cache
def _taps(height: int, width: int, dtype: torch.dtype) -> Tensor:
    """Return G ⊗ G, (n·n, 9), for maps of a height and width."""
    of_rows, of_columns = (filtering(size).taps for size in (height, width))
    return torch.kron(of_rows, of_columns).to(dtype)


def _transformed(weight: Tensor, taps: Tensor) -> Tensor:
    """Return G g Gᵀ of weights (O, C, 3, 3), as (n·n, O, C)."""
    return (taps @ weight.permute(2, 3, 0, 1).reshape(9, -1)).view(-1, *weight.shape[:2])


def _batch_inner(images: Tensor) -> Tensor:
    """Return (B, C, H, W) as (H, W, B, C), contiguous: the images and channels of one position are adjacent."""
    return images.permute(2, 3, 0, 1).contiguous()


def _batch_outer(inner: Tensor) -> Tensor:
    """Return (H, W, B, C) as (B, C, H, W), a view."""
    return inner.permute(2, 3, 0, 1)


def _along_rows(matrix: Tensor, inner: Tensor) -> Tensor:
    """Return the matrix (n, H) applied to (H, ...)."""
    return (matrix @ inner.flatten(1)).view(-1, *inner.shape[1:])


def _along_columns(matrix: Tensor, inner: Tensor) -> Tensor:
    """Return the matrix (n, W) applied to each of (N, W, B, C)."""
    return (matrix @ inner.flatten(2)).view(len(inner), -1, *inner.shape[2:])
