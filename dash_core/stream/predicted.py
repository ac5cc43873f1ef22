"""What a model predicted on labelled images that it was not trained on."""

from dataclasses import dataclass

import numpy as np

from dash_core.errors import DataError


@dataclass(frozen=True, eq=False)
class Predicted:
    """Probabilities, float32 or float64 (N, classes), and labels, int64 (N,), of the same images."""

    probabilities: np.ndarray
    labels: np.ndarray

    def __post_init__(self) -> None:
        shape = self.probabilities.shape
        if len(shape) != 2 or self.labels.shape != shape[:1]:
            raise DataError(f"probabilities must be (N, classes) and labels (N,), got {shape} {self.labels.shape}")

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def classes(self) -> int:
        """Number of classes."""
        return self.probabilities.shape[1]
