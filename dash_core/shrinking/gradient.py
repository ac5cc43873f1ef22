"""The averaged gradient G of DASH's algorithm 1, over chunks given as tensors or as their batches."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from itertools import accumulate
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset, IterableDataset

from dash_core.shrinking.parts import Loss, LossOfParts
from dash_core.shrinking.weight_vectors import Vectors, find_weights, in_mode

Pair = tuple[Tensor, Tensor]  # inputs (N, ...) and labels (N, ...)
Chunk = Pair | Iterable[Pair]  # whole tensors, or their batches one after another


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
    vectors: Vectors | None = None,
    range_of: Callable[[int], tuple[int, int]] = lambda images: (0, images),
) -> dict[str, Tensor]:
    """Return G of algorithm 1 by parameter name: the exponential average of the chunks' loss gradients.

    chunks: the chunks, oldest first. A chunk is a pair of tensors (inputs, labels) on the model's device, or an
    iterable of such pairs, its batches, e.g. a DataLoader or a generator. Batches are read once and one at a time.
    alpha: weight of the newest gradient, in (0, 1]. loss: (outputs, labels) → mean over the batch; parts of a chunk
    are weighed by their size, those of nn.CrossEntropyLoss and nn.NLLLoss by the sum of their class weights.
    cutoff: the oldest chunks with at most this share of the total weight, in [0, 1), are skipped (`chunk_weights`).
    mode: "eval" (BatchNorm's running statistics, no dropout; the released code) or "train", in which BatchNorm
    normalises each batch, or micro-batch, by its own statistics: G then depends on how a chunk is divided.
    micro_batch_size: images in one pass; gradients of the parts are summed, exact in eval mode. None: a whole chunk or
    batch. transform: applied to the inputs of each pass, e.g. normalisation of uint8 images.
    around_batch: a context entered around each pass with its number of images, e.g. to count FLOPs.
    vectors: further weights, as for `find_weights`. range_of: number of images → (start, end) of those of a chunk or
    batch that this process takes, where several share the work: in eval mode G is then the sum of what each returns.
    """
    if micro_batch_size is not None and micro_batch_size < 1:
        raise ValueError(f"micro_batch_size must be 1 or more, got {micro_batch_size}")
    parts = LossOfParts(loss)
    chunks = list_of_chunks(chunks, is_pair)

    def add(inputs: Tensor, labels: Tensor, share: float) -> None:
        first, last = range_of(len(labels))
        total = parts.size(labels)
        own = batch_bounds(last - first, micro_batch_size or last - first) if last > first else []
        for start, end in [(first + start, first + end) for start, end in own]:
            part = labels[start:end]
            if not (size := parts.size(part)):
                continue  # no label of this part counts
            with around_batch(end - start), torch.enable_grad():
                outputs = model(transform(inputs[start:end]))
                parts.check_input(outputs, part)
                (loss(outputs, part) * (share * size / total)).backward()
            parts.compare(outputs, part, size)

    with gradients_of(model, vectors, mode) as (leaves, tensors):
        for chunk, weight in zip(chunks, chunk_weights(len(chunks), alpha, cutoff), strict=True):
            if is_pair(chunk):
                _check(chunk)
                if weight and not parts.size(chunk[1]):
                    raise ValueError("a chunk in which no label counts has no gradient: the loss ignores all of them")
                if weight:
                    add(*chunk, weight)
            elif weight:
                _add_batches(tensors, chunk, weight, parts, add)
            parts.end_chunk()
        return {name: gradient_of(leaf) for name, leaf in leaves.items()}


@contextmanager
def gradients_of(
    model: nn.Module, vectors: Vectors | None, mode: Literal["eval", "train"], *, any_buffers: bool = False
) -> Iterator[tuple[dict[str, Tensor], list[Tensor]]]:
    """Yield the tensors whose `.grad` backward() fills for the weights to shrink, by name, and all that get a `.grad`.

    The model is in the given mode for the block; its modes, buffers and gradients are then as found (`as_found`).
    any_buffers: restore them after eval mode too, in which layers of torch change none.
    """
    if mode not in ("eval", "train"):
        raise ValueError(f"mode must be 'eval' or 'train', got {mode!r}")
    weights = find_weights(model, vectors).shrunk
    with as_found(model, training=mode == "train", any_buffers=any_buffers), ExitStack() as stack:
        leaves = {weight.name: stack.enter_context(weight.as_leaf()) for weight in weights}
        own = {id(parameter) for parameter in model.parameters()}
        yield leaves, [*model.parameters(), *(leaf for leaf in leaves.values() if id(leaf) not in own)]


def gradient_of(leaf: Tensor) -> Tensor:
    """Return a tensor's gradient; zeros if the loss does not depend on it."""
    return torch.zeros_like(leaf) if leaf.grad is None else leaf.grad


def list_of_chunks(chunks: Iterable[Any], is_chunk: Callable[[object], bool]) -> list[Any]:
    """Return the chunks as a list; ValueError if there is none, or if they are one chunk that is not in a list."""
    if isinstance(chunks, DataLoader | Dataset) or is_chunk(chunks):
        raise ValueError(
            "a DataLoader, a Dataset or a pair (inputs, labels) is one chunk: wrap it in a list, chunks=[chunk]"
        )
    if not (chunks := list(chunks)):
        raise ValueError("there is no chunk to take a gradient of")
    for chunk in chunks:
        if isinstance(chunk, Dataset) and not isinstance(chunk, IterableDataset):
            raise ValueError(
                f"a {type(chunk).__name__} gives single examples: give its batches, DataLoader(dataset, batch_size=256)"
            )
    return chunks


def is_pair(chunk: object) -> bool:
    """Tell whether this is a pair (inputs, labels); any inputs will do that can be sliced as tensors are."""
    return isinstance(chunk, tuple | list) and len(chunk) == 2 and isinstance(chunk[1], Tensor)


def _check(pair: object) -> None:
    """Raise ValueError unless this is a pair (inputs, labels) of the same length, 1 or more."""
    if not is_pair(pair):
        raise ValueError(f"a batch must be a pair (inputs, labels) of tensors, got a {type(pair).__name__}")
    if not pair[1].ndim:
        raise ValueError("a batch must have labels (N, ...), got the single label of one example")
    if len(pair[0]) != len(pair[1]):
        raise ValueError(f"inputs and labels must have the same length, got {len(pair[0])} and {len(pair[1])}")
    if not len(pair[1]):
        raise ValueError("a chunk or batch without images has no gradient")


def _add_batches(
    tensors: list[Tensor], batches: Iterable[Pair], weight: float, parts: LossOfParts, add: Callable[..., None]
) -> None:
    """Add `weight` times the gradient of the mean loss over all batches to `.grad`, one batch in memory at a time."""
    with ChunkMean(tensors) as mean:
        for batch in batches:
            _check(batch)
            if size := parts.size(batch[1]):
                mean.make_room(size)
                add(*batch, weight * size / mean.size)
            del batch  # or it stays in memory while the next one is read


class ChunkMean:
    """A block in which the `.grad` of some tensors becomes the mean over a chunk whose size is not known beforehand.

    The number of images is known only after the last batch. So `.grad` is the mean gradient over the images so far:
    each batch scales it down, then adds its own. The sum over earlier chunks is set aside meanwhile.
    """

    def __init__(self, tensors: list[Tensor]) -> None:
        self.tensors = tensors
        self.size: float = 0  # of all batches so far: images, or what the loss counts in their place
        self.total: float | None = None  # the size of the whole chunk, if other processes read a share of it

    def __enter__(self) -> ChunkMean:
        self.earlier = [tensor.grad for tensor in self.tensors]
        for tensor in self.tensors:
            tensor.grad = None
        return self

    def make_room(self, size: float) -> None:
        """Scale the mean so far down, for a batch of this size whose gradient is added next."""
        self.size += size
        for gradient in (tensor.grad for tensor in self.tensors if tensor.grad is not None):
            gradient.mul_(1 - size / self.size)

    def share_with(self, total: float) -> None:
        """Scale the mean to the share of this process in a chunk of this size; the shares then sum to the mean."""
        self.total = total
        if total and total != self.size:
            for gradient in (tensor.grad for tensor in self.tensors if tensor.grad is not None):
                gradient.mul_(self.size / total)

    def __exit__(self, kind: type | None, *error: object) -> None:
        if kind is not None:
            return
        if not (self.size if self.total is None else self.total):
            raise ValueError("a chunk without images has no gradient: its iterable is empty, or was read before")
        for tensor, gradient in zip(self.tensors, self.earlier, strict=True):
            if tensor.grad is None:
                tensor.grad = gradient
            elif gradient is not None:
                tensor.grad.add_(gradient)


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


def batch_bounds(images: int, batch_size: int) -> list[tuple[int, int]]:
    """Return (start, end) of each mini-batch; the last one may be smaller.

    A last batch of one image is joined to the batch before it: BatchNorm has no variance for one image.
    """
    starts = list(range(0, images, batch_size))
    if len(starts) > 1 and images - starts[-1] == 1:
        starts.pop()
    return list(zip(starts, [*starts[1:], images], strict=True))


@contextmanager
def as_found(model: nn.Module, *, training: bool, any_buffers: bool = False) -> Iterator[None]:
    """Set the mode and clear gradients for the block; restore modes, buffers, gradients and global generators."""
    gradients = {parameter: parameter.grad for parameter in model.parameters()}
    kept = model.named_buffers() if training or any_buffers else ()
    buffers = {name: (buffer, buffer.clone()) for name, buffer in kept}
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
            for name, (buffer, values) in buffers.items():
                buffer.copy_(values)
                path, _, kind = name.rpartition(".")
                if model.get_buffer(name) is not buffer:  # the model replaced it
                    setattr(model.get_submodule(path), kind, buffer)
