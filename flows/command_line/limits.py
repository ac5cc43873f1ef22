"""When the command `reproduce` stops training, and by which rule its claims are then judged."""

from dataclasses import dataclass

from dash_core.views.rules import FIXED_SEEDS, GROUP_SEQUENTIAL, Rule
from flows.command_line.durations import seconds_of
from flows.compare import Deadline

PAGE_SECONDS = 2.0  # to write one item's page after training
MOST_FOR_PAGES = 0.2  # of the budget


@dataclass(frozen=True)
class Limits:
    """When training stops. budget: seconds for the command, None without one. most_seeds: of a comparison, or None.

    most_seeds: seeds are added until claims are decided, up to this number; None: no seed is added.
    """

    budget: float | None = None
    most_seeds: int | None = None

    @classmethod
    def of(cls, budget: str | None, until_decided: bool, max_seeds: int) -> "Limits":
        """Return the limits that the options give; ConfigError if the budget is no duration."""
        return cls(seconds_of(budget, "--budget") if budget else None, max_seeds if until_decided else None)

    @property
    def rule(self) -> Rule:
        """The rule of the verdicts: a sequential one if seeds are added."""
        return FIXED_SEEDS if self.most_seeds is None else GROUP_SEQUENTIAL

    def deadline(self, items: int) -> Deadline | None:
        """Return when training stops, so that there is time for the pages of so many items."""
        if self.budget is None:
            return None
        return Deadline(self.budget - min(PAGE_SECONDS * items, MOST_FOR_PAGES * self.budget))
