"""The result of an item: its outcome, its findings, and both as plain data for the record and the summary."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

from dash_core.views.holm import surviving
from dash_core.views.reproduction.claims import Finding, find
from dash_core.views.reproduction.item import Item, Scale, View
from dash_core.views.reproduction.outcome import JudgedOutcome, Outcome
from dash_core.views.rules import FIXED_SEEDS, Rule


@dataclass(frozen=True)
class Reproduced:
    """An item that was run at a scale.

    seconds: the sum over all runs, from their records. command: repeats the item. overrides: `--set` values that change
    results. failures: the reason by failed run. rule: how differences are judged. left: number of runs that are not
    trained yet, because the time that was given had passed.
    """

    item: Item
    scale: str
    outcome: Outcome
    seconds: float
    command: str
    overrides: Sequence[str] = ()
    failures: Mapping[str, str] = field(default_factory=dict)
    rule: Rule = FIXED_SEEDS
    left: int = 0

    @property
    def declared(self) -> Scale:
        """The scale as the item declares it."""
        return self.item.scales[self.scale]

    @cached_property
    def findings(self) -> list[Finding]:
        """The finding on each claim that is checked at this scale."""
        return find(self.item.claims_at(self.scale, bool(self.overrides)), self.outcome, self.rule)

    @cached_property
    def surviving(self) -> list[bool]:
        """For each finding, whether its verdict survives Holm's correction for the item's claims."""
        return surviving([finding.p_values for finding in self.findings])

    @cached_property
    def view(self) -> View:
        """The item's figures and tables."""
        return self.item.view(JudgedOutcome(self.outcome, self.rule))

    @property
    def seeds(self) -> int:
        """The planned number of seeds per method, the fewest of all comparisons; 0 if nothing is run."""
        return min((len(self._seeds(one.params)) for one in self.outcome.values()), default=0)

    def _seeds(self, params: Any) -> Sequence[int]:
        return params.theory.seeds if self.item.simulated else params.seeds

    @property
    def machines(self) -> list[Mapping[str, Any]]:
        """The distinct machines of all comparisons."""
        distinct = {str(sorted(m.items(), key=str)): m for one in self.outcome.values() for m in one.machines}
        return list(distinct.values())

    def result(self) -> dict[str, Any]:
        """Return the record of the item: plain data for JSON."""
        return {
            "item": self.item.name,
            "shows": self.item.shows,
            "scale": self.scale,
            "stands_in": self.declared.stands_in,
            "claims": [
                {
                    "text": f.claim.text,
                    "ours": f.claim.ours,
                    "verdict": f.judgement,
                    "numbers": f.numbers,
                    "seeds": f.seeds,
                    "p_values": f.p_values and asdict(f.p_values),
                }
                for f in self.findings
            ],
            "rule": self.rule.name,
            "seeds": self.seeds,
            "left": self.left,
            "seconds": self.seconds,
            "command": self.command,
            "overrides": list(self.overrides),
            "machines": self.machines,
            "failures": dict(self.failures),
        }
