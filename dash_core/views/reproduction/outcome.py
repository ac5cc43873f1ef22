"""The outcome of an item: its measured comparisons, from which claims and views are computed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dash_core.comparison import Params
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
