"""What an intervention is: a named, parametrised object whose hooks the trainer calls."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from torch import Tensor

from dash_core.config import Section

if TYPE_CHECKING:
    from dash_core.learner import Learner
    from dash_core.loading import GrowingData


class Intervention(Section):
    """A method of continuing: its fields are its parameters, its hooks say what it changes.

    A new method is a subclass in one file and a line in the registry; every hook is optional.
    """

    name: ClassVar[str]
    summary: ClassVar[str]  # one line for people
    source: ClassVar[str]  # paper, equation or section

    def before_chunk(self, learner: Learner, data: GrowingData) -> dict[str, float]:
        """Change the learner before it trains on a new chunk (never called for the first); return what to record."""
        return {}

    def penalty(self, learner: Learner) -> Tensor | None:
        """Return a scalar added to the training loss of every step, or None."""
        return None

    def after_step(self, learner: Learner) -> None:
        """Act after every optimiser step."""

    def after_chunk(self, learner: Learner, data: GrowingData) -> None:
        """Act once a chunk has been trained."""
