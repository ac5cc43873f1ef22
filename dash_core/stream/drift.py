"""Whether an arrival looks different from what the stream brought before, judged by the champion's own predictions.

Black-box shift detection (Lipton et al., ICML 2018; Rabanser et al., NeurIPS 2019): the probabilities of each class are
compared by the Kolmogorov-Smirnov distance. With many images the smallest change is significant, so a significant
distance is only called drift if it also exceeds what is usual between the arrivals of this stream.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import kolmogorov

from dash_core.stream.paired import holm
from dash_core.stream.predicted import Predicted

MOST_IMAGES = 1000  # of a side: with a fixed number of images a distance means the same at each arrival
LEVEL = 0.001
LEAST_HISTORY = 5  # earlier arrivals without which nothing is usual yet
USUAL = 0.99  # quantile of the earlier distances


@dataclass(frozen=True)
class Drift:
    """The largest distance of any class, in [0, 1], and whether it is drift.

    threshold: the usual distance, None if too few arrivals came before. label_shift: total variation between the
    shares of the classes, which is information only.
    """

    distance: float
    threshold: float | None
    flagged: bool
    label_shift: float
    sentence: str

    @property
    def numbers(self) -> Mapping[str, Any]:
        """The numbers, JSON-able."""
        return {"distance": self.distance, "usual": self.threshold, "label_shift": self.label_shift}


def drift(
    arrival: Predicted, before: Predicted, history: Sequence[float], class_names: Sequence[str], seed: int = 0
) -> Drift:
    """Compare an arrival with what the champion was tested on.

    arrival, before: predictions on images that the champion was not trained on. history: the distances of earlier
    arrivals, oldest first. seed: chooses the images if a side has more than 1,000.
    """
    generator = np.random.default_rng(seed)
    new, old = (_sample(side.probabilities, generator) for side in (arrival, before))
    distances = [_distance(new[:, label], old[:, label]) for label in range(arrival.classes)]
    scale = np.sqrt(len(new) * len(old) / (len(new) + len(old)))
    significant = any(holm([float(kolmogorov(scale * distance)) for distance in distances], LEVEL))
    largest = int(np.argmax(distances))
    distance = float(distances[largest])
    threshold = float(np.quantile(history, USUAL)) if len(history) >= LEAST_HISTORY else None
    flagged = significant and threshold is not None and distance > threshold
    shift = _label_shift(arrival, before)
    return Drift(distance, threshold, flagged, shift, _sentence(distance, threshold, flagged, class_names[largest]))


def _sample(probabilities: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    if len(probabilities) <= MOST_IMAGES:
        return probabilities
    return probabilities[generator.choice(len(probabilities), MOST_IMAGES, replace=False)]


def _distance(new: np.ndarray, old: np.ndarray) -> float:
    """Return the Kolmogorov-Smirnov distance: the largest difference of the two distribution functions."""
    both = np.concatenate([new, old])
    new_share, old_share = (np.searchsorted(np.sort(side), both, side="right") / len(side) for side in (new, old))
    return float(np.abs(new_share - old_share).max())


def _label_shift(arrival: Predicted, before: Predicted) -> float:
    new, old = (np.bincount(side.labels, minlength=side.classes) / len(side) for side in (arrival, before))
    return float(np.abs(new - old).sum() / 2)


def _sentence(distance: float, threshold: float | None, flagged: bool, name: str) -> str:
    told = f"Largest distance of the predictions from earlier ones: {distance:.3f} (class {name})"
    if threshold is None:
        return f"{told}; too few arrivals so far to say what is usual in this stream."
    if flagged:
        return f"This arrival looks different. {told}; up to {threshold:.3f} is usual in this stream."
    return f"No drift. {told}; up to {threshold:.3f} is usual in this stream, or the difference is not significant."
