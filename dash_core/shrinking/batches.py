"""DASH over loaders of any kind of batch, with a loss of the caller's own, in one process or several."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from typing import Any, Literal

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader
from torch.utils.data.distributed import DistributedSampler

from dash_core.shrinking.equations import ShrinkReports, require_finite, require_floor, shrink_along_
from dash_core.shrinking.gradient import ChunkMean, chunk_weights, gradient_of, gradients_of, is_pair, list_of_chunks
from dash_core.shrinking.weight_vectors import Vectors, find_weights

BatchLoss = Callable[[Any], tuple[Tensor, float]]  # batch → (mean loss of its examples, number of examples)


def dash_batches_(
    model: nn.Module,
    chunks: Iterable[Iterable[Any]],
    *,
    loss: BatchLoss,
    alpha: float = 0.3,
    floor: float = 0.3,
    cutoff: float = 0.0,
    mode: Literal["eval", "train"] = "eval",
    vectors: Vectors | None = None,
) -> ShrinkReports:
    """Shrink the weights of `model` in place by their direction, as `dash_`, with any loaders and any loss.

    chunks: oldest first, each a DataLoader or another iterable of batches, which is read once. loss: batch → (mean
    loss of the batch, what it is the mean over: the number of examples, or the sum of their weights, or of tokens). It
    calls the model itself and moves the batch to the model's device. The other arguments are those of `dash_`.

    Under torch.distributed each process takes its share of the batches of every chunk, and all shrink the same: every
    W-th of W processes' batches, or all batches of a loader that has a DistributedSampler. The sizes of a chunk are
    summed when it was read, and the gradients once at the end. A process must give its bare model, not the DDP one.

    The model's modes, buffers and gradients, torch's global generators and those of the loaders, and the optimiser are
    left as found. ValueError as from `dash_`, before any weight changes.
    """
    require_floor(floor)
    gradient = gradient_over_batches(model, chunks, loss=loss, alpha=alpha, cutoff=cutoff, mode=mode, vectors=vectors)
    require_finite(gradient)
    reports = shrink_along_(model, gradient, floor, vectors=vectors)
    find_weights(model, vectors).warn()
    return reports


def gradient_over_batches(
    model: nn.Module,
    chunks: Iterable[Iterable[Any]],
    *,
    loss: BatchLoss,
    alpha: float = 0.3,
    cutoff: float = 0.0,
    mode: Literal["eval", "train"] = "eval",
    vectors: Vectors | None = None,
) -> dict[str, Tensor]:
    """Return G of algorithm 1 by parameter name; the first half of `dash_batches_`, which has its arguments."""
    if isinstance(model, DistributedDataParallel):
        raise ValueError(
            "give the bare model, model.module, and use it in the loss too: DistributedDataParallel would average the "
            "gradients of every batch over the processes, which have different numbers of batches"
        )
    chunks = list_of_chunks(chunks, lambda whole: is_pair(whole) or isinstance(whole, Mapping))
    for chunk in chunks:
        if is_pair(chunk) or isinstance(chunk, Tensor | Mapping | str) or not isinstance(chunk, Iterable):
            raise ValueError(
                f"a chunk must be a loader or another iterable of batches, got a {type(chunk).__name__}: a single "
                "batch goes in a list, chunks=[[batch]]"
            )
    with gradients_of(model, vectors, mode, any_buffers=True) as (leaves, tensors), _generators_as_found(chunks):
        for chunk, weight in zip(chunks, chunk_weights(len(chunks), alpha, cutoff), strict=True):
            if not weight:
                continue
            with ChunkMean(tensors) as mean, torch.enable_grad():
                for batch in _own_share(chunk):
                    value, size = _checked(loss(batch))
                    if size:
                        mean.make_room(size)
                        (value * (weight * size / mean.size)).backward()
                    del batch, value  # or they stay in memory while the next batch is read
                mean.share_with(_sum_over_processes(mean.size, next(iter(leaves.values())).device))
        gradient = {name: gradient_of(leaf) for name, leaf in leaves.items()}
        sum_over_processes_(list(gradient.values()))
        return gradient


def _checked(returned: object) -> tuple[Tensor, float]:
    """Return what `loss` returned for a batch; ValueError unless it is (mean loss, number of examples)."""
    if not isinstance(returned, tuple | list) or len(returned) != 2:
        raise ValueError(
            f"loss must return (mean loss of the batch, number of its examples), got a {type(returned).__name__}"
        )
    value, size = returned
    if not isinstance(value, Tensor) or value.numel() != 1:
        raise ValueError("the loss of a batch must be a tensor with one value, the mean over its examples")
    if not value.requires_grad:
        raise ValueError("the loss of a batch has no gradient: compute it without detach, item or no_grad")
    size = float(size)
    if not (math.isfinite(size) and size >= 0):
        raise ValueError(f"the number of examples of a batch must be 0 or more, got {size}")
    return value.reshape(()), size


def _processes() -> tuple[int, int]:
    """Return this process's rank and the number of processes."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


def _own_share(chunk: Iterable[Any]) -> Iterator[Any]:
    """Yield the batches of a chunk that this process takes."""
    rank, processes = _processes()
    if any(isinstance(sampler, DistributedSampler) for sampler in _samplers(chunk)):
        return iter(chunk)
    return islice(chunk, rank, None, processes)


def _samplers(chunk: Iterable[Any]) -> list[Any]:
    """Return the samplers of a loader; none for another iterable."""
    if not isinstance(chunk, DataLoader):
        return []
    outer = [chunk.sampler, chunk.batch_sampler]
    return [sampler for sampler in (*outer, getattr(chunk.batch_sampler, "sampler", None)) if sampler is not None]


@contextmanager
def _generators_as_found(chunks: list[Iterable[Any]]) -> Iterator[None]:
    """Restore the loaders' own generators after the block. With several processes, all shuffle alike in the block."""
    found = [getattr(part, "generator", None) for chunk in chunks for part in (chunk, *_samplers(chunk))]
    states = [(generator, generator.get_state()) for generator in found if isinstance(generator, torch.Generator)]
    if _processes()[1] > 1:
        torch.manual_seed(0)
        for generator, _ in states:
            generator.manual_seed(0)
    try:
        yield
    finally:
        for generator, state in states:
            generator.set_state(state)


def _sum_over_processes(number: float, device: torch.device) -> float:
    """Return the sum of a number over the processes."""
    if _processes()[1] == 1:
        return number
    total = torch.tensor(number, dtype=torch.float64, device=device)
    distributed.all_reduce(total)
    return float(total)


def sum_over_processes_(tensors: list[Tensor]) -> None:
    """Sum tensors over the processes in place, all of one type and device at once."""
    if _processes()[1] == 1:
        return
    groups: dict[tuple[torch.dtype, torch.device], list[Tensor]] = {}
    for tensor in tensors:
        groups.setdefault((tensor.dtype, tensor.device), []).append(tensor)
    for group in groups.values():
        flat = torch.cat([tensor.flatten() for tensor in group])
        distributed.all_reduce(flat)
        for tensor, part in zip(group, flat.split([tensor.numel() for tensor in group]), strict=True):
            tensor.copy_(part.view(tensor.shape))
