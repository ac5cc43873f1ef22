"""What an item's claims and views are made of: its comparisons as they were measured."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dash_core.comparison import Params
from dash_core.views.summary import MethodRuns


@dataclass(frozen=True)
class Measured:
    """One comparison of an item: its parameters, the complete runs, and the distinct machines they were made on."""

    params: Params
    methods: Sequence[MethodRuns]
    machines: Sequence[Mapping[str, Any]] = ()

    def method(self, label: str) -> MethodRuns:
        """Return the runs of one method; none where none is complete."""
        return next((method for method in self.methods if method.label == label), MethodRuns(label, label, {}))


Outcome = Mapping[str, Measured]  # an item's comparisons, by key
