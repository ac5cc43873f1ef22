"""An nn.Conv2d that is faster than oneDNN's in some cases on the CPU: the same sums, with different rounding.

An output of one position is one matrix product (`single`). 3x3 convolutions that keep the size of the map are done with
fewer multiplications (`filtered`). Other convolutions of small maps are faster as matrix products too (`columns`).
bench/convolutions.py measures which is faster where.
"""

import torch
from torch import Tensor, nn

from dash_core.convolution.columns import ConvolutionByColumns, output_size
from dash_core.convolution.filtered import FilteredConvolution
from dash_core.convolution.single import SinglePosition

# Filtering is used for batches of at least so many images, and at least so many channels both in and out.
LEAST_IMAGES, LEAST_CHANNELS = 32, 64
# Columns are used, where filtering is not, for at most so many output positions and at least so many channels in.
SMALL_MAP, MANY_CHANNELS = 16, 128
SINGLE = True  # whether outputs of one position are one product, before both


class FastConv2d(nn.Conv2d):
    """nn.Conv2d with filtering in fp32, and with products in any type, where they are faster; else nn.Conv2d's own."""

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        autocast = torch.is_autocast_enabled("cpu")
        known = weight.dtype == torch.float32 if autocast else input.dtype == weight.dtype
        if not (known and _is_plain(self, input)):
            return super()._conv_forward(input, weight, bias)
        dtype = torch.get_autocast_dtype("cpu") if autocast else weight.dtype
        size = output_size(input.shape[-2:], self.kernel_size, self.stride, self.padding)
        if SINGLE and size == (1, 1):
            output = SinglePosition.apply(input.to(dtype), weight.to(dtype), self.padding)
        elif not autocast and _is_filtered(self, input):
            output = FilteredConvolution.apply(input, weight)
        elif self.in_channels >= MANY_CHANNELS and size[0] * size[1] <= SMALL_MAP:
            output = ConvolutionByColumns.apply(input.to(dtype), weight.to(dtype), self.stride, self.padding)
        else:
            return super()._conv_forward(input, weight, bias)
        return output if bias is None else output + bias.to(output.dtype).view(-1, 1, 1)


def use_fast_convolutions_(model: nn.Module) -> None:
    """Make every plain nn.Conv2d of the model a FastConv2d, in place; names, weights and state do not change."""
    for module in model.modules():
        if type(module) is nn.Conv2d:
            module.__class__ = FastConv2d


def _is_plain(layer: nn.Conv2d, images: Tensor) -> bool:
    numeric = not isinstance(layer.padding, str) and layer.padding_mode == "zeros"
    plain = numeric and layer.groups == 1 and layer.dilation == (1, 1)
    given = images.device.type == "cpu" and images.dim() == 4 and images.numel() > 0 and images.is_floating_point()
    return plain and given and images.shape[1] == layer.in_channels


def _is_filtered(layer: nn.Conv2d, images: Tensor) -> bool:
    keeps_size = layer.kernel_size == (3, 3) and layer.stride == layer.padding == (1, 1)
    many = len(images) >= LEAST_IMAGES and min(layer.in_channels, layer.out_channels) >= LEAST_CHANNELS
    return keeps_size and many and images.dtype == torch.float32
