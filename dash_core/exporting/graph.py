"""The whole way from raw images to probabilities as one torch module, so that it can be exported as one graph."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from dash_core.loading import Normalisation

_PRECISION_BITS = 22  # of the filter weights that Pillow resizes 8-bit images with


class RawImageClassifier(nn.Module):
    """Turns uint8 images (N, H, W, C) of any size into probabilities, float32 (N, classes)."""

    def __init__(
        self, network: nn.Module, image_shape: tuple[int, int, int], mean: Sequence[float], std: Sequence[float]
    ) -> None:
        """image_shape: (C, H, W) of the network's inputs. mean, std: per channel, of images scaled to [0, 1]."""
        super().__init__()
        self.network = network
        self.normalise = Normalisation(mean, std, torch.device("cpu"))
        self.size = image_shape[1:]

    def forward(self, images: Tensor) -> Tensor:
        """Return the probabilities of each image's classes."""
        inputs = self.normalise(cut_to_size(images.permute(0, 3, 1, 2), self.size))
        return self.network(inputs).softmax(1)


def cut_to_size(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Return images (N, C, H, W) with values 0..255, resized to cover (height, width), and their centre cut out.

    The same as Pillow's `resize(..., BILINEAR, box)`, pixel by pixel: a triangle filter as wide as the reduction, its
    weights in fixed point, first along the rows and rounded, then along the columns and rounded. Images of the right
    size are returned as they are. The result is float64 with whole values.
    """
    (in_height, in_width), (height, width) = images.shape[-2:], size
    rows, columns = _positions(images, in_height), _positions(images, in_width)
    tall, wide = rows[-1] + 1, columns[-1] + 1
    box_height = torch.minimum(tall, wide * height / width)
    box_width = torch.minimum(wide, tall * width / height)
    images = images.to(torch.float64) @ _filter(columns, wide, box_width, width).T
    return _rounded(_filter(rows, tall, box_height, height) @ _rounded(images))


def _positions(images: Tensor, count: int) -> Tensor:
    return torch.arange(count, dtype=torch.float64, device=images.device)


def _filter(positions: Tensor, length: Tensor, box: Tensor, size: int) -> Tensor:
    """Return the weights (size, length) of each input pixel in each output pixel, times 2^22, as whole numbers."""
    scale = box / size
    reach = scale.clamp(min=1.0)
    centres = (length - box) / 2 + (_positions(positions, size) + 0.5) * scale
    weights = (1 - ((positions - centres[:, None] + 0.5) * (1 / reach)).abs()).clamp(min=0)
    return torch.floor(weights / weights.sum(1, keepdim=True) * 2**_PRECISION_BITS + 0.5)


def _rounded(sums: Tensor) -> Tensor:
    return torch.floor((sums + 2 ** (_PRECISION_BITS - 1)) / 2**_PRECISION_BITS).clamp(0, 255)
