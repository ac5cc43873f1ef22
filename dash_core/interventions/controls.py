"""Controls of DASH: each changes one thing about its factors, to tell what the effect comes from.

DASH scales each weight vector θ_u by f_u = max(λ, cos(−G_u, θ_u)). Where a normalisation layer follows, the function of
the network (in train mode) depends on the direction of each filter alone, and the filter's norm sets the effective
learning rate. A DASH step on convolution kernels changes both. `dash_norms` makes only its change of norms and
`dash_direction` only its change of directions; one after the other they are DASH. The other controls keep the strength
of shrinking and take away what the factors know: which vector (`dash_permuted`, `dash_permuted_in_filter`), any
difference between vectors (`dash_uniform`), the sign (`dash_reversed`), the data (`dash_random_gradient`), the labels
(`dash_shuffled_labels`). `norm_reset` needs no gradient: it restores the norms of the first initialisation.

With floor = 1 (`strength` = 0 for norm_reset) every control is warm, bit for bit. A record holds ‖θ'‖/‖θ‖ of each
parameter as `norm_ratio/<parameter>`, and the mean of |f' − f| over vectors as `factor_change`: f' replaces DASH's f. A
control whose `factor_change` is 0 does what DASH does, and warns: on wide Linear layers all factors are at the floor.
"""

import logging
from collections.abc import Callable, Iterator
from typing import ClassVar, Literal

import torch
from torch import Tensor

from dash_core.interventions.base import Intervention, weights_to_shrink
from dash_core.interventions.dash import Dash
from dash_core.section import Share
from dash_core.shrinking import AnyWeight, cosine_similarity

logger = logging.getLogger(__name__)
Dims = tuple[int, ...]
Shuffle = Callable[[int], Tensor]  # number of things → a permutation of them, int64


def dash_factors(weight: Tensor, gradient: Tensor, dims: Dims, floor: float) -> Tensor:
    """Return DASH's factors, in [floor, 1]: one for each weight vector, which extends over `dims` (kept as size 1)."""
    return cosine_similarity(weight, gradient, dims).neg_().clamp_(floor, 1)


def filter_norm_ratios(weight: Tensor, factors: Tensor) -> Tensor:
    """Return ‖(fθ)_o‖/‖θ_o‖ of each output filter o, (O, 1, ...); of a bias, its one factor. 1 for a zero filter."""
    if weight.ndim == 1:
        return factors
    dims = tuple(range(1, weight.ndim))
    before = torch.linalg.vector_norm(weight, dim=dims, keepdim=True)
    after = torch.linalg.vector_norm(weight * factors, dim=dims, keepdim=True)
    return torch.where(before > 0, after / before, 1.0)


def permuted_factors(factors: Tensor, shuffle: Shuffle) -> Tensor:
    """Return the factors of one parameter, each for another vector: f'_j = f_perm[j] over the flattened factors."""
    return factors.flatten()[shuffle(factors.numel()).to(factors.device)].view_as(factors)


def permuted_in_filters(factors: Tensor, shuffle: Shuffle) -> Tensor:
    """Return the factors (O, I, 1, 1) of kernels, permuted over the inputs of each filter; others as they are."""
    if factors.ndim < 4:
        return factors
    rows = torch.stack([shuffle(factors.shape[1]) for _ in range(len(factors))]).to(factors.device)
    return factors.gather(1, rows[:, :, None, None])


def uniform_factor(weight: Tensor, factors: Tensor, by: str) -> Tensor:
    """Return one factor for all vectors of a parameter: ‖fθ‖/‖θ‖ (by norm), or the mean of f (by mean)."""
    if by == "mean":
        return factors.mean()
    before = torch.linalg.vector_norm(weight)
    return torch.where(before > 0, torch.linalg.vector_norm(weight * factors) / before, 1.0)


class DashControl(Dash):
    """DASH with other factors: a subclass says which in `factors_used`."""

    def before_chunk(self, learner, data) -> dict[str, float]:
        """Scale the weights by the control's factors; keep momentum."""
        gradient = self.gradient(learner, data)
        measured, changes = {}, []
        with torch.no_grad():
            for weight in weights_to_shrink(learner.model):
                name, value, dims = weight.name, weight.value(), weight.dims
                found = dash_factors(value, gradient[name], dims, self.floor)
                used = self.factors_used(learner, data, name, value, gradient[name], dims, found)
                measured[f"norm_ratio/{name}"] = _scale_(weight, value, used)
                changes.append((used - found).abs())
        vectors = sum(change.numel() for change in changes)
        measured["factor_change"] = float(sum(change.double().sum() for change in changes)) / vectors
        if measured["factor_change"] == 0 and self.floor < 1:
            logger.warning("%s: its factors are those of DASH, so that this control tells nothing here", self.name)
        return measured

    def factors_used(
        self, learner, data, name: str, weight: Tensor, gradient: Tensor, dims: Dims, factors: Tensor
    ) -> Tensor:
        """Return what scales the parameter `name`, to be broadcast over it, given DASH's own factors of it."""
        raise TypeError(f"{type(self).__name__} does not say which factors it uses")


def _scale_(weight: AnyWeight, value: Tensor, factors: Tensor) -> float:
    """Scale a weight, given its value, in place; return ‖θ'‖/‖θ‖, 1 for a weight of zeros."""
    before = float(torch.linalg.vector_norm(value))
    value.mul_(factors)
    weight.taking(value)()
    return float(torch.linalg.vector_norm(value)) / before if before else 1.0


class DashNorms(DashControl):
    """θ_o ← r_o θ_o, r_o = ‖(fθ)_o‖/‖θ_o‖: each filter's norm as DASH makes it, its direction as it was."""

    name: ClassVar = "dash_norms"
    summary: ClassVar = "control: each filter gets the norm that DASH gives it, and keeps its direction"
    source: ClassVar = "ours: half of DASH's 2×2, norms × directions"

    def factors_used(self, learner, data, name, weight, gradient, dims, factors) -> Tensor:
        """Return r_o for each filter."""
        return filter_norm_ratios(weight, factors)


class DashDirection(DashControl):
    """θ_u ← (f_u/r_o) θ_u: each filter's direction as DASH makes it, its norm as it was."""

    name: ClassVar = "dash_direction"
    summary: ClassVar = "control: each filter gets the direction that DASH gives it, and keeps its norm"
    source: ClassVar = "ours: half of DASH's 2×2, norms × directions"

    def factors_used(self, learner, data, name, weight, gradient, dims, factors) -> Tensor:
        """Return f/r; 1 for a filter that DASH sets to zero."""
        ratios = filter_norm_ratios(weight, factors)
        return torch.where(ratios > 0, factors / ratios, 1.0)


class DashPermuted(DashControl):
    """DASH's factors, each given to another vector of the same parameter; a bias keeps its one factor."""

    name: ClassVar = "dash_permuted"
    summary: ClassVar = "control: DASH's factors, permuted over all weight vectors of a parameter"
    source: ClassVar = "ours: the same strength without the direction"

    def factors_used(self, learner, data, name, weight, gradient, dims, factors) -> Tensor:
        """Return the permuted factors."""
        draws = learner.generator("permute", data.experiment, name)
        return permuted_factors(factors, lambda count: torch.randperm(count, generator=draws))


class DashPermutedInFilter(DashControl):
    """DASH's factors, permuted over the inputs of each filter; Linear rows and biases keep theirs."""

    name: ClassVar = "dash_permuted_in_filter"
    summary: ClassVar = "control: DASH's factors, permuted over the kernels of each filter"
    source: ClassVar = "ours: about the same norms, a random direction"

    def factors_used(self, learner, data, name, weight, gradient, dims, factors) -> Tensor:
        """Return the permuted factors."""
        draws = learner.generator("permute_in_filter", data.experiment, name)
        return permuted_in_filters(factors, lambda count: torch.randperm(count, generator=draws))


class DashUniform(DashControl):
    """One factor for all vectors of a parameter: that of its norm, or the mean of DASH's."""

    name: ClassVar = "dash_uniform"
    summary: ClassVar = "control: one factor a parameter, as strong as DASH's together"
    source: ClassVar = "ours: strength by layer alone"

    by: Literal["norm", "mean"] = "norm"  # what it has in common with DASH: ‖θ'‖ of the parameter, or the mean factor

    def factors_used(self, learner, data, name, weight, gradient, dims, factors) -> Tensor:
        """Return the one factor."""
        return uniform_factor(weight, factors, self.by)


class DashReversed(DashControl):
    """max(λ, cos(+G_u, θ_u)): vectors against the descent direction are kept, those along it shrink."""

    name: ClassVar = "dash_reversed"
    summary: ClassVar = "control: DASH with the gradient's sign reversed"
    source: ClassVar = "ours: the sign of the direction"

    def factors_used(self, learner, data, name, weight, gradient, dims, factors) -> Tensor:
        """Return the factors of the reversed gradient."""
        return dash_factors(weight, -gradient, dims, self.floor)


class DashRandomGradient(DashControl):
    """DASH along a random direction, G ~ N(0, 1): what its factors are by chance; no gradient is computed."""

    name: ClassVar = "dash_random_gradient"
    summary: ClassVar = "control: DASH with Gaussian noise for a gradient"
    source: ClassVar = "ours: the null hypothesis of no direction"

    def before_chunk(self, learner, data) -> dict[str, float]:
        """Scale the weights by the factors of a random direction; keep momentum."""
        measured, at_floor, vectors = {}, 0, 0
        with torch.no_grad():
            for weight in weights_to_shrink(learner.model):
                value = weight.value()
                draws = learner.generator("random_gradient", data.experiment, weight.name)
                gradient = torch.randn(value.shape, generator=draws, dtype=value.dtype).to(value.device)
                factors = dash_factors(value, gradient, weight.dims, self.floor)
                at_floor, vectors = at_floor + int((factors <= self.floor).sum()), vectors + factors.numel()
                measured[f"norm_ratio/{weight.name}"] = _scale_(weight, value, factors)
        return {"floor_share": at_floor / vectors, **measured}


class DashShuffledLabels(Dash):
    """DASH along the gradient of permuted labels: is the labels' information used?"""

    name: ClassVar = "dash_shuffled_labels"
    summary: ClassVar = "control: DASH with the labels permuted within each chunk for its gradient"
    source: ClassVar = "ours: the labels' part in the direction"

    def chunks(self, learner, data) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield each chunk with its labels permuted."""
        for number, (images, labels) in enumerate(data.chunks(), start=1):
            draws = learner.generator("shuffle_labels", data.experiment, number)
            yield images, labels[torch.randperm(len(labels), generator=draws).to(labels.device)]


class DashGranularity(DashControl):
    """DASH with other weight vectors: whole filters, whole layers, or single weights; a bias is one vector, as ever."""

    name: ClassVar = "dash_granularity"
    summary: ClassVar = "control: DASH on whole filters, whole layers or single weights in place of kernels"
    source: ClassVar = "Shin et al. 2024, appendix B.3"

    granularity: Literal["filter", "layer", "weight"] = "filter"

    def factors_used(self, learner, data, name, weight, gradient, dims, factors) -> Tensor:
        """Return a factor for each filter, layer or weight."""
        if weight.ndim == 1:
            return factors
        if self.granularity == "weight":
            along = (weight * gradient) < 0  # the cosine of two numbers is 1 or -1
            return torch.where(along, torch.ones_like(weight), self.floor)
        first = 1 if self.granularity == "filter" else 0
        return dash_factors(weight, gradient, tuple(range(first, weight.ndim)), self.floor)


class NormReset(Intervention):
    """W ← W · ‖W₀‖/‖W‖: the norms of the first initialisation, by layer or by filter; biases are left alone."""

    name: ClassVar = "norm_reset"
    summary: ClassVar = "control: restore the norms of the first initialisation, keep all directions"
    source: ClassVar = "ours: an effective learning rate as at the start, without any gradient"

    by: Literal["layer", "filter"] = "layer"
    strength: Share = 1.0  # 0: nothing changes; 1: the norms are those of the initialisation

    @torch.no_grad()
    def before_chunk(self, learner, data) -> dict[str, float]:
        """Scale each weight that is a parameter; keep momentum."""
        measured = {}
        for weight in weights_to_shrink(learner.model):
            value = weight.value()
            if value.ndim > 1 and weight.name in learner.initial:
                dims = tuple(range(1 if self.by == "filter" else 0, value.ndim))
                now, start = (
                    torch.linalg.vector_norm(tensor, dim=dims, keepdim=True)
                    for tensor in (value, learner.initial[weight.name])
                )
                ratio = torch.where(now > 0, start / now, 1.0)
                measured[f"norm_ratio/{weight.name}"] = _scale_(weight, value, 1 + self.strength * (ratio - 1))
        return measured


CONTROLS: tuple[type[Intervention], ...] = (
    DashNorms,
    DashDirection,
    DashPermuted,
    DashPermutedInFilter,
    DashUniform,
    DashReversed,
    DashRandomGradient,
    DashShuffledLabels,
    DashGranularity,
    NormReset,
)
