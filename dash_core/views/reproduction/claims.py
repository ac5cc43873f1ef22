"""Claims of the paper, and what a run says of them: agree, disagree, or too few seeds to tell.

A claim is a list of checks. A check compares two readings seed by seed, or one with a number of the paper.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from dash_core.spread import Spread
from dash_core.views.reproduction.outcome import Outcome
from dash_core.views.reproduction.reading import Reading
from dash_core.views.statistics import CLEAR_SEEDS, PairedDifference

FIGURE_SHOWS = "what the figure shows; the paper's words are UNKNOWN"  # why a claim is our reading of a figure

Judgement = Literal["agree", "disagree", "too few seeds"]


@dataclass(frozen=True)
class Verdict:
    """A judgement, the numbers that decide it in words, and on how many seeds it rests."""

    judgement: Judgement
    numbers: str
    seeds: int


class Check(Protocol):
    """One comparison of numbers."""

    def verdict(self, outcome: Outcome) -> Verdict:
        """Return what the outcome says."""


@dataclass(frozen=True)
class Above:
    """`left` is above `right` by more than −margin: 0 claims a difference, more only that nothing is lost.

    With the Student's t interval of the paired differences: it agrees where the interval lies above −margin, disagrees
    where it lies below; an interval that holds −margin, or has no width, or fewer than CLEAR_SEEDS pairs cannot tell.
    right: a reading, or a number.
    """

    left: Reading
    right: Reading | float
    margin: float = 0.0

    def verdict(self, outcome: Outcome) -> Verdict:
        """Return what the paired differences say."""
        difference = self._difference(outcome)
        if difference is None:
            return Verdict("too few seeds", f"{self._words}: no seed in common", 0)
        return Verdict(self._judge(difference), self._write(difference), len(difference.seeds))

    @property
    def _words(self) -> str:
        return f"{self.left.name} − {self.right.name}" if isinstance(self.right, Reading) else self.left.name

    def _difference(self, outcome: Outcome) -> PairedDifference | None:
        """Left − right over the common seeds; None if there are none."""
        ours = self.left.values(outcome)
        theirs = self.right.values(outcome) if isinstance(self.right, Reading) else dict.fromkeys(ours, self.right)
        differences = {seed: ours[seed] - theirs[seed] for seed in sorted(ours.keys() & theirs.keys())}
        if not differences:
            return None
        right = self.right.name if isinstance(self.right, Reading) else f"{self.right:g}"
        return PairedDifference.of(self.left.name, right, self.left.column, differences)

    def _judge(self, difference: PairedDifference) -> Judgement:
        if not difference.tells:
            return "too few seeds"
        if difference.low > -self.margin:
            return "agree"
        return "disagree" if difference.high < -self.margin else "too few seeds"

    def _write(self, difference: PairedDifference) -> str:
        return difference.write() + (f" (claimed: above −{self.margin:g})" if self.margin else "")


@dataclass(frozen=True)
class Near:
    """The mean over seeds lies within two of the paper's standard deviations of its value, as printed."""

    reading: Reading
    value: float
    std: float

    def verdict(self, outcome: Outcome) -> Verdict:
        """Return what the mean says; fewer than CLEAR_SEEDS seeds say nothing."""
        values, column = list(self.reading.values(outcome).values()), self.reading.column
        paper = f"paper {self.value:,.{column.digits}f} ({self.std:,.{column.digits}f})"
        words = f"{self.reading.name}, {column.title}"
        if not values:
            return Verdict("too few seeds", f"{words}: no run, {paper}", 0)
        ours = Spread.of(values)
        numbers = f"{words}: {ours.mean:,.{column.digits}f} ({ours.std:,.{column.digits}f}), {paper}"
        if len(values) < CLEAR_SEEDS:
            return Verdict("too few seeds", numbers, len(values))
        allowed = 2 * self.std + 0.5 * 10**-column.digits  # half of the last digit that the paper prints
        near = abs(ours.mean - self.value) <= allowed or math.isclose(abs(ours.mean - self.value), allowed)
        return Verdict("agree" if near else "disagree", numbers, len(values))


@dataclass(frozen=True)
class Claim:
    """What the paper says, in a sentence, and the checks that decide it.

    ours: why the sentence is our own reading, where the paper's words are not known.
    """

    text: str
    checks: Sequence[Check]
    ours: str = ""


@dataclass(frozen=True)
class Finding:
    """A claim and its verdict: it agrees where every check does, disagrees where any does."""

    claim: Claim
    verdicts: Sequence[Verdict]

    @property
    def judgement(self) -> Judgement:
        """The verdict of all checks together."""
        found = {verdict.judgement for verdict in self.verdicts}
        if "disagree" in found:
            return "disagree"
        return "agree" if found == {"agree"} else "too few seeds"

    @property
    def seeds(self) -> int:
        """The seeds of the check that has the fewest."""
        return min((verdict.seeds for verdict in self.verdicts), default=0)

    @property
    def numbers(self) -> str:
        """The numbers of every check, and beside each its own verdict where they differ."""
        several = len({verdict.judgement for verdict in self.verdicts}) > 1
        return "; ".join(v.numbers + (f": {v.judgement}" if several else "") for v in self.verdicts)


def find(claims: Sequence[Claim], outcome: Outcome) -> list[Finding]:
    """Return what an outcome says of each claim."""
    return [Finding(claim, [check.verdict(outcome) for check in claim.checks]) for claim in claims]


def counted(findings: Sequence[Finding]) -> Mapping[Judgement, int]:
    """Return how many claims came to each judgement."""
    judgements: tuple[Judgement, ...] = ("agree", "disagree", "too few seeds")
    return {judgement: sum(f.judgement == judgement for f in findings) for judgement in judgements}
