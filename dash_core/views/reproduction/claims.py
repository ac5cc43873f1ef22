"""Claims of the paper, and the verdict of our runs on them: agree, disagree, or too few seeds.

A claim is a list of checks. A check compares two readings seed by seed, or one reading with a number of the paper.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol

from dash_core.spread import Spread
from dash_core.views.reproduction.outcome import Outcome, rule_of
from dash_core.views.reproduction.reading import Reading
from dash_core.views.rules import CLEAR_SEEDS, FIXED_SEEDS, PValues, Rule
from dash_core.views.statistics import PairedDifference

FIGURE_SHOWS = "what the figure shows; the paper's words are UNKNOWN"  # why a claim is our reading of a figure

Judgement = Literal["agree", "disagree", "too few seeds"]


@dataclass(frozen=True)
class Verdict:
    """A judgement, the numbers behind it in words, and the number of seeds.

    p_values: against the claimed bound; None if no test was possible, or if the check is none.
    """

    judgement: Judgement
    numbers: str
    seeds: int
    p_values: PValues | None = None


class Check(Protocol):
    """One comparison of numbers. tested: whether its verdict is a statistical test, which more seeds can decide."""

    tested: ClassVar[bool]

    def verdict(self, outcome: Outcome, rule: Rule | None = None) -> Verdict:
        """Return the verdict of the outcome by a rule; None: the outcome's own (`rule_of`)."""


@dataclass(frozen=True)
class Above:
    """`left` is above `right` by more than −margin: 0 claims a difference, a larger margin that nothing is lost.

    The interval of the paired differences decides, by a rule of `dash_core.views.rules`. The check agrees if the
    interval is above −margin, and disagrees if it is below. An interval that contains −margin, has no width, or rests
    on fewer than CLEAR_SEEDS pairs decides nothing. right: a reading, or a number.
    """

    left: Reading
    right: Reading | float
    margin: float = 0.0
    tested: ClassVar[bool] = True

    def verdict(self, outcome: Outcome, rule: Rule | None = None) -> Verdict:
        """Return the verdict of the paired differences."""
        difference = self._difference(outcome, rule or rule_of(outcome))
        if difference is None:
            return Verdict("too few seeds", f"{self._words}: no seed in common", 0)
        p_values = difference.p_values(-self.margin)
        return Verdict(self._judge(difference), self._write(difference), len(difference.seeds), p_values)

    @property
    def _words(self) -> str:
        return f"{self.left.name} − {self.right.name}" if isinstance(self.right, Reading) else self.left.name

    def _difference(self, outcome: Outcome, rule: Rule) -> PairedDifference | None:
        """Return left − right over the common seeds; None if there are none."""
        ours = self.left.values(outcome)
        theirs = self.right.values(outcome) if isinstance(self.right, Reading) else dict.fromkeys(ours, self.right)
        differences = {seed: ours[seed] - theirs[seed] for seed in sorted(ours.keys() & theirs.keys())}
        if not differences:
            return None
        right = self.right.name if isinstance(self.right, Reading) else f"{self.right:g}"
        return PairedDifference.of(self.left.name, right, self.left.column, differences, rule=rule)

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
    """The mean over seeds is within two of the paper's standard deviations of the value that it prints."""

    reading: Reading
    value: float
    std: float
    tested: ClassVar[bool] = False

    def verdict(self, outcome: Outcome, rule: Rule | None = None) -> Verdict:
        """Return the verdict of the mean, by no rule; fewer than CLEAR_SEEDS seeds decide nothing."""
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
    """A claim of the paper in one sentence, and the checks that decide it.

    ours: the reason if the sentence is our own reading, because the paper's words are not known.
    """

    text: str
    checks: Sequence[Check]
    ours: str = ""


@dataclass(frozen=True)
class Finding:
    """A claim and its verdict: it agrees if every check does, and disagrees if any does."""

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
        """The number of seeds of the check with the fewest."""
        return min((verdict.seeds for verdict in self.verdicts), default=0)

    @property
    def p_values(self) -> PValues | None:
        """p-values of the claim: above, that it is false (some check is), and below, that it is true (every check is).

        None if a check has none.
        """
        tests = [verdict.p_values for verdict in self.verdicts]
        if not tests or None in tests:
            return None
        return PValues(max(p.above for p in tests), min(1.0, len(tests) * min(p.below for p in tests)))

    @property
    def numbers(self) -> str:
        """The numbers of every check, each with its own verdict if the verdicts differ."""
        several = len({verdict.judgement for verdict in self.verdicts}) > 1
        return "; ".join(v.numbers + (f": {v.judgement}" if several else "") for v in self.verdicts)


def find(claims: Sequence[Claim], outcome: Outcome, rule: Rule = FIXED_SEEDS) -> list[Finding]:
    """Return the finding of an outcome on each claim, judged by a rule."""
    return [Finding(claim, [check.verdict(outcome, rule) for check in claim.checks]) for claim in claims]


def counted(findings: Sequence[Finding]) -> Mapping[Judgement, int]:
    """Return the number of claims by judgement."""
    judgements: tuple[Judgement, ...] = ("agree", "disagree", "too few seeds")
    return {judgement: sum(f.judgement == judgement for f in findings) for judgement in judgements}
