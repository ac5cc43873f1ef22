"""Measures of the loss gradient before training: how large it is, and how well the weights point along it."""

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

ALIGNED = 0.1  # cosines above this are those whose quantiles are given, as in the paper's figure 14
QUANTILES = {"min": 0.0, "q25": 0.25, "median": 0.5, "q75": 0.75, "max": 1.0}


def gradient_norm(subject: Subject) -> dict[str, float]:
    """Return the norm of the summed gradient over all data, and over the previous and the new where there are both.

    All images count, in mini-batches of training's size and in a random order: the paper's figure 6 is of the whole
    sum, which grows with the batches. BatchNorm has no variance for one image, of which there is then no gradient.
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

    In train mode: each batch is normalised by its own statistics. The model's modes, buffers and gradients are left as
    found, and so are the global generators, from which dropout draws. around_batch: a context entered around each
    batch with its size.
    """
    with as_found(model, training=True), torch.enable_grad():
        for inputs, labels in batches:
            with around_batch(len(labels)):
                functional.cross_entropy(model(inputs), labels).backward()
        return whole_norm(weight.grad for weight in weights(model).values() if weight.grad is not None)


def alignment(subject: Subject) -> dict[str, float]:
    """Return how the weight vectors lie to DASH's averaged negative gradient: what DASH does, or would do, to them.

    The gradient and the floor are those of the run's own DASH; under another intervention, those of DASH's defaults.
    """
    intervention = subject.intervention
    dash = intervention if isinstance(intervention, Dash) else Dash()
    return alignment_with(subject.learner.model, dash.gradient(subject.learner, subject.data), dash.floor)


@torch.no_grad()
def alignment_with(model: nn.Module, gradient: Mapping[str, Tensor], floor: float) -> dict[str, float]:
    """Return quantiles of cos(−G_θ, θ) above ALIGNED, the share above it, and by parameter the share at the floor.

    Quantiles and share are over all Conv2d kernels and Linear rows of two or more weights (of a single one the cosine
    is a sign); no quantiles where none lies above ALIGNED. `at_floor/<parameter>`: share of the vectors whose cosine is
    at most `floor`, for every parameter that DASH scales.
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
    aligned = every[every > ALIGNED].double().sort().values
    found = {f"above_{ALIGNED}": len(aligned) / len(every)}
    if len(aligned):
        found |= {name: quantile(aligned, share) for name, share in QUANTILES.items()}
    return {**found, **shares}


def quantile(ordered: Tensor, share: float) -> float:
    """Return a quantile of ascending values (N,), N ≥ 1, between neighbours by a line (torch.quantile's is limited)."""
    place = share * (len(ordered) - 1)
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return float(torch.lerp(ordered[below], ordered[above], place - below))
