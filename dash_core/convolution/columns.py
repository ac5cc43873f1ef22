"""Convolutions of small feature maps as matrix products of their receptive fields, on the CPU.

oneDNN's convolutions are made for large maps. In the 512 -> 512 convolutions of ResNet-18's last stage, whose maps are
2x2 for a 32x32 image, they reach a tenth of the processor's speed. Here the receptive field of each output position is
copied into a row (im2col), and forward pass, weight gradient and input gradient are one matrix product each: the same
sums in another order, with the same FLOPs.
"""

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.nn import functional


def output_size(
    size: tuple[int, int], kernel: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int]
) -> tuple[int, int]:
    """Return height and width of the output for images of a height and width."""
    height, width = ((size[i] + 2 * padding[i] - kernel[i]) // stride[i] + 1 for i in (0, 1))
    return height, width


class ConvolutionByColumns(torch.autograd.Function):
    """(B, C, H, W) * (O, C, h, w) -> (B, O, H', W'), zero padding, groups and dilation 1; channels-last throughout."""

    @staticmethod
    def forward(
        ctx: FunctionCtx, images: Tensor, weight: Tensor, stride: tuple[int, int], padding: tuple[int, int]
    ) -> Tensor:
        """Return the output."""
        ctx.save_for_backward(images, weight)
        ctx.stride, ctx.padding = stride, padding
        height, width = output_size(images.shape[2:], weight.shape[2:], stride, padding)
        columns = _columns(images, weight.shape[2:], stride, padding)
        shape = len(images), len(weight), height, width
        output = torch.empty(shape, dtype=images.dtype, memory_format=torch.channels_last)
        torch.mm(columns, _matrix(weight).t(), out=output.permute(0, 2, 3, 1).view(-1, len(weight)))
        return output  # no view, so that it can be changed in place

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        """Return the gradients of images and weight, each only if it is needed."""
        images, weight = ctx.saved_tensors
        of_images = of_weight = None
        if ctx.needs_input_grad[0]:
            of_images = _images_gradient(gradient, images, weight, ctx.stride, ctx.padding)
        if ctx.needs_input_grad[1]:
            columns = _columns(images, weight.shape[2:], ctx.stride, ctx.padding)
            outputs, inputs, height, width = weight.shape
            by_output = _rows(gradient).t().contiguous()  # copied: products of a transposed view are slower in bf16
            of_weight = (by_output @ columns).view(outputs, height, width, inputs).permute(0, 3, 1, 2)
        return of_images, of_weight, None, None


def _images_gradient(
    gradient: Tensor, images: Tensor, weight: Tensor, stride: tuple[int, int], padding: tuple[int, int]
) -> Tensor:
    """Return the images' gradient.

    If the output has the size of the images, this is a convolution too: of `gradient`, with the weights turned by 180
    degrees.
    """
    kernel, size = weight.shape[2:], images.shape[2:]
    if gradient.shape[2:] != size or stride != (1, 1):
        columns = _rows(gradient) @ _matrix(weight)
        return _add_columns(columns, images, kernel, gradient.shape[2:], stride, padding)
    height, width = kernel
    turned = torch.cat([weight[:, :, i, j] for i in reversed(range(height)) for j in reversed(range(width))])
    return _as_images(_columns(gradient, kernel, stride, padding) @ turned, *size)


def _rows(images: Tensor) -> Tensor:
    """Return (B, C, H, W) as (B·H·W, C): a view if it is channels-last."""
    return images.permute(0, 2, 3, 1).reshape(-1, images.shape[1])


def _as_images(rows: Tensor, height: int, width: int) -> Tensor:
    """Return (B·H·W, C) as (B, C, H, W), channels-last."""
    return rows.view(-1, height, width, rows.shape[1]).permute(0, 3, 1, 2)


def _matrix(weight: Tensor) -> Tensor:
    """Return (O, C, h, w) as (O, h·w·C): a view if it is channels-last."""
    return weight.permute(0, 2, 3, 1).reshape(len(weight), -1)


def _columns(images: Tensor, kernel: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int]) -> Tensor:
    """Return the receptive field of each output position, (B·H'·W', h·w·C)."""
    rows = images.permute(0, 2, 3, 1)
    padded = functional.pad(rows, (0, 0, padding[1], padding[1], padding[0], padding[0]))
    batch, down, right, channel = padded.stride()
    (height, width), (tall, wide) = output_size(images.shape[2:], kernel, stride, padding), kernel
    fields = padded.as_strided(
        (len(images), height, width, tall, wide, images.shape[1]),
        (batch, down * stride[0], right * stride[1], down, right, channel),
    )
    return fields.reshape(len(images) * height * width, -1)


def _add_columns(
    columns: Tensor,
    images: Tensor,
    kernel: tuple[int, int],
    output: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
) -> Tensor:
    """Return the images' gradient: the row of each receptive field added to its place, summed in float32 or better."""
    count, channels, height, width = images.shape
    fields = columns.view(count, *output, *kernel, channels)
    padded = columns.new_zeros(
        (count, height + 2 * padding[0], width + 2 * padding[1], channels),
        dtype=torch.promote_types(columns.dtype, torch.float32),
    )
    for i in range(kernel[0]):
        for j in range(kernel[1]):
            rows = slice(i, i + stride[0] * output[0], stride[0])
            across = slice(j, j + stride[1] * output[1], stride[1])
            padded[:, rows, across] += fields[:, :, :, i, j]
    inner = padded[:, padding[0] : padding[0] + height, padding[1] : padding[1] + width]
    return inner.to(columns.dtype).permute(0, 3, 1, 2)
