"""A small model with its card and images, and its export."""

import torch

from dash_core.exporting import ModelCard, export_model
from dash_core.models import build_model
from tests import toy

SHAPE = (1, 8, 8)
NAMES = ("null", "eins", "zwei", "drei")


def card(**facts):
    return ModelCard("cnn3_small", NAMES, SHAPE, (0.3,), (0.2,), facts=facts)


def model(seed=0):
    """Return a model in train mode whose BatchNorm statistics are not the initial ones."""
    network = build_model("cnn3_small", SHAPE, len(NAMES), seed=seed)
    with torch.no_grad():
        for _ in range(5):
            network(torch.randn((16, *SHAPE), generator=torch.Generator().manual_seed(seed)))
    return network


def images(count=4):
    return toy.images(count, classes=len(NAMES)).images


def exported(folder, seed=0, **facts):
    """Export the model of a seed, and return its folder."""
    export_model(model(seed), card(**facts), folder, images())
    return folder
