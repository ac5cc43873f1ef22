"""ResNets for small images: the BasicBlock network with a 3x3 stem (He et al. 2016), in any width.

Layers, their names and the order in which weights are drawn are those of torchvision, whose ResNet takes seconds to
import: equal seeds give the weights that torchvision's would get.
"""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from dash_core.config import WIDTHS

GROUPS = 32  # of channels, as in Wu & He 2018
NORMALISATIONS = {  # of a convolution's channels
    "batch": nn.BatchNorm2d,
    "layer": partial(nn.GroupNorm, 1),
    "group": partial(nn.GroupNorm, GROUPS),
}
Norm = Callable[[int], nn.Module]


def resnet18(
    image_shape: tuple[int, int, int], classes: int, normalisation: str = "batch", width: int = WIDTHS["resnet18"]
) -> nn.Module:
    """Return the ResNet-18 of the paper's standard protocol.

    The 7x7 stride-2 stem becomes 3x3 stride 1; the 3x3 stride-2 max-pool stays, so that the first
    stage sees 16x16 of a 32x32 image. Convolutions start from kaiming_normal(fan_out), the
    classifier from torch's default.

    normalisation: a name in NORMALISATIONS. "layer" is LayerNorm over all of an image's (C, H, W) at once, with a
    scale and a shift for each channel: GroupNorm with a single group. This is our reading of the paper's figures 15
    and 16: the paper does not give the dimensions of its LayerNorm. width: channels of the first stage; the later
    stages have 2, 4 and 8 times as many.
    """
    return _with_small_stem((2, 2, 2, 2), image_shape, classes, normalisation, width)


def resnet18_sota(
    image_shape: tuple[int, int, int], classes: int, normalisation: str = "batch", width: int = WIDTHS["resnet18_sota"]
) -> nn.Module:
    """Return the ResNet-18 of the paper's SoTA protocol: no max-pool, every layer from torch's default."""
    model = resnet18(image_shape, classes, normalisation, width)
    model.maxpool = nn.Identity()
    for module in model.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
    return model


def resnet10(
    image_shape: tuple[int, int, int], classes: int, normalisation: str = "batch", width: int = WIDTHS["resnet10"]
) -> nn.Module:
    """Return `resnet18` with one block a stage instead of two and a quarter of the channels, and otherwise like it."""
    return _with_small_stem((1, 1, 1, 1), image_shape, classes, normalisation, width)


def _with_small_stem(
    blocks: Sequence[int], image_shape: tuple[int, int, int], classes: int, normalisation: str, width: int
) -> nn.Module:
    model = ResNet(blocks, classes, width, NORMALISATIONS[normalisation])
    model.conv1 = nn.Conv2d(image_shape[0], width, kernel_size=3, stride=1, padding=1, bias=False)
    nn.init.kaiming_normal_(model.conv1.weight, mode="fan_out", nonlinearity="relu")
    return model


class BasicBlock(nn.Module):
    """relu(x + norm(conv(relu(norm(conv(x)))))), both 3x3; x passes `shortcut` if there is one."""

    def __init__(self, channels: int, filters: int, stride: int, shortcut: nn.Module | None, norm: Norm) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, filters, kernel_size=3, stride=stride, padding=1, bias=False)
        self.bn1 = norm(filters)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(filters, filters, kernel_size=3, padding=1, bias=False)
        self.bn2 = norm(filters)
        self.downsample = shortcut

    def forward(self, maps: Tensor) -> Tensor:
        """Return the maps (B, filters, H / stride, W / stride) for maps (B, channels, H, W)."""
        kept = maps if self.downsample is None else self.downsample(maps)
        out = self.relu(self.bn1(self.conv1(maps)))
        out = self.bn2(self.conv2(out))
        out += kept
        return self.relu(out)


class ResNet(nn.Module):
    """Four stages of BasicBlocks between a 7x7 stem with max-pool and a Linear classifier, as for ImageNet.

    blocks: of each stage. width: channels of the first stage.
    """

    def __init__(self, blocks: Sequence[int], classes: int, width: int, norm: Norm) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, kernel_size=7, stride=2, padding=3, bias=False)
        self.bn1 = norm(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
        channels = width
        for stage, count in enumerate(blocks):
            filters = width * 2**stage
            setattr(self, f"layer{stage + 1}", _stage(channels, filters, count, norm, stride=1 if stage == 0 else 2))
            channels = filters
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(channels, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        """Return the outputs (B, classes) for images (B, C, H, W)."""
        maps = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        maps = self.layer4(self.layer3(self.layer2(self.layer1(maps))))
        return self.fc(torch.flatten(self.avgpool(maps), 1))


def _stage(channels: int, filters: int, count: int, norm: Norm, stride: int) -> nn.Sequential:
    shortcut = None
    if stride != 1 or channels != filters:
        projection = nn.Conv2d(channels, filters, kernel_size=1, stride=stride, bias=False)
        shortcut = nn.Sequential(projection, norm(filters))
    first = BasicBlock(channels, filters, stride, shortcut, norm)
    return nn.Sequential(first, *(BasicBlock(filters, filters, 1, None, norm) for _ in range(count - 1)))
