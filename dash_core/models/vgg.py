"""VGG-16 with BatchNorm, as in torchvision (Simonyan & Zisserman 2015)."""

import torch
from torch import Tensor, nn

from dash_core.extras import require

POOLED = 7  # side of the feature map that the classifier reads
STRIDE = 32  # five max-pools of two


def vgg16_bn(image_shape: tuple[int, int, int], classes: int) -> nn.Module:
    """Return torchvision's VGG-16 with BatchNorm: classifier 25088-4096-4096-classes with dropout 0.5.

    The initialisation is torchvision's: convolutions kaiming_normal(fan_out), Linear N(0, 0.01), all biases 0. Only the
    first convolution (unless there are 3 channels) and the pooling module are ours.
    """
    require("data", "the model vgg16_bn")
    from torchvision.models import vgg16_bn as torchvision_vgg16_bn  # takes seconds, so only here

    channels, height, width = image_shape
    model = torchvision_vgg16_bn(weights=None, num_classes=classes)
    if channels != 3:
        model.features[0] = nn.Conv2d(channels, 64, kernel_size=3, padding=1)
        nn.init.kaiming_normal_(model.features[0].weight, mode="fan_out", nonlinearity="relu")
        nn.init.zeros_(model.features[0].bias)
    model.avgpool = AveragePoolTo((height // STRIDE, width // STRIDE), POOLED)
    return model


class AveragePoolTo(nn.Module):
    """AdaptiveAvgPool2d for maps of one known size, with a deterministic backward pass on CUDA.

    Each side is averaged by a matrix: pooled = rows @ x @ columns.T. The backward pass of torch's own module has no
    deterministic CUDA kernel (torch.use_deterministic_algorithms).
    """

    def __init__(self, given: tuple[int, int], side: int) -> None:
        super().__init__()
        self.side = side
        self.register_buffer("rows", _averages(given[0], side), persistent=False)
        self.register_buffer("columns", _averages(given[1], side), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return x pooled, or repeated, to side x side."""
        if x.shape[-2:] == (1, 1):
            return x.expand(-1, -1, self.side, self.side)
        if x.shape[-2:] == (self.side, self.side):
            return x
        return self.rows.to(x.dtype) @ x @ self.columns.to(x.dtype).T


def _averages(given: int, side: int) -> Tensor:
    """Return the (side, given) matrix whose row i averages the cells floor(i n/s) to ceil((i+1) n/s)."""
    cell = torch.arange(side)[:, None]
    start, end = cell * given // side, -(-(cell + 1) * given // side)
    inside = (torch.arange(given) >= start) & (torch.arange(given) < end)
    return inside / (end - start)
