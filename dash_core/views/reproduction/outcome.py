"""The outcome of an item: its measured comparisons, from which claims and views are computed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dash_core.comparison import Params
from dash_core.views.rules import FIXED_SEEDS, Rule
from dash_core.views.summary import MethodRuns


@dataclass(frozen=True)
class Measured:
    """One comparison of an item: its parameters, its complete runs, and their distinct machines."""

    params: Params
    methods: Sequence[MethodRuns]
    machines: Sequence[Mapping[str, Any]] = ()

    def method(self, label: str) -> MethodRuns:
        """Return the complete runs of one method; there may be none."""
        return next((method for method in self.methods if method.label == label), MethodRuns(label, label, {}))


Outcome = Mapping[str, Measured]  # an item's comparisons, by key


class JudgedOutcome(dict[str, Measured]):
    """An outcome with the rule by which its differences are judged, for views that show verdicts of their own."""

    def __init__(self, outcome: Outcome, rule: Rule) -> None:
        super().__init__(outcome)
        self.rule = rule


def rule_of(outcome: Outcome) -> Rule:
    """Return the rule of an outcome; that of a fixed number of seeds if it has none."""
    return outcome.rule if isinstance(outcome, JudgedOutcome) else FIXED_SEEDS
