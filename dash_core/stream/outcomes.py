"""The outcome of each hold-out image for one model, so that two models can be compared in pairs."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dash_core.errors import DataError


@dataclass(frozen=True, eq=False)
class Outcomes:
    """What one model answered on one hold-out.

    ids: of the N images, in a fixed order. labels: int64 (N,). correct: bool (N,). log_loss: float64 (N,), in nats.
    """

    ids: Sequence[str]
    labels: np.ndarray
    correct: np.ndarray
    log_loss: np.ndarray

    def __post_init__(self) -> None:
        expected = (len(self.ids),)
        for name, kind in (("labels", np.int64), ("correct", np.bool_), ("log_loss", np.float64)):
            values = getattr(self, name)
            if values.dtype != kind or values.shape != expected:
                raise DataError(f"{name} must be {np.dtype(kind)} {expected}, got {values.dtype} {values.shape}")

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def accuracy(self) -> float:
        """Share of correct answers, in [0, 1]."""
        return float(self.correct.mean())
