"""Images whose label looks wrong, by confident learning (Northcutt et al., JAIR 2021): listed, never removed."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dash_core.stream.predicted import Predicted

MOST_SUSPECTS = 50
LEAST_RECALL = 0.5  # a class that the model knows worse is not judged
MANY = 0.05  # share of suspects from which on the sentence warns


@dataclass(frozen=True)
class Suspect:
    """One image: its position, its label and the suggested one, and p(label) - p(suggested), the lower the worse."""

    index: int
    given: int
    suggested: int
    score: float


@dataclass(frozen=True)
class Suspects:
    """The most suspicious images first; share: of the judged images, all suspects counted."""

    listed: Sequence[Suspect]
    count: int
    share: float
    sentence: str

    @property
    def many(self) -> bool:
        """Whether a person should look before these images are trained on."""
        return self.share > MANY


def label_suspects(
    predicted: Predicted,
    class_names: Sequence[str],
    recall: Sequence[float | None] | None = None,
    most: int = MOST_SUSPECTS,
) -> Suspects:
    """Return the images whose label looks wrong.

    predicted: by a model that was not trained on these images. recall: of the model in each class on the hold-out, None
    if unknown; classes below 0.5 are not judged. An image is suspect if another class's probability reaches that
    class's mean self-confidence, t_j = mean of p_j over the images labelled j, and the label's own does less well.
    """
    given, probabilities = predicted.labels, predicted.probabilities.astype(np.float64)
    known = np.array([share is None or share >= LEAST_RECALL for share in recall or [None] * predicted.classes])
    members = [probabilities[given == label, label] for label in range(predicted.classes)]
    thresholds = np.array([own.mean() if own.size else np.inf for own in members])
    confident = np.where(probabilities >= thresholds, probabilities, -1.0)
    suggested = confident.argmax(1)
    judged = known[given]
    suspect = judged & (confident.max(1, initial=-1.0) >= 0) & (suggested != given) & known[suggested]
    rows = np.flatnonzero(suspect)
    scores = probabilities[rows, given[rows]] - probabilities[rows, suggested[rows]]
    order = np.argsort(scores, kind="stable")[:most]
    listed = [Suspect(int(rows[i]), int(given[rows[i]]), int(suggested[rows[i]]), float(scores[i])) for i in order]
    share = len(rows) / max(int(judged.sum()), 1)
    return Suspects(listed, len(rows), share, _sentence(len(rows), share, class_names, known))


def _sentence(count: int, share: float, class_names: Sequence[str], known: np.ndarray) -> str:
    unjudged = [name for name, judged in zip(class_names, known, strict=True) if not judged]
    rest = f" Not judged, because the model knows them badly: {', '.join(unjudged[:5])}." if unjudged else ""
    if not count:
        return f"No label looks wrong.{rest}"
    told = f"{count:,} label{'s look' if count > 1 else ' looks'} wrong, {100 * share:.1f} % of the judged images"
    return f"{told}{': look at them before you trust what was learned' if share > MANY else ''}.{rest}"
