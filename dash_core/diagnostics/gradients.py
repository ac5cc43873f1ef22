"""Measures of the loss gradient before training: its norm, and the cosine of the weights with it."""

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn import functional

from dash_core.diagnostics.base import Subject
from dash_core.diagnostics.weights import weights, whole_norm
from dash_core.interventions.dash import Dash
from dash_core.seeding import borrowed_global_generator, derive_seed
from dash_core.shrinking import as_found, cosine_similarity, weights_and_biases

ALIGNED_COSINE = 0.1  # quantiles are those of the cosines above this, as in the paper's figure 14
QUANTILES = {"min": 0.0, "q25": 0.25, "median": 0.5, "q75": 0.75, "max": 1.0}


def gradient_norm(subject: Subject) -> dict[str, float]:
    """Return the norm of the summed gradient over `all` data and, if there are previous data, `previous` and `new`.

    The sum is over mini-batches of the training's size, in a random order, of all images, as in the paper's figure 6;
    it grows with the number of batches. A part of one image is left out: BatchNorm has no variance for it.
    """
    learner, data = subject.learner, subject.data
    images, previous = len(data), data.previous_images
    parts = {"all": range(images)}
    if previous:
        parts |= {"previous": range(previous), "new": range(previous, images)}
    order = torch.randperm(images, generator=learner.generator("diagnose", "gradient_norm", data.experiment))
    norms = {}
    for part, positions in parts.items():
        if len(positions) < 2:
            continue
        chosen = order[(order >= positions.start) & (order < positions.stop)]
        with borrowed_global_generator(learner.device, derive_seed(learner.seed, "diagnose", part, data.experiment)):
            norms[part] = summed_gradient_norm(
                learner.model,
                subject.batches(chosen, subject.batch_size),
                around_batch=lambda size: learner.meter.counted(("gradient", size)),
            )
    return norms


def summed_gradient_norm(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    around_batch: Callable[[int], AbstractContextManager] = lambda size: nullcontext(),
) -> float:
    """Return ‖Σ over (inputs, labels) of ∇ mean cross-entropy of the batch‖₂ over Conv2d and Linear weights.

    The model is in train mode: each batch is normalised by its own statistics. Its modes, buffers and gradients are
    left as found, and so are the global generators, from which dropout draws. around_batch: a context entered around
    each batch with its size.
    """
    with as_found(model, training=True), torch.enable_grad():
        for inputs, labels in batches:
            with around_batch(len(labels)):
                functional.cross_entropy(model(inputs), labels).backward()
        return whole_norm(weight.grad for weight in weights(model).values() if weight.grad is not None)


def alignment(subject: Subject) -> dict[str, float]:
    """Return how well the weight vectors point along DASH's averaged negative gradient, as in `alignment_with`.

    The gradient and the floor are those of the run's DASH; for another intervention, those of DASH's defaults.
    """
    intervention = subject.intervention
    dash = intervention if isinstance(intervention, Dash) else Dash()
    return alignment_with(subject.learner.model, dash.gradient(subject.learner, subject.data), dash.floor)


@torch.no_grad()
def alignment_with(model: nn.Module, gradient: Mapping[str, Tensor], floor: float) -> dict[str, float]:
    """Return quantiles of the cosines cos(−G_θ, θ) above ALIGNED_COSINE, their share, and the shares at the floor.

    Quantiles and share are over all Conv2d kernels and Linear rows of two or more weights (for a single weight the
    cosine is a sign). There are no quantiles if no cosine is above ALIGNED_COSINE. `at_floor/<parameter>` is the share
    of vectors whose cosine is at most `floor`, for each parameter that DASH scales.
    """
    cosines, at_floor = [], {}
    for name, parameter, dims in weights_and_biases(model):
        cosine = cosine_similarity(parameter, -gradient[name], dims).flatten()
        at_floor[f"at_floor/{name}"] = (cosine <= floor).double().mean()
        if parameter.dim() > 1 and parameter.numel() > cosine.numel():
            cosines.append(cosine)
    shares = dict(zip(at_floor, torch.stack(list(at_floor.values())).tolist(), strict=True))
    if not cosines:
        return shares
    every = torch.cat(cosines)
    aligned = every[every > ALIGNED_COSINE].double().sort().values
    found = {f"above_{ALIGNED_COSINE}": len(aligned) / len(every)}
    if len(aligned):
        found |= {name: quantile(aligned, share) for name, share in QUANTILES.items()}
    return {**found, **shares}


def quantile(ordered: Tensor, share: float) -> float:
    """Return a quantile of ascending values (N,), N ≥ 1, interpolated linearly (torch.quantile limits N)."""
    place = share * (len(ordered) - 1)
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return float(torch.lerp(ordered[below], ordered[above], place - below))
