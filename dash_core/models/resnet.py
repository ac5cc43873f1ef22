"""ResNets for small images: torchvision's BasicBlock network with a 3x3 stem (He et al. 2016), in any width."""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import nn

from dash_core.config import WIDTHS

GROUPS = 32  # of channels, as in Wu & He 2018
NORMALISATIONS = {  # of a convolution's channels
    "batch": nn.BatchNorm2d,
    "layer": partial(nn.GroupNorm, 1),
    "group": partial(nn.GroupNorm, GROUPS),
}
WIDTH = 64  # torchvision's, of the first stage; later stages have 2, 4 and 8 times as many channels
EIGHTEEN, TEN = (2, 2, 2, 2), (1, 1, 1, 1)  # blocks of each stage


def resnet18(
    image_shape: tuple[int, int, int], classes: int, normalisation: str = "batch", width: int = WIDTH
) -> nn.Module:
    """Return the ResNet-18 of the paper's standard protocol.

    The 7x7 stride-2 stem becomes 3x3 stride 1; the 3x3 stride-2 max-pool stays, so that the first
    stage sees 16x16 of a 32x32 image. Convolutions start from kaiming_normal(fan_out), the
    classifier from torch's default.

    normalisation: a name in NORMALISATIONS. "layer" is LayerNorm over all of an image's (C, H, W) at once, with a
    scale and a shift for each channel: GroupNorm with a single group. This is our reading of the paper's figures 15
    and 16: the paper does not give the dimensions of its LayerNorm. width: channels of the first stage.
    """
    return _resnet(EIGHTEEN, image_shape, classes, normalisation, width)


def resnet18_sota(
    image_shape: tuple[int, int, int], classes: int, normalisation: str = "batch", width: int = WIDTH
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
    return _resnet(TEN, image_shape, classes, normalisation, width)


def _resnet(
    blocks: Sequence[int], image_shape: tuple[int, int, int], classes: int, normalisation: str, width: int
) -> nn.Module:
    from torchvision.models.resnet import BasicBlock, ResNet  # takes seconds, so only here

    norm = NORMALISATIONS[normalisation]
    if width == WIDTH:
        model = ResNet(BasicBlock, blocks, num_classes=classes, norm_layer=norm)
    else:
        with torch.device("meta"):  # every tensor is replaced: nothing is stored or drawn for it
            model = ResNet(BasicBlock, blocks, num_classes=classes, norm_layer=norm)
        _set_width_(model, BasicBlock, blocks, classes, width, norm)
    model.conv1 = nn.Conv2d(image_shape[0], width, kernel_size=3, stride=1, padding=1, bias=False)
    nn.init.kaiming_normal_(model.conv1.weight, mode="fan_out", nonlinearity="relu")
    return model


def _set_width_(
    model: nn.Module,
    block: type[nn.Module],
    blocks: Sequence[int],
    classes: int,
    width: int,
    norm: Callable[[int], nn.Module],
) -> None:
    """Replace every layer but the stem by one of the given width, initialised as torchvision initialises its own."""
    model.inplanes = width
    model.bn1 = norm(width)
    for stage, count in enumerate(blocks):
        layers = model._make_layer(block, width * 2**stage, count, stride=1 if stage == 0 else 2)
        model.add_module(f"layer{stage + 1}", layers)
        for module in layers.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    model.fc = nn.Linear(8 * width * block.expansion, classes)
