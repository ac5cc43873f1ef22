"""nn.Conv2d that is faster on the CPU than oneDNN's where it can be: the same sums, rounded otherwise.

3x3 convolutions that keep the map's size take fewer multiplications (`filtering`), others of small maps fewer seconds
as matrix products (`columns`). bench/convolutions.py measures what is faster where.
"""

import torch
from torch import Tensor, nn

from dash_core.convolution.columns import ConvolutionByColumns, output_size
from dash_core.convolution.filtered import FilteredConvolution

SMALL_MAP = 16  # output positions of an image, up to which products of columns are faster,
MANY_CHANNELS = 128  # of the input, from which on they are
LEAST_IMAGES = 32  # in a batch, from which on fewer multiplications are faster than all of them,
LEAST_CHANNELS = {torch.float32: 64, torch.float64: 64, torch.bfloat16: 128}  # in and out, where all are in that type


class FastConv2d(nn.Conv2d):
    """nn.Conv2d by fewer multiplications or by matrix products where they are faster; all else is as it is there.

    Under torch's autocast to bf16 the matrix products are in bf16; what takes fewer multiplications is in fp32, and
    only its output in bf16.
    """

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        kind = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else weight.dtype
        if not _is_plain(self, input) or (input.dtype != weight.dtype and input.dtype != kind):
            return super()._conv_forward(input, weight, bias)
        if _has_filtering(self, len(input), kind):
            with torch.autocast("cpu", enabled=False):
                output = FilteredConvolution.apply(input.to(kind), weight)
        elif self.in_channels >= MANY_CHANNELS and _positions(self, input) <= SMALL_MAP:
            output = ConvolutionByColumns.apply(input.to(kind), weight.to(kind), self.stride, self.padding)
        else:
            return super()._conv_forward(input, weight, bias)
        return output if bias is None else output + bias.to(kind).view(-1, 1, 1)


def use_fast_convolutions_(model: nn.Module) -> None:
    """Make every plain nn.Conv2d of the model a FastConv2d; names, weights and state stay what they are."""
    for module in model.modules():
        if type(module) is nn.Conv2d:
            module.__class__ = FastConv2d


def _is_plain(layer: nn.Conv2d, images: Tensor) -> bool:
    numeric = not isinstance(layer.padding, str) and layer.padding_mode == "zeros"
    plain = numeric and layer.groups == 1 and layer.dilation == (1, 1)
    return plain and images.device.type == "cpu" and images.dim() == 4 and images.shape[1] == layer.in_channels


def _has_filtering(layer: nn.Conv2d, images: int, kind: torch.dtype) -> bool:
    keeps_size = layer.kernel_size == (3, 3) and layer.stride == layer.padding == (1, 1)
    channels = min(layer.in_channels, layer.out_channels)
    return keeps_size and images >= LEAST_IMAGES and channels >= LEAST_CHANNELS.get(kind, channels + 1)


def _positions(layer: nn.Conv2d, images: Tensor) -> int:
    height, width = output_size(images.shape[-2:], layer.kernel_size, layer.stride, layer.padding)
    return height * width
