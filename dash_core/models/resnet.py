"""ResNet-18 for small images: torchvision's BasicBlock network with a 3x3 stem (He et al. 2016)."""

from functools import partial

from torch import nn

NORMALISATIONS = {  # of a convolution's channels
    "batch": nn.BatchNorm2d,
    "layer": partial(nn.GroupNorm, 1),
    "group": partial(nn.GroupNorm, 32),  # groups, as in Wu & He 2018
}


def resnet18(image_shape: tuple[int, int, int], classes: int, normalisation: str = "batch") -> nn.Module:
    """Return the ResNet-18 of the paper's standard protocol.

    The 7x7 stride-2 stem becomes 3x3 stride 1; the 3x3 stride-2 max-pool stays, so that the first
    stage sees 16x16 of a 32x32 image. Convolutions start from kaiming_normal(fan_out), the
    classifier from torch's default.

    normalisation: a name in NORMALISATIONS. "layer" is LayerNorm over all of an image's (C, H, W) at once, with a
    scale and a shift for each channel: GroupNorm with a single group. This is our reading of the paper's figures 15
    and 16: the paper does not give the dimensions of its LayerNorm.
    """
    from torchvision.models.resnet import BasicBlock, ResNet  # takes seconds, so only here

    model = ResNet(BasicBlock, [2, 2, 2, 2], num_classes=classes, norm_layer=NORMALISATIONS[normalisation])
    model.conv1 = nn.Conv2d(image_shape[0], 64, kernel_size=3, stride=1, padding=1, bias=False)
    nn.init.kaiming_normal_(model.conv1.weight, mode="fan_out", nonlinearity="relu")
    return model


def resnet18_sota(image_shape: tuple[int, int, int], classes: int, normalisation: str = "batch") -> nn.Module:
    """Return the ResNet-18 of the paper's SoTA protocol: no max-pool, every layer from torch's default."""
    model = resnet18(image_shape, classes, normalisation)
    model.maxpool = nn.Identity()
    for module in model.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
    return model
