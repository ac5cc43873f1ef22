"""DASH, Shrink & Perturb and plain shrinking of a torch model, for any training loop: this folder needs torch alone.

`equations` shrinks the weights, `gradient` averages the gradients of the chunks, `batches` does both for loaders of any
kind of batch; `weight_vectors` says which weights, and `parts` how the losses of the parts of a chunk are combined.
"""

from dash_core.shrinking.batches import dash_batches_, sum_over_processes_
from dash_core.shrinking.equations import (
    ShrinkReport,
    ShrinkReports,
    cosine_similarity,
    dash_,
    scale_,
    shrink_,
    shrink_along_,
    shrink_perturb_,
)
from dash_core.shrinking.gradient import as_found, averaged_gradient, batch_bounds, chunk_weights
from dash_core.shrinking.weight_vectors import (
    AnyWeight,
    LeftAloneWarning,
    find_weights,
    in_mode,
    weights_and_biases,
)

__all__ = [
    "AnyWeight",
    "LeftAloneWarning",
    "ShrinkReport",
    "ShrinkReports",
    "as_found",
    "averaged_gradient",
    "batch_bounds",
    "chunk_weights",
    "cosine_similarity",
    "dash_",
    "dash_batches_",
    "find_weights",
    "in_mode",
    "scale_",
    "shrink_",
    "shrink_along_",
    "shrink_perturb_",
    "sum_over_processes_",
    "weights_and_biases",
]
