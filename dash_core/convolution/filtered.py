"""3x3 convolutions by minimal filtering, on the CPU.

With the matrices of `filtering` in both dimensions a tile of m x m outputs y of taps g over inputs d is::

    y = Aᵀ [(G g Gᵀ) ⊙ (Bᵀ d B)] A

where ⊙ is n² products of a matrix (images x input channels) by one (input channels x output channels): 36 where the
sum takes 144, 9 instead of 36 on a map of 2x2. The gradients are the adjoints of the same linear maps. All of it is
matrix products, one tile after another.

The sums are those of the convolution, rounded otherwise: in fp32 an output is off by 1e-6 of its size, where the direct
sum is off by 4e-7. In bf16 it would be off by 2 %: the sums are never in bf16.
"""

from functools import cache

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.utils.flop_counter import register_flop_formula

from dash_core.convolution.filtering import filtering, tiles


class FilteredConvolution(torch.autograd.Function):
    """(B, C, H, W) * (O, C, 3, 3) -> (B, O, H, W), stride and padding 1; channels-last.

    Sums are in the weights' type; the output and the images' gradient have that of the images.
    """

    @staticmethod
    def forward(ctx: FunctionCtx, images: Tensor, weight: Tensor) -> Tensor:
        """Return the output."""
        ctx.save_for_backward(images, weight)
        return torch.ops.dash_core.filtered(images, weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor, Tensor]:
        """Return the gradients of images and weight."""
        return torch.ops.dash_core.filtered_backward(gradient, *ctx.saved_tensors)


# Operators of torch's own kind: its counter of FLOPs is told a formula, so that it counts those of the convolution, not
# of what is done in its place, and costs compare from machine to machine; and its compiler is told their shapes.
_LIBRARY = torch.library.Library("dash_core", "DEF")
_LIBRARY.define("filtered(Tensor images, Tensor weight) -> Tensor")
_LIBRARY.define("filtered_backward(Tensor gradient, Tensor images, Tensor weight) -> (Tensor, Tensor)")


@torch.library.impl(_LIBRARY, "filtered", "Meta")
def _forward_shape(images: Tensor, weight: Tensor) -> Tensor:
    shape = len(images), len(weight), *images.shape[2:]
    return torch.empty(shape, dtype=images.dtype, device="meta", memory_format=torch.channels_last)


@torch.library.impl(_LIBRARY, "filtered_backward", "Meta")
def _backward_shapes(gradient: Tensor, images: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    return tuple(torch.empty_like(tensor, memory_format=torch.channels_last) for tensor in (images, weight))


@register_flop_formula(torch.ops.dash_core.filtered)
def _forward_flops(images: torch.Size, weight: torch.Size, *_: object, out_shape: torch.Size, **__: object) -> int:
    return 2 * out_shape.numel() * weight[1:].numel()


@register_flop_formula(torch.ops.dash_core.filtered_backward)
def _backward_flops(gradient: torch.Size, images: torch.Size, weight: torch.Size, *_: object, **__: object) -> int:
    return 2 * 2 * gradient.numel() * weight[1:].numel()


@torch.library.impl(_LIBRARY, "filtered", "CPU")
def _forward(images: Tensor, weight: Tensor) -> Tensor:
    inner, kind = _batch_inner(images, weight.dtype), weight.dtype
    rows, columns = (tiles(size, kind) for size in images.shape[2:])
    spectrum = _spectrum(weight, _taps(*images.shape[2:], kind))
    output = inner.new_empty(*images.shape[2:], len(images), len(weight))
    for row in rows:
        strip = _along_rows(row.inputs, inner[row.of])
        for column in columns:
            seen = _along_columns(column.inputs, strip[:, column.of])
            products = torch.bmm(seen.flatten(0, 1), spectrum.transpose(1, 2)).view(*seen.shape[:3], -1)
            output[row.to, column.to] = _along_rows(row.outputs, _along_columns(column.outputs, products))
    return _batch_outer(output, images.dtype)


@torch.library.impl(_LIBRARY, "filtered_backward", "CPU")
def _backward(gradient: Tensor, images: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    inner, given, kind = _batch_inner(images, weight.dtype), _batch_inner(gradient, weight.dtype), weight.dtype
    rows, columns = (tiles(size, kind) for size in images.shape[2:])
    taps = _taps(*images.shape[2:], kind)
    spectrum = _spectrum(weight, taps)
    of_inner, of_spectrum = torch.zeros_like(inner), torch.zeros_like(spectrum)
    for row in rows:
        strip, given_strip = _along_rows(row.inputs, inner[row.of]), _along_rows(row.outputs.t(), given[row.to])
        of_strip = torch.zeros_like(strip)
        for column in columns:
            seen = _along_columns(column.inputs, strip[:, column.of])
            of_products = _along_columns(column.outputs.t(), given_strip[:, column.to]).flatten(0, 1)
            of_spectrum.baddbmm_(of_products.transpose(1, 2), seen.flatten(0, 1))
            of_seen = torch.bmm(of_products, spectrum).view_as(seen)
            of_strip[:, column.of] += _along_columns(column.inputs.t(), of_seen)
        of_inner[row.of] += _along_rows(row.inputs.t(), of_strip)
    of_weight = (taps.t() @ of_spectrum.flatten(1)).view(3, 3, *of_spectrum.shape[1:])
    return _batch_outer(of_inner, images.dtype), _batch_outer(of_weight, kind)


@cache
def _taps(height: int, width: int, kind: torch.dtype) -> Tensor:
    """Return G ⊗ G, (n·n, 9), for images of a height and width."""
    of_rows, of_columns = (filtering(size).taps for size in (height, width))
    return torch.kron(of_rows, of_columns).to(kind)


def _spectrum(weight: Tensor, taps: Tensor) -> Tensor:
    """Return G g Gᵀ of weights (O, C, 3, 3), as (n·n, O, C)."""
    return (taps @ weight.permute(2, 3, 0, 1).reshape(9, -1)).view(-1, *weight.shape[:2])


def _batch_inner(images: Tensor, kind: torch.dtype) -> Tensor:
    """Return (B, C, H, W) as (H, W, B, C), contiguous: what is done at a position is done to all images in one row."""
    inner = images.permute(2, 3, 0, 1)
    return torch.empty(inner.shape, dtype=kind).copy_(inner)


def _batch_outer(inner: Tensor, kind: torch.dtype) -> Tensor:
    """Return (H, W, B, C) as (B, C, H, W), channels-last."""
    outer = inner.permute(2, 0, 1, 3)
    return torch.empty(outer.shape, dtype=kind).copy_(outer).permute(0, 3, 1, 2)


def _along_rows(matrix: Tensor, inner: Tensor) -> Tensor:
    """Return the matrix (n, H) applied to (H, ...)."""
    return (matrix @ inner.flatten(1)).view(-1, *inner.shape[1:])


def _along_columns(matrix: Tensor, inner: Tensor) -> Tensor:
    """Return the matrix (n, W) applied to each of (N, W, B, C)."""
    return (matrix @ inner.flatten(2)).view(len(inner), -1, *inner.shape[2:])
