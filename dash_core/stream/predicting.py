"""What a model says about images: class probabilities, in eval mode."""

import numpy as np
import torch
from torch import Tensor, nn

from dash_core.data import ImageSet
from dash_core.evaluation import evaluation_batch
from dash_core.run_images import input_normalisation
from dash_core.shrinking import in_mode
from dash_core.stream.outcomes import Outcomes

LEAST_PROBABILITY = 1e-30  # of a label, in a log-loss


@torch.no_grad()
def probabilities(model: nn.Module, name: str, images: ImageSet, device: torch.device) -> np.ndarray:
    """Return the probability of each class for each image, float32 (N, K). name: of the model in MODELS."""
    normalise = input_normalisation(name, images, device)
    parts = []

    def inputs(start: int, end: int) -> Tensor:
        return normalise(images.images[start:end].permute(0, 3, 1, 2).to(device))

    size = evaluation_batch(model, inputs(0, 2))
    with in_mode(model, training=False):
        for start in range(0, len(images), size):
            parts.append(model(inputs(start, start + size)).softmax(1).float().cpu())
    return torch.cat(parts).numpy()


def outcomes(ids: list[str], labels: np.ndarray, said: np.ndarray) -> Outcomes:
    """Return the outcome of each image from the probabilities (N, K) that a model gave."""
    given = said[np.arange(len(labels)), labels].astype(np.float64)
    return Outcomes(ids, labels, said.argmax(1) == labels, -np.log(np.maximum(given, LEAST_PROBABILITY)))


def widened(said: np.ndarray, classes: int) -> np.ndarray:
    """Return probabilities (N, classes): 0 for classes that the model does not know yet."""
    missing = classes - said.shape[1]
    return np.pad(said, ((0, 0), (0, missing))) if missing else said
