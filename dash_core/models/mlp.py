"""The paper's multilayer perceptron: three layers of width 1024 with BatchNorm."""

import math

from torch import nn

WIDTH = 1024  # as in the authors' notebook


def mlp(image_shape: tuple[int, int, int], classes: int) -> nn.Module:
    """Return Linear-BatchNorm-ReLU twice and a Linear classifier; inputs are scaled to [0, 1], not normalised."""
    return nn.Sequential(
        nn.Flatten(),  # not view: batches may come channels-last
        nn.Linear(math.prod(image_shape), WIDTH),
        nn.BatchNorm1d(WIDTH),
        nn.ReLU(),
        nn.Linear(WIDTH, WIDTH),
        nn.BatchNorm1d(WIDTH),
        nn.ReLU(),
        nn.Linear(WIDTH, classes),
    )
