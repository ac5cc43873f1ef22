"""DASH: direction-aware shrinking (Shin, Oh, Cho, Yun; NeurIPS 2024, algorithm 1).

Before training goes on with a new chunk, each weight vector θ is scaled by how well it points along the
negative loss gradient, averaged over the chunks with the newest weighing most::

    G ← 0;  for i = 1..j:  G ← (1 − α) G + α ∇ mean loss over chunk i
    θ ← θ · max(λ, cos(−G_θ, θ))                      # λ is `floor` here: `lambda` is reserved

G is linear in the chunks' gradients: it is the gradient of one weighted loss, in which chunk i weighs α(1 − α)^(j − i).
backward() adds into `.grad`, so G is built there, one batch after another: no averaging buffers, no copy of the model.
"""

import logging
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import accumulate
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from dash_core.config import Batch, Share
from dash_core.errors import TrainingError
from dash_core.interventions.base import Intervention
from dash_core.interventions.shrink import weights_and_biases
from dash_core.loading import batch_bounds
from dash_core.memory import is_out_of_memory, saved_bytes
from dash_core.modes import as_found
from dash_core.seeding import borrowed_global_generator, derive_seed

logger = logging.getLogger(__name__)
Chunk = tuple[Tensor, Tensor]
Loss = Callable[[Tensor, Tensor], Tensor]
KEPT = 2**30  # bytes that the forward pass of a gradient on the CPU may keep for its backward pass
NORM_FLOOR = 1e-8  # torch.cosine_similarity clamps each norm here; averaged gradients do fall below it


@dataclass(frozen=True)
class ShrinkReport:
    """What DASH did to one parameter: how many weight vectors, how many at the floor, their mean factor."""

    vectors: int
    at_floor: int
    mean_factor: float


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
) -> dict[str, ShrinkReport]:
    """Shrink the weights of `model` in place, direction-aware; return a report for each parameter.

    Arguments are those of `averaged_gradient` and the paper's λ as `floor` in [0, 1]. Conv2d and Linear
    weights and biases are scaled; the model's mode, buffers, gradients and the global generators are left
    as found, and the optimiser is not touched (the paper keeps its momentum). ValueError, before a weight is touched,
    for no chunk, no such layer, or a gradient that is not finite.
    """
    if not 0 <= floor <= 1:
        raise ValueError(f"floor must be in [0, 1], got {floor}")
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
    )
    if broken := [name for name, values in gradient.items() if not torch.isfinite(values).all()]:
        raise ValueError(f"the gradient of {broken[0]} is not finite; the weights are as they were: check the inputs")
    return shrink_along_(model, gradient, floor)


def averaged_gradient(
    model: nn.Module,
    chunks: Iterable[Chunk],
    *,
    alpha: float = 0.3,
    cutoff: float = 0.0,
    mode: Literal["eval", "train"] = "eval",
    micro_batch_size: int | None = None,
    loss: Loss = functional.cross_entropy,
    transform: Callable[[Tensor], Tensor] = lambda inputs: inputs,
    around_batch: Callable[[int], AbstractContextManager] = lambda size: nullcontext(),
) -> dict[str, Tensor]:
    """Return G of algorithm 1 by parameter name: the exponential average of the chunks' loss gradients.

    chunks: (inputs, labels) of each chunk, oldest first, newest last; none may be empty.
    alpha: weight of the newest gradient, in (0, 1]. loss: (outputs, labels) → mean over the batch.
    cutoff: the oldest chunks with at most this share of all weight, in [0, 1), are left out (`chunk_weights`).
    mode: "eval" (BatchNorm's running statistics, no dropout; the released code) or "train".
    micro_batch_size: gradients of parts of a chunk are summed; exact in eval mode. None: whole chunks.
    transform: applied to each micro-batch of inputs, e.g. normalisation of uint8 images.
    around_batch: a context entered around each micro-batch with its size, e.g. to count FLOPs.
    """
    if mode not in ("eval", "train"):
        raise ValueError(f"mode must be 'eval' or 'train', got {mode!r}")
    if micro_batch_size is not None and micro_batch_size < 1:
        raise ValueError(f"micro_batch_size must be 1 or more, got {micro_batch_size}")
    if next(weights_and_biases(model), None) is None:
        raise ValueError("the model has no Conv2d or Linear layer, and DASH shrinks no other")
    chunks = list(chunks)
    if not chunks:
        raise ValueError("there is no chunk to take a gradient of")
    with as_found(model, training=mode == "train"):
        for (inputs, labels), weight in zip(chunks, chunk_weights(len(chunks), alpha, cutoff), strict=True):
            if not len(labels):
                raise ValueError("a chunk without images has no gradient")
            if not weight:
                continue
            for start, end in batch_bounds(len(labels), micro_batch_size or len(labels)):
                with around_batch(end - start), torch.enable_grad():
                    outputs = model(transform(inputs[start:end]))
                    (loss(outputs, labels[start:end]) * (weight * (end - start) / len(labels))).backward()
        return {
            name: torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            for name, parameter, _ in weights_and_biases(model)
        }


def chunk_weights(chunks: int, alpha: float, cutoff: float = 0.0) -> list[float]:
    """Return the weight α(1 − α)^(j − i) of each of j chunks in G, oldest first; 0 for those that are left out.

    Left out are the oldest, as many as together have at most the share `cutoff` of all weight: the pass then costs
    the same however many chunks there are. Where a weight vector's gradients on them are at most r times as long as
    the weighted mean of all, its cosine moves by at most arcsin(r · cutoff). At α = 0.3 a cutoff of 0.001 keeps the
    newest 20 chunks.
    """
    if not 0 < alpha <= 1:
        raise ValueError(f"alpha must be in (0, 1], got {alpha}")
    if not 0 <= cutoff < 1:
        raise ValueError(f"cutoff must be in [0, 1), got {cutoff}")
    weights = [alpha * (1 - alpha) ** (chunks - i) for i in range(1, chunks + 1)]
    bound = cutoff * sum(weights)
    return [weight if total > bound else 0.0 for weight, total in zip(weights, accumulate(weights), strict=True)]


@torch.no_grad()
def shrink_along_(model: nn.Module, gradient: dict[str, Tensor], floor: float) -> dict[str, ShrinkReport]:
    """Scale each weight vector θ in place by max(floor, cos(−G_θ, θ)); return a report for each parameter."""
    vectors = list(weights_and_biases(model))
    factors = {name: cosine_similarity(weight, gradient[name], dims).neg_() for name, weight, dims in vectors}
    torch._foreach_clamp_min_(list(factors.values()), floor)
    torch._foreach_mul_([weight for _, weight, _ in vectors], list(factors.values()))
    counts = [(factor <= floor).sum() for factor in factors.values()]
    means = [factor.double().mean() for factor in factors.values()]
    at_floor, mean = torch.stack(counts).tolist(), torch.stack(means).tolist()  # one read-back for all layers
    return {
        name: ShrinkReport(factor.numel(), int(at_floor[i]), mean[i])
        for i, (name, factor) in enumerate(factors.items())
    }


def cosine_similarity(a: Tensor, b: Tensor, dims: tuple[int, ...]) -> Tensor:
    """Return cos(a, b) over `dims`, kept as size 1; 0 for a zero vector, as torch.cosine_similarity has it."""
    norm_a = torch.linalg.vector_norm(a, dim=dims, keepdim=True).clamp_(min=NORM_FLOOR)
    norm_b = torch.linalg.vector_norm(b, dim=dims, keepdim=True).clamp_(min=NORM_FLOOR)
    return (a * b).sum(dims, keepdim=True).div_(norm_a).div_(norm_b)


class Dash(Intervention):
    """Shrink each weight vector by its alignment with the averaged negative gradient."""

    name: ClassVar = "dash"
    summary: ClassVar = "DASH: shrink each weight vector by its alignment with the negative loss gradient"
    source: ClassVar = "Shin et al. 2024, algorithm 1"

    alpha: Annotated[float, Field(gt=0, le=1)] = 0.3  # weight of the newest chunk's gradient
    floor: Share = 0.3  # the paper's lambda
    cutoff: Annotated[float, Field(ge=0, lt=1)] = 0.0  # share of all weight, up to which the oldest chunks are left out
    mode: Literal["eval", "train"] = "eval"  # of the gradient pass
    micro_batch_size: Batch | None = None  # None: a whole chunk; in eval mode as much of one as fits (`_gradient`)

    def before_chunk(self, learner, data) -> dict[str, float]:
        """Apply DASH with the gradients of all chunks so far, unaugmented; momentum is kept."""
        reports = shrink_along_(learner.model, self.gradient(learner, data), self.floor)
        vectors = sum(report.vectors for report in reports.values())
        at_floor = sum(report.at_floor for report in reports.values())
        layers = {f"floor_share/{name}": report.at_floor / report.vectors for name, report in reports.items()}
        return {"floor_share": at_floor / vectors, **layers}

    def gradient(self, learner, data) -> dict[str, Tensor]:
        """Return G of all chunks so far, by parameter name; the learner is left as found."""
        with borrowed_global_generator(learner.device, derive_seed(learner.seed, "dash", data.experiment)):  # dropout's
            return self._gradient(learner, data)

    def _gradient(self, learner, data) -> dict[str, Tensor]:
        """Return G, in parts of a chunk where a whole one is too big: the same up to rounding, in eval mode only.

        On the CPU what a part may keep is bounded beforehand; on CUDA a part that does not fit is halved.
        """
        size = self.micro_batch_size or _fitting(learner, data, self.mode)
        while True:
            try:
                return averaged_gradient(
                    learner.model,
                    data.chunks(),
                    alpha=self.alpha,
                    cutoff=self.cutoff,
                    mode=self.mode,
                    micro_batch_size=size,
                    transform=data.normalise,
                    around_batch=lambda images: learner.meter.counted(("dash", images)),
                )
            except (RuntimeError, MemoryError) as error:
                tried = min(size or data.largest_chunk, data.largest_chunk)
                if not is_out_of_memory(error):
                    raise
                if self.mode == "train":
                    raise TrainingError(
                        f"out of memory on {learner.device} at DASH's gradient of {tried} images: set the method's "
                        "mode to eval, where parts of a chunk give the same gradient, or its micro_batch_size (in "
                        "train mode each part is normalised by its own statistics)"
                    ) from None
                if tried < 2:
                    raise
                size = tried // 2
            if learner.device.type == "cuda":
                torch.cuda.empty_cache()
            logger.warning(
                "DASH: the gradient of a chunk of %d images is too big for the memory of %s at once: it is taken in "
                "micro-batches of %d, the same up to rounding (the method's micro_batch_size sets it)",
                data.largest_chunk,
                learner.device,
                size,
            )


def _fitting(learner, data, mode: str) -> int | None:
    """Return how many images a gradient takes at once on the CPU, where too many end the process; None: a chunk.

    It depends on the model and the images alone, not on the memory that is free: equal runs give equal bits.
    """
    if learner.device.type == "cuda" or mode == "train":
        return None
    images, _ = next(iter(data.chunks()))
    few = data.normalise(images[:2])
    size = max(1, KEPT // max(1, saved_bytes(learner.model, few) // len(few)))
    return size if size < data.largest_chunk else None
