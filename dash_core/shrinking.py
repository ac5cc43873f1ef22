"""DASH, Shrink & Perturb and plain shrinking of a torch model, for any training loop: this file needs only torch.

DASH (Shin, Oh, Cho, Yun; NeurIPS 2024, algorithm 1) scales each weight vector θ by the cosine between θ and the
negative loss gradient, before training continues with a new chunk. G averages the gradients of the chunks::

    G ← 0;  for i = 1..j:  G ← (1 − α) G + α ∇ mean loss over chunk i
    θ ← θ · max(λ, cos(−G_θ, θ))                      # λ is `floor` here: `lambda` is a Python keyword

G is the gradient of one weighted loss, in which chunk i has the weight α(1 − α)^(j − i). backward() adds to `.grad`,
so G is summed there, batch after batch, without a copy of the model. As in the authors' code, only the Conv2d and
Linear weights and biases change (`weights_and_biases`), and no normalisation layer.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from itertools import accumulate
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader

Pair = tuple[Tensor, Tensor]  # inputs (N, ...) and labels (N, ...)
Chunk = Pair | Iterable[Pair]  # whole tensors, or their batches one after another
Loss = Callable[[Tensor, Tensor], Tensor]
NORM_FLOOR = 1e-8  # torch.cosine_similarity raises smaller norms to this; averaged gradients can be smaller


@dataclass(frozen=True)
class ShrinkReport:
    """What DASH did to one parameter: its number of weight vectors, how many reached the floor, their mean factor."""

    vectors: int
    at_floor: int
    mean_factor: float


def weights_and_biases(model: nn.Module) -> Iterator[tuple[str, Tensor, tuple[int, ...]]]:
    """Yield (name, parameter, dims) of each trainable Conv2d and Linear weight and bias; a shared one only once.

    One weight vector extends over `dims`: (2, 3) for a Conv2d kernel (o, i), (1,) for a row of a Linear weight, (0,)
    for a whole bias (DASH, section 4, and the authors' code).
    """
    seen: set[int] = set()
    for name, module in model.named_modules():
        if not isinstance(module, nn.Conv2d | nn.Linear):
            continue
        weight_dims = (2, 3) if isinstance(module, nn.Conv2d) else (1,)
        for kind, dims in (("weight", weight_dims), ("bias", (0,))):
            parameter = getattr(module, kind)
            if parameter is not None and parameter.requires_grad and id(parameter) not in seen:
                seen.add(id(parameter))
                yield f"{name}.{kind}" if name else kind, parameter, dims


@torch.no_grad()
def shrink_(model: nn.Module, factor: float) -> None:
    """Scale Conv2d and Linear weights and biases in place: θ ← λθ, λ = `factor` in [0, 1]."""
    if not 0 <= factor <= 1:
        raise ValueError(f"factor must be in [0, 1], got {factor}")
    for _, parameter, _ in weights_and_biases(model):
        parameter.mul_(factor)


@torch.no_grad()
def shrink_perturb_(
    model: nn.Module, *, shrink: float = 0.3, sigma: float = 0.01, generator: torch.Generator | None = None
) -> None:
    """Shrink & Perturb in place: θ ← λθ + ε, ε ~ N(0, σ²), on Conv2d and Linear weights and biases.

    λ = `shrink` in [0, 1]; `sigma` ≥ 0 is the standard deviation. `generator` is a CPU generator: noise is drawn on
    the CPU and then moved, so that every device gets the same (Ash & Adams 2020, as the DASH paper uses it).
    """
    if not sigma >= 0:
        raise ValueError(f"sigma must be >= 0, got {sigma}")
    shrink_(model, shrink)
    for _, parameter, _ in weights_and_biases(model):
        noise = torch.empty(parameter.shape, dtype=parameter.dtype).normal_(0, sigma, generator=generator)
        parameter.add_(noise.to(parameter.device))


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
    """Shrink the weights of `model` in place by their direction; return a report by parameter name.

    floor: the paper's λ, in [0, 1]. The other arguments are those of `averaged_gradient`. The model's modes, buffers
    and gradients, the global random generators and the optimiser (the paper keeps its momentum) are left as found.
    ValueError, before any weight changes, if there is no chunk or no layer to shrink, or the gradient is not finite.
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

    chunks: the chunks, oldest first. A chunk is a pair of tensors (inputs, labels) on the model's device, or an
    iterable of such pairs, its batches, e.g. a DataLoader or a generator. Batches are read once and one at a time.
    alpha: weight of the newest gradient, in (0, 1]. loss: (outputs, labels) → mean over the batch.
    cutoff: the oldest chunks with at most this share of the total weight, in [0, 1), are skipped (`chunk_weights`).
    mode: "eval" (BatchNorm's running statistics, no dropout; the released code) or "train", in which BatchNorm
    normalises each batch, or micro-batch, by its own statistics: G then depends on how a chunk is divided.
    micro_batch_size: images in one pass; gradients of the parts are summed, exact in eval mode. None: a whole chunk or
    batch. transform: applied to the inputs of each pass, e.g. normalisation of uint8 images.
    around_batch: a context entered around each pass with its number of images, e.g. to count FLOPs.
    """
    if mode not in ("eval", "train"):
        raise ValueError(f"mode must be 'eval' or 'train', got {mode!r}")
    if micro_batch_size is not None and micro_batch_size < 1:
        raise ValueError(f"micro_batch_size must be 1 or more, got {micro_batch_size}")
    if next(weights_and_biases(model), None) is None:
        raise ValueError("the model has no Conv2d or Linear layer, and DASH shrinks no other")
    if isinstance(chunks, DataLoader) or _is_pair(chunks):
        raise ValueError("a DataLoader or a pair (inputs, labels) is one chunk: wrap it in a list, chunks=[chunk]")
    if not (chunks := list(chunks)):
        raise ValueError("there is no chunk to take a gradient of")

    def add(inputs: Tensor, labels: Tensor, share: float) -> None:
        for start, end in batch_bounds(len(labels), micro_batch_size or len(labels)):
            with around_batch(end - start), torch.enable_grad():
                outputs = model(transform(inputs[start:end]))
                (loss(outputs, labels[start:end]) * (share * (end - start) / len(labels))).backward()

    with as_found(model, training=mode == "train"):
        for chunk, weight in zip(chunks, chunk_weights(len(chunks), alpha, cutoff), strict=True):
            if _is_pair(chunk):
                _check(chunk)
                if weight:
                    add(*chunk, weight)
            elif weight:
                _add_batches(model, chunk, weight, add)
        return {
            name: torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            for name, parameter, _ in weights_and_biases(model)
        }


def _is_pair(chunk: object) -> bool:
    """Tell whether this is a pair (inputs, labels); any inputs will do that can be sliced as tensors are."""
    return isinstance(chunk, tuple | list) and len(chunk) == 2 and isinstance(chunk[1], Tensor)


def _check(pair: object) -> None:
    """Raise ValueError unless this is a pair (inputs, labels) of the same length, 1 or more."""
    if not _is_pair(pair):
        raise ValueError(f"a batch must be a pair (inputs, labels) of tensors, got a {type(pair).__name__}")
    if len(pair[0]) != len(pair[1]):
        raise ValueError(f"inputs and labels must have the same length, got {len(pair[0])} and {len(pair[1])}")
    if not len(pair[1]):
        raise ValueError("a chunk or batch without images has no gradient")


def _add_batches(model: nn.Module, batches: Iterable[Pair], weight: float, add: Callable[..., None]) -> None:
    """Add `weight` times the gradient of the mean loss over all batches to `.grad`, one batch in memory at a time.

    The number of images is known only after the last batch. So `.grad` is `weight` times the mean gradient over the
    images so far: each batch scales it down, then adds its own. The sum over earlier chunks is set aside meanwhile.
    """
    parameters = list(model.parameters())
    earlier = [parameter.grad for parameter in parameters]
    for parameter in parameters:
        parameter.grad = None
    images = 0
    for batch in batches:
        _check(batch)
        images += (size := len(batch[1]))
        for gradient in (parameter.grad for parameter in parameters if parameter.grad is not None):
            gradient.mul_(1 - size / images)
        add(*batch, weight * size / images)
        del batch  # or it stays in memory while the next one is read
    if not images:
        raise ValueError("a chunk without images has no gradient: its iterable is empty, or was read before")
    for parameter, gradient in zip(parameters, earlier, strict=True):
        if parameter.grad is None:
            parameter.grad = gradient
        elif gradient is not None:
            parameter.grad.add_(gradient)


def chunk_weights(chunks: int, alpha: float, cutoff: float = 0.0) -> list[float]:
    """Return the weight α(1 − α)^(j − i) of each of j chunks in G, oldest first; 0 for those that are skipped.

    The oldest chunks are skipped, as many as together have at most the share `cutoff` of the total weight. The pass
    then costs the same however many chunks there are. If the gradients of a weight vector on the skipped chunks are at
    most r times as long as the weighted mean over all chunks, its cosine changes by at most arcsin(r · cutoff). At
    α = 0.3 a cutoff of 0.001 keeps the newest 20 chunks.
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
    """Scale each weight vector θ in place by max(floor, cos(−G_θ, θ)); return a report by parameter name."""
    vectors = list(weights_and_biases(model))
    factors = {name: cosine_similarity(weight, gradient[name], dims).neg_() for name, weight, dims in vectors}
    torch._foreach_clamp_min_(list(factors.values()), floor)
    torch._foreach_mul_([weight for _, weight, _ in vectors], list(factors.values()))
    counts = [(factor <= floor).sum() for factor in factors.values()]
    means = [factor.double().mean() for factor in factors.values()]
    at_floor, mean = (
        torch.stack(counts).tolist(),
        torch.stack(means).tolist(),
    )  # waits for the device once, not by layer
    return {
        name: ShrinkReport(factor.numel(), int(at_floor[i]), mean[i])
        for i, (name, factor) in enumerate(factors.items())
    }


def cosine_similarity(a: Tensor, b: Tensor, dims: tuple[int, ...]) -> Tensor:
    """Return cos(a, b) over `dims`, kept as size 1; 0 for a zero vector, as in torch.cosine_similarity."""
    norm_a = torch.linalg.vector_norm(a, dim=dims, keepdim=True).clamp_(min=NORM_FLOOR)
    norm_b = torch.linalg.vector_norm(b, dim=dims, keepdim=True).clamp_(min=NORM_FLOOR)
    return (a * b).sum(dims, keepdim=True).div_(norm_a).div_(norm_b)


def batch_bounds(images: int, batch_size: int) -> list[tuple[int, int]]:
    """Return (start, end) of each mini-batch; the last one may be smaller.

    A last batch of one image is joined to the batch before it: BatchNorm has no variance for one image.
    """
    starts = list(range(0, images, batch_size))
    if len(starts) > 1 and images - starts[-1] == 1:
        starts.pop()
    return list(zip(starts, [*starts[1:], images], strict=True))


@contextmanager
def in_mode(model: nn.Module, *, training: bool) -> Iterator[None]:
    """Put every module in train or eval mode for the block; restore the mode of each afterwards."""
    found = {module: module.training for module in model.modules()}
    model.train(training)
    try:
        yield
    finally:
        for module, mode in found.items():
            module.training = mode


@contextmanager
def as_found(model: nn.Module, *, training: bool) -> Iterator[None]:
    """Set the mode and clear gradients for the block; restore modes, buffers, gradients and global generators."""
    gradients = {parameter: parameter.grad for parameter in model.parameters()}
    buffers = {buffer: buffer.clone() for buffer in model.buffers()} if training else {}
    device = next(model.parameters()).device
    cuda_devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(cuda_devices, device_type="cuda"), in_mode(model, training=training):
        try:
            for parameter in gradients:
                parameter.grad = None
            yield
        finally:
            for parameter, gradient in gradients.items():
                parameter.grad = gradient
            for buffer, values in buffers.items():
                buffer.copy_(values)
