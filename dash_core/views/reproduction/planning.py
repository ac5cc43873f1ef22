"""In which order runs are trained, so that claims are decided soon, and which seeds are added for open claims."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from dash_core.comparison import Params
from dash_core.views.reproduction.claims import Claim
from dash_core.views.reproduction.outcome import Measured, Outcome
from dash_core.views.summary import MethodRuns

Runs = tuple[str, str]  # all seeds of one method: the comparison's key, and the method's label


class _Traced(Mapping[str, Measured]):
    """An outcome that notes which methods of which comparisons are read."""

    def __init__(self, outcome: Outcome) -> None:
        self._outcome = outcome
        self.read: set[Runs] = set()

    def __getitem__(self, key: str) -> Measured:
        measured = self._outcome[key]
        return _TracedComparison(measured.params, measured.methods, measured.machines, key, self.read)

    def __iter__(self) -> Iterator[str]:
        return iter(self._outcome)

    def __len__(self) -> int:
        return len(self._outcome)


@dataclass(frozen=True)
class _TracedComparison(Measured):
    key: str = ""
    read: set[Runs] = field(default_factory=set)

    def method(self, label: str) -> MethodRuns:
        self.read.add((self.key, label))
        return super().method(label)


def needed(claim: Claim, settings: Mapping[str, Params]) -> set[Runs]:
    """Return the methods whose runs a claim compares. settings: the parameters of its item's comparisons."""
    nothing = {
        key: Measured(params, [MethodRuns(label, label, {}) for label in params.compare.methods])
        for key, params in settings.items()
    }
    traced = _Traced(nothing)
    for check in claim.checks:
        check.verdict(traced)
    return traced.read


def by_claims_decided(claims: Sequence[Collection[str]], seconds: Mapping[str, float]) -> list[str]:
    """Return run ids in the order in which they complete most claims for their time.

    claims: for each open claim, the runs that it needs. seconds: of the runs that are not complete, by id. Again and
    again the claim is taken whose missing runs complete most claims a second, itself included. Runs that no claim needs
    come last. Runs of a claim, and those at the end, keep the order of `seconds`.
    """
    bit = {run: 1 << number for number, run in enumerate(seconds)}
    missing = [sum(bit[run] for run in set(claim) if run in bit) for claim in claims]
    order: list[str] = []
    left = {run: bit[run] for run in seconds}
    while missing := [runs for runs in missing if runs]:
        times = {runs: sum(seconds[run] for run, own in left.items() if own & runs) for runs in missing}
        completed = {runs: sum(not other & ~runs for other in missing) for runs in times}
        best = max(times, key=lambda runs, completed=completed, times=times: completed[runs] / times[runs])
        taken = [run for run, own in left.items() if own & best]
        order += taken
        left = {run: own for run, own in left.items() if not own & best}
        missing = [runs & ~best for runs in missing]
    return [*order, *left]


def more_seeds(seeds: Sequence[int], count: int, most: int) -> list[int]:
    """Return the seeds with `count` more after the largest, but not more than `most` in all."""
    first = max(seeds) + 1
    return [*seeds, *range(first, first + max(min(count, most - len(seeds)), 0))]
