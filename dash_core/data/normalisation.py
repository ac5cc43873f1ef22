"""Normalisation: what is subtracted from images and what they are divided by, per channel."""

import math

import torch
from torch import Tensor

Statistics = tuple[tuple[float, ...], tuple[float, ...]]

CIFAR10: Statistics = ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))  # the paper's
IMAGENET: Statistics = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def channel_statistics(images: Tensor) -> Statistics:
    """Return mean and population std of uint8 images / 255, per channel.

    With n pixels, s = sum(v) and q = sum(v^2): mean = s / 255n, std = sqrt(nq - s^2) / 255n. The sums are whole
    numbers, taken from a count of each value, so the result is the same on every machine and no float copy of the
    set is made. A constant channel has std 1: it is only centred.
    """
    means, stds = [], []
    for channel in range(images.shape[3]):
        counts = torch.bincount(images[..., channel].flatten(), minlength=256).tolist()
        pixels = sum(counts)
        total = sum(count * value for value, count in enumerate(counts))
        squares = sum(count * value**2 for value, count in enumerate(counts))
        spread = pixels * squares - total**2
        means.append(total / (255 * pixels))
        stds.append(math.sqrt(spread) / (255 * pixels) if spread else 1.0)
    return tuple(means), tuple(stds)
