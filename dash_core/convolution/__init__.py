"""nn.Conv2d that is faster on the CPU than oneDNN's where it can be: the same sums, rounded otherwise.

3x3 convolutions that keep the map's size take fewer multiplications (`filtered`), others of small maps fewer seconds
as matrix products (`columns`). bench/convolutions.py measures what is faster where.
"""

import torch
from torch import Tensor, nn

from dash_core.convolution.columns import ConvolutionByColumns, output_size
from dash_core.convolution.filtered import FilteredConvolution

# filtering is faster from so many images in a batch and channels in and out on,
LEAST_IMAGES, LEAST_CHANNELS = 32, 64
# and columns, where there is no filtering, up to so many output positions and from so many channels in on
SMALL_MAP, MANY_CHANNELS = 16, 128


class FastConv2d(nn.Conv2d):
    """nn.Conv2d that filters in fp32 and multiplies columns in any type where that is faster; else as it is there."""

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        autocast = torch.is_autocast_enabled("cpu")
        known = weight.dtype == torch.float32 if autocast else input.dtype == weight.dtype
        if not (known and _is_plain(self, input)):
            return super()._conv_forward(input, weight, bias)
        if not autocast and _is_filtered(self, input):
            output = FilteredConvolution.apply(input, weight)
        elif self.in_channels >= MANY_CHANNELS and _positions(self, input) <= SMALL_MAP:
            dtype = torch.get_autocast_dtype("cpu") if autocast else weight.dtype
            output = ConvolutionByColumns.apply(input.to(dtype), weight.to(dtype), self.stride, self.padding)
        else:
            return super()._conv_forward(input, weight, bias)
        return output if bias is None else output + bias.to(output.dtype).view(-1, 1, 1)


def use_fast_convolutions_(model: nn.Module) -> None:
    """Make every plain nn.Conv2d of the model a FastConv2d; names, weights and state stay what they are."""
    for module in model.modules():
        if type(module) is nn.Conv2d:
            module.__class__ = FastConv2d


def _is_plain(layer: nn.Conv2d, images: Tensor) -> bool:
    numeric = not isinstance(layer.padding, str) and layer.padding_mode == "zeros"
    plain = numeric and layer.groups == 1 and layer.dilation == (1, 1)
    given = images.device.type == "cpu" and images.dim() == 4 and images.numel() > 0
    return plain and given and images.shape[1] == layer.in_channels


def _is_filtered(layer: nn.Conv2d, images: Tensor) -> bool:
    keeps_size = layer.kernel_size == (3, 3) and layer.stride == layer.padding == (1, 1)
    many = len(images) >= LEAST_IMAGES and min(layer.in_channels, layer.out_channels) >= LEAST_CHANNELS
    return keeps_size and many and images.dtype == torch.float32


def _positions(layer: nn.Conv2d, images: Tensor) -> int:
    height, width = output_size(images.shape[-2:], layer.kernel_size, layer.stride, layer.padding)
    return height * width
