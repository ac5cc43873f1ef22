"""DASH as an intervention: `dash_core.shrinking` on all chunks so far, in parts that fit in memory."""

import logging
from collections.abc import Iterable
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from dash_core.errors import TrainingError
from dash_core.interventions.base import Intervention, weights_to_shrink
from dash_core.memory import is_out_of_memory, saved_bytes
from dash_core.parallel import range_of
from dash_core.section import Batch, Share
from dash_core.seeding import borrowed_global_generator, derive_seed
from dash_core.shrinking import averaged_gradient, shrink_along_

logger = logging.getLogger(__name__)
SAVED_BYTES = 2**30  # that the forward pass of a gradient on the CPU may save for its backward pass


class Dash(Intervention):
    """Shrink each weight vector by its alignment with the averaged negative gradient."""

    name: ClassVar = "dash"
    summary: ClassVar = "DASH: shrink each weight vector by its alignment with the negative loss gradient"
    source: ClassVar = "Shin et al. 2024, algorithm 1"
    symbols: ClassVar = {"lambda": "floor", "λ": "floor", "α": "alpha"}

    alpha: Annotated[float, Field(gt=0, le=1)] = 0.3  # weight of the newest chunk's gradient
    floor: Share = 0.3  # the paper's lambda
    cutoff: Annotated[float, Field(ge=0, lt=1)] = 0.0  # share of the weight; the oldest chunks below it are skipped
    mode: Literal["eval", "train"] = "eval"  # of the model while gradients are computed
    micro_batch_size: Batch | None = None  # images; None: a whole chunk, in eval mode as much of it as fits in memory

    def before_chunk(self, learner, data) -> dict[str, float]:
        """Apply DASH with the gradients of all chunks so far, unaugmented; keep momentum."""
        weights_to_shrink(learner.model)  # logs what is left alone
        reports = shrink_along_(learner.model, self.gradient(learner, data), self.floor)
        vectors = sum(report.vectors for report in reports.values())
        at_floor = sum(report.at_floor for report in reports.values())
        layers = {f"floor_share/{name}": report.at_floor / report.vectors for name, report in reports.items()}
        return {"floor_share": at_floor / vectors, **layers}

    def gradient(self, learner, data) -> dict[str, Tensor]:
        """Return G of all chunks so far, by parameter name; the learner is left as found."""
        with borrowed_global_generator(learner.device, derive_seed(learner.seed, "dash", data.experiment)):  # dropout's
            gradient = self._gradient(learner, data)
            learner.ranks.sum_(list(gradient.values()))
            return gradient

    def chunks(self, learner, data) -> Iterable[tuple[Tensor, Tensor]]:
        """Return the chunks whose gradients are averaged, oldest first."""
        return data.chunks()

    def _gradient(self, learner, data) -> dict[str, Tensor]:
        """Return this rank's share of G. In eval mode a chunk too big for the memory is divided, with the same G.

        On the CPU the size of the parts is bounded beforehand; on CUDA a part that does not fit is halved.
        """
        size = self.micro_batch_size or _fitting(learner, data, self.mode)
        while True:
            try:
                return averaged_gradient(
                    learner.model,
                    self.chunks(learner, data),
                    alpha=self.alpha,
                    cutoff=self.cutoff,
                    mode=self.mode,
                    micro_batch_size=size,
                    loss=learner.loss(data.labels),
                    transform=data.normalise,
                    around_batch=lambda images: learner.meter.counted(("dash", images)),
                    range_of=lambda images: range_of(images, learner.ranks.rank, learner.ranks.size),
                )
            except (RuntimeError, MemoryError) as error:
                tried = min(size or data.largest_chunk, data.largest_chunk)
                if not is_out_of_memory(error):
                    raise
                if self.mode == "train":
                    raise TrainingError(
                        f"out of memory on {learner.device} at DASH's gradient of {tried} images: set the method's "
                        "mode to eval, in which parts of a chunk give the same gradient, or set its micro_batch_size "
                        "(in train mode each part is normalised by its own statistics)"
                    ) from None
                if tried < 2:
                    raise
                size = tried // 2
            if learner.device.type == "cuda":
                torch.cuda.empty_cache()
            logger.warning(
                "DASH: the gradient of a chunk of %d images does not fit in the memory of %s at once: it is taken in "
                "micro-batches of %d, the same up to rounding (the method's micro_batch_size sets their size)",
                data.largest_chunk,
                learner.device,
                size,
            )


def _fitting(learner, data, mode: str) -> int | None:
    """Return how many images fit in one gradient pass on the CPU, where too many kill the process; None: a whole chunk.

    The number depends on the model and the images, not on the free memory, so that equal runs give equal bits.
    """
    if learner.device.type == "cuda" or mode == "train":
        return None
    images, _ = next(iter(data.chunks()))
    few = data.normalise(images[:2])
    size = max(1, SAVED_BYTES // max(1, saved_bytes(learner.model, few) // len(few)))
    return size if size < data.largest_chunk else None
