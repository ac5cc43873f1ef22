"""The verdict of the gate: pass, fail or hold, with the check that decided it, in sentences and numbers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Result = Literal["pass", "fail", "hold"]


@dataclass(frozen=True)
class Check:
    """One check of the gate: its result, a sentence for a person, and its numbers (JSON-able)."""

    name: str
    result: Result
    sentence: str
    numbers: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Verdict:
    """What the gate says of one challenger.

    checks: in the order in which they were made. numbers: those of all checks together, JSON-able.
    moves_anchor: the challenger is proven to be better, so later challengers are held to it.
    """

    checks: Sequence[Check]
    moves_anchor: bool = False

    @property
    def verdict(self) -> Result:
        """`fail` if a check fails; else `hold` if a person must decide; else `pass`."""
        results = {check.result for check in self.checks}
        return "fail" if "fail" in results else "hold" if "hold" in results else "pass"

    @property
    def sentences(self) -> list[str]:
        """One sentence for each check; those that decided the verdict come first."""
        return [check.sentence for check in sorted(self.checks, key=lambda check: check.result != self.verdict)]

    @property
    def numbers(self) -> dict[str, Any]:
        """The numbers of all checks by name."""
        return {name: value for check in self.checks for name, value in check.numbers.items()}

    def as_dict(self) -> dict[str, Any]:
        """Return verdict, sentences, numbers and the result of each check, JSON-able."""
        return {
            "verdict": self.verdict,
            "sentences": self.sentences,
            "numbers": self.numbers,
            "checks": {check.name: check.result for check in self.checks},
            "moves_anchor": self.moves_anchor,
        }
