"""Holm's correction: which of many verdicts stand if all of them together are to be right with probability 95 %."""

from collections.abc import Sequence

from dash_core.stream.paired import holm
from dash_core.views.rules import PValues

ERROR_OF_A_SIDE = 0.025  # chance of any wrong verdict "agree", and of any wrong "disagree"


def surviving(p_values: Sequence[PValues | None]) -> list[bool]:
    """Tell for each claim whether its verdict survives; claims without p-values do not count.

    Holm's step-down procedure is applied to the claims' `above`, at 2.5 %, and to their `below`, at 2.5 %. So a wrong
    verdict is among the survivors with probability 5 % at most, however the claims depend on one another.
    Source: Holm, "A simple sequentially rejective multiple test procedure", Scand. J. Statistics 6 (1979).
    """
    above = _rejected([p and p.above for p in p_values])
    below = _rejected([p and p.below for p in p_values])
    return [one or other for one, other in zip(above, below, strict=True)]


def holm_words(tested: bool, survives: bool) -> str:
    """Return a table's cell: whether a verdict survives, or a dash if there was no test."""
    return ("yes" if survives else "no") if tested else "–"


def _rejected(p_values: Sequence[float | None]) -> list[bool]:
    """Tell which null hypotheses Holm's procedure rejects at ERROR_OF_A_SIDE; None is no hypothesis."""
    rejected = iter(holm([p for p in p_values if p is not None], ERROR_OF_A_SIDE))
    return [p is not None and next(rejected) for p in p_values]
