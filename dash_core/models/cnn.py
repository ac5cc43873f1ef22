"""A plain three-layer convolutional network, for quick runs and for figure 14."""

from collections import OrderedDict

from torch import Tensor, nn


def cnn3(image_shape: tuple[int, int, int], classes: int) -> nn.Module:
    """Return three 3x3 convolutions (64-128-256) with BatchNorm and ReLU, and a Linear classifier.

    The first two blocks end in a 2x2 max-pool, the third in a global average. The paper does not
    say what the three-layer CNN of its figure 14 looks like: this architecture is our choice.
    """
    return _three_layers(image_shape, classes, (64, 128, 256))


def cnn3_small(image_shape: tuple[int, int, int], classes: int) -> nn.Module:
    """Return cnn3 at a quarter of its width (16-32-64), for the smallest images.

    An experiment on few images has a few dozen steps. BatchNorm's running statistics therefore take a share of 0.25
    from each batch, not torch's 0.1, or they would still belong to the weights before an intervention.
    """
    model = _three_layers(image_shape, classes, (16, 32, 64))
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.25
    return model


def _three_layers(image_shape: tuple[int, int, int], classes: int, widths: tuple[int, int, int]) -> nn.Module:
    first, second, third = widths
    parts = OrderedDict(
        block1=_block(image_shape[0], first, nn.MaxPool2d(2)),
        block2=_block(first, second, nn.MaxPool2d(2)),
        block3=_block(second, third, GlobalAverage()),
        flatten=nn.Flatten(),
        fc=nn.Linear(third, classes),
    )
    return nn.Sequential(parts)


def _block(channels: int, filters: int, pool: nn.Module) -> nn.Sequential:
    convolution, relu = nn.Conv2d(channels, filters, kernel_size=3, padding=1, bias=False), nn.ReLU()
    if isinstance(pool, nn.MaxPool2d):  # it commutes with ReLU, and leaves a quarter of the values to rectify
        return nn.Sequential(convolution, nn.BatchNorm2d(filters), pool, relu)
    return nn.Sequential(convolution, nn.BatchNorm2d(filters), relu, pool)


class GlobalAverage(nn.Module):
    """(B, C, H, W) → (B, C, 1, 1): the mean of each map. Its gradient is expanded from one number a map, not stored."""

    def forward(self, maps: Tensor) -> Tensor:
        """Return the means."""
        # in the type of the maps: autocast on CUDA would sum in fp32, and casting back would store the gradient
        return maps.sum((2, 3), keepdim=True, dtype=maps.dtype) / maps.shape[2:].numel()
