"""Measures of the features, which are the inputs of the last module of the classifier head."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from dash_core.diagnostics.base import Subject
from dash_core.diagnostics.weights import weight_norms


def norms(subject: Subject) -> dict[str, float]:
    """Return the norms of the weights, and `features`: the mean over images of the norm of their features."""
    features = _features_of(subject)
    mean = torch.linalg.vector_norm(features, dim=1, dtype=torch.float64).mean()
    return {"features": float(mean), **weight_norms(subject.learner.model)}


def feature_rank(subject: Subject) -> dict[str, float]:
    """Return the effective rank of the features of at most MOST_IMAGES training images."""
    return {"effective": effective_rank(_features_of(subject))}


def effective_rank(matrix: Tensor) -> float:
    """Return exp(−Σ pᵢ ln pᵢ), pᵢ = σᵢ / Σ σ, with the singular values σ of a matrix (N, F); 0 for a zero matrix.

    Roy & Vetterli 2007, definition 1: between 1 and the rank. NaN where an entry is not finite.
    """
    if not bool(matrix.isfinite().all()):
        return float("nan")
    singular = torch.linalg.svdvals(matrix)
    total = singular.sum()
    return float(torch.special.entr(singular / total).sum().exp()) if total > 0 else 0.0


def features_seen(model: nn.Module, head: str, run: Callable[[], object]) -> Tensor:
    """Return the inputs of the last Conv2d or Linear module in `head` during `run()`: features (N, F).

    Maps (B, F, H, W) are averaged over their positions.
    """
    layers = [part for part in model.get_submodule(head).modules() if isinstance(part, nn.Conv2d | nn.Linear)]
    seen: list[Tensor] = []
    handle = layers[-1].register_forward_pre_hook(lambda module, given: seen.append(_flat(given[0].detach())))
    try:
        run()
    finally:
        handle.remove()
    return torch.cat(seen)


def _flat(given: Tensor) -> Tensor:
    return given.mean((2, 3)) if given.dim() == 4 else given.flatten(1)


def _features_of(subject: Subject) -> Tensor:
    """Return the features (N, F) of training images so far, at most MOST_IMAGES, in eval mode."""
    learner, positions = subject.learner, subject.draw(len(subject.data))
    return features_seen(learner.model, learner.head[-1], lambda: subject.predict(positions))
