"""Is the released model worse than the one before it? Told from deliveries that neither of them was trained on.

Each delivery is answered by both before it is trained on, so no look at the hold-out is spent. The evidence may be
looked at after each delivery: the probability that it ever reaches ENOUGH for a model that is not worse is 1/ENOUGH.
Images of one delivery count one by one, so many photos of one thing count as many.
"""

from dataclasses import dataclass

from dash_core.stream.paired import evidence_of_harm
from dash_core.stream.state import StreamState

ENOUGH = 100.0


@dataclass(frozen=True)
class Harm:
    """What is known of a champion against the model before it.

    won: images on which only the champion was right; lost: only the model before it. evidence: that it is worse.
    """

    images: int
    won: int
    lost: int
    evidence: float

    @property
    def shown(self) -> bool:
        """Whether the champion is shown to be worse."""
        return self.evidence >= ENOUGH

    @property
    def sentence(self) -> str:
        """What was seen, for a person."""
        shown = "is" if self.shown else "is not"
        return (
            f"It {shown} shown that the champion is worse than the model before it: on {self.images:,} new images only "
            f"the champion was right on {self.won:,}, only the model before it on {self.lost:,} "
            f"(evidence {self.evidence:.3g}; {ENOUGH:g} is enough)."
        )


def harm_of(state: StreamState) -> Harm | None:
    """Return what deliveries since the last release say about the champion; None if they say nothing."""
    seen = state.observed
    if not seen:
        return None
    images, won, lost = (sum(getattr(one, part) for one in seen) for part in ("images", "won", "lost"))
    return Harm(images, won, lost, evidence_of_harm(won, lost))
