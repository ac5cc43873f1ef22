"""The base class of interventions: named objects with parameters, whose hooks the training loop calls."""

from __future__ import annotations

import logging
from functools import cache
from typing import TYPE_CHECKING, ClassVar

from torch import Tensor, nn

from dash_core.config import Section
from dash_core.shrinking import AnyWeight, find_weights

if TYPE_CHECKING:
    from dash_core.learner import Learner
    from dash_core.loading import GrowingData

logger = logging.getLogger(__name__)
WARNED_SHARE = 0.01  # of a model's weights: more than this left alone, apart from frozen layers, is logged


class Intervention(Section):
    """A method: its fields are its parameters, and its hooks change the learner or the loss.

    A new method is a subclass in a file of its own and a line in the registry; every hook is optional.
    """

    name: ClassVar[str]
    summary: ClassVar[str]  # one line for people
    source: ClassVar[str]  # paper, equation or section

    def before_chunk(self, learner: Learner, data: GrowingData) -> dict[str, float]:
        """Change the learner before it trains on a new chunk, except the first; return diagnostics by name."""
        return {}

    def penalty(self, learner: Learner) -> Tensor | None:
        """Return a scalar added to the training loss of every step, or None."""
        return None

    def after_step(self, learner: Learner) -> None:
        """Act after every optimiser step."""

    def after_chunk(self, learner: Learner, data: GrowingData) -> None:
        """Act after the training of a chunk has ended."""


def weights_to_shrink(model: nn.Module) -> list[AnyWeight]:
    """Return the weights that DASH, Shrink & Perturb and their controls scale; log once which layers they leave alone.

    Frozen layers are not logged: they are a setting.
    """
    found = find_weights(model)
    if found.share_left_alone - found.share_frozen > WARNED_SHARE:
        _log_once(found.summary())
    return found.shrunk


@cache
def _log_once(text: str) -> None:
    logger.warning("%s", text)
