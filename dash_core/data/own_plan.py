"""Chunk plans of your own: a function that says which images are in which chunk."""

import numpy as np
import torch
from torch import Tensor

from dash_core.parts import PLANS, PartError, callable_part, explained


def own_chunks(path: str, labels: Tensor, chunks: int, seed: int) -> list[Tensor]:
    """Return function(labels, chunks, seed): positions in the labels (N,) of the images of each chunk, oldest first.

    The function gets the labels as an int64 array, and returns a list of `chunks` arrays of any sizes. PartError unless
    each position is in exactly one of them.
    """
    function = callable_part(PLANS, path)
    with explained(PLANS, path, f"its call with {len(labels)} labels, {chunks} chunks and seed {seed}"):
        found = [np.asarray(part) for part in function(labels.numpy().copy(), chunks, seed)]
    if len(found) != chunks:
        raise PartError(f"{PLANS} {path}: it must return {chunks} index arrays, one a chunk, and returns {len(found)}")
    for number, part in enumerate(found, start=1):
        if part.ndim != 1 or not len(part) or part.dtype.kind not in "iu":
            raise PartError(
                f"{PLANS} {path}: chunk {number} must be an array of one or more positions, got {part.dtype} "
                f"of shape {part.shape}"
            )
    together = np.sort(np.concatenate(found))
    if not np.array_equal(together, np.arange(len(labels))):
        raise PartError(
            f"{PLANS} {path}: its chunks must contain each of the {len(labels)} positions exactly once, and have "
            f"{len(together)} of which {len(np.unique(together))} differ, from {together[0]} to {together[-1]}"
        )
    return [torch.from_numpy(part.astype(np.int64)) for part in found]
