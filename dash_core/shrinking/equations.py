"""DASH, Shrink & Perturb and plain shrinking of a torch model, for any training loop. Needs torch alone.

DASH (Shin, Oh, Cho, Yun; NeurIPS 2024, algorithm 1) scales each weight vector θ by the cosine between θ and the
negative loss gradient, before training continues with a new chunk. G averages the gradients of the chunks::

    G ← 0;  for i = 1..j:  G ← (1 − α) G + α ∇ mean loss over chunk i
    θ ← θ · max(λ, cos(−G_θ, θ))                      # λ is `floor` here: `lambda` is a Python keyword

G is the gradient of one weighted loss, in which chunk i has the weight α(1 − α)^(j − i). backward() adds to `.grad`,
so G is summed there, batch after batch, without a copy of the model. As in the authors' code, the weights and biases of
convolutions, Linear layers and their like change (`dash_core.weight_vectors`), and no normalisation layer.
"""

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from dash_core.shrinking.gradient import Chunk, Loss, averaged_gradient
from dash_core.shrinking.weight_vectors import AnyWeight, Vectors, Weight, find_weights

NORM_FLOOR = 1e-8  # torch.cosine_similarity raises smaller norms to this; averaged gradients can be smaller


@dataclass(frozen=True)
class ShrinkReport:
    """What DASH did to one parameter: its number of weight vectors, how many reached the floor, their mean factor."""

    vectors: int
    at_floor: int
    mean_factor: float


class ShrinkReports(dict[str, ShrinkReport]):
    """The report on each parameter by name, and `left_alone`: why the other parameters stay as they are, by name."""

    left_alone: dict[str, str]

    def __init__(self, reports: Mapping[str, ShrinkReport], left_alone: Mapping[str, str]) -> None:
        super().__init__(reports)
        self.left_alone = dict(left_alone)


@torch.no_grad()
def shrink_(model: nn.Module, factor: float, *, vectors: Vectors | None = None) -> None:
    """Scale the weights and biases that `find_weights` names in place: θ ← λθ, λ = `factor` in [0, 1].

    vectors: further weights, as for `find_weights`. Warns if more than 1 % of the weights are left alone.
    """
    found = find_weights(model, vectors)
    scale_(found.shrunk, factor)
    found.warn()


@torch.no_grad()
def shrink_perturb_(
    model: nn.Module,
    *,
    shrink: float = 0.3,
    sigma: float = 0.01,
    generator: torch.Generator | None = None,
    vectors: Vectors | None = None,
) -> None:
    """Shrink & Perturb in place: θ ← λθ + ε, ε ~ N(0, σ²), on the weights and biases that `find_weights` names.

    λ = `shrink` in [0, 1]; `sigma` ≥ 0 is the standard deviation. `generator` is a CPU generator: noise is drawn on
    the CPU and then moved, so that every device gets the same (Ash & Adams 2020, as the DASH paper uses it).
    vectors: further weights, as for `find_weights`. Warns if more than 1 % of the weights are left alone.
    """
    found = find_weights(model, vectors)
    scale_(found.shrunk, shrink, sigma, generator)
    found.warn()


@torch.no_grad()
def scale_(
    weights: list[AnyWeight], factor: float, sigma: float | None = None, generator: torch.Generator | None = None
) -> None:
    """Shrink the given weights in place by one factor in [0, 1]; unless σ is None, add noise as `shrink_perturb_`."""
    if not 0 <= factor <= 1:
        raise ValueError(f"factor must be in [0, 1], got {factor}")
    if sigma is not None and not sigma >= 0:
        raise ValueError(f"sigma must be >= 0, got {sigma}")
    if factor == 0 and not sigma:
        for weight in weights:
            weight.taking(weight.value() * factor)  # raises, if a weight cannot be zero, before any has changed
    for weight in weights:
        value = weight.value()
        value.mul_(factor)
        if sigma is not None:
            noise = torch.empty(value.shape, dtype=value.dtype).normal_(0, sigma, generator=generator)
            value.add_(noise.to(value.device))
        weight.taking(value)()


def dash_(
    model: nn.Module,
    chunks: Iterable[Chunk],
    *,
    alpha: float = 0.3,
    floor: float = 0.3,
    cutoff: float = 0.0,
    mode: Literal["eval", "train"] = "eval",
    micro_batch_size: int | None = None,
    loss: Loss = functional.cross_entropy,
    transform: Callable[[Tensor], Tensor] = lambda inputs: inputs,
    around_batch: Callable[[int], AbstractContextManager] = lambda size: nullcontext(),
    vectors: Vectors | None = None,
) -> ShrinkReports:
    """Shrink the weights of `model` in place by their direction; return a report by parameter name.

    floor: the paper's λ, in [0, 1]. The other arguments are those of `averaged_gradient`. The model's modes, buffers
    and gradients, the global random generators and the optimiser (the paper keeps its momentum) are left as found.
    ValueError, before any weight changes, if there is no chunk or nothing to shrink, or the gradient is not finite.
    A LeftAloneWarning says which weights are left alone, if they are more than 1 % of all; the report names all.
    """
    require_floor(floor)
    gradient = averaged_gradient(
        model,
        chunks,
        alpha=alpha,
        cutoff=cutoff,
        mode=mode,
        micro_batch_size=micro_batch_size,
        loss=loss,
        transform=transform,
        around_batch=around_batch,
        vectors=vectors,
    )
    require_finite(gradient)
    reports = shrink_along_(model, gradient, floor, vectors=vectors)
    find_weights(model, vectors).warn()
    return reports


def require_floor(floor: float) -> None:
    """Raise ValueError unless the floor is in [0, 1]."""
    if not 0 <= floor <= 1:
        raise ValueError(f"floor must be in [0, 1], got {floor}")


def require_finite(gradient: Mapping[str, Tensor]) -> None:
    """Raise ValueError if a gradient is not finite; the message names the first."""
    if broken := [name for name, values in gradient.items() if not torch.isfinite(values).all()]:
        raise ValueError(f"the gradient of {broken[0]} is not finite; the weights are as they were: check the inputs")


@torch.no_grad()
def shrink_along_(
    model: nn.Module, gradient: Mapping[str, Tensor], floor: float, *, vectors: Vectors | None = None
) -> ShrinkReports:
    """Scale each weight vector θ in place by max(floor, cos(−G_θ, θ)); return a report by parameter name.

    gradient: as from `averaged_gradient` with the same `vectors`.
    """
    found = find_weights(model, vectors)
    values = {weight.name: weight.value() for weight in found.shrunk}
    dims = {weight.name: weight.dims for weight in found.shrunk}
    factors = {name: cosine_similarity(value, gradient[name], dims[name]).neg_() for name, value in values.items()}
    torch._foreach_clamp_min_(list(factors.values()), floor)
    computed = [weight for weight in found.shrunk if not isinstance(weight, Weight)]
    take = [weight.taking(values.pop(weight.name).mul_(factors[weight.name])) for weight in computed]
    if values:
        torch._foreach_mul_(list(values.values()), [factors[name] for name in values])
    for function in take:
        function()
    counts = [(factor <= floor).sum() for factor in factors.values()]
    means = [factor.double().mean() for factor in factors.values()]
    at_floor, mean = (
        torch.stack(counts).tolist(),
        torch.stack(means).tolist(),
    )  # waits for the device once, not by layer
    reports = {
        name: ShrinkReport(factor.numel(), int(at_floor[i]), mean[i])
        for i, (name, factor) in enumerate(factors.items())
    }
    return ShrinkReports(reports, found.left_alone)


def cosine_similarity(a: Tensor, b: Tensor, dims: tuple[int, ...]) -> Tensor:
    """Return cos(a, b) over `dims`, kept as size 1; 0 for a zero vector, as in torch.cosine_similarity."""
    norm_a = torch.linalg.vector_norm(a, dim=dims, keepdim=True).clamp_(min=NORM_FLOOR)
    norm_b = torch.linalg.vector_norm(b, dim=dims, keepdim=True).clamp_(min=NORM_FLOOR)
    return (a * b).sum(dims, keepdim=True).div_(norm_a).div_(norm_b)
