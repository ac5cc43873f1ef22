"""The content of a report: plain data, records and the table of one comparison."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dash_core.views.summary import MethodRuns
from dash_core.views.tables import Table


@dataclass(frozen=True)
class ReportContent:
    """One comparison, as its report needs it.

    name: of the comparison. title: of the page. settings: the whole params.yaml, defaults included, as nested plain
    data. splits: digest of the chunk plan by seed. data: facts of the dataset by name; train_images and test_images
    are required. machines: the distinct hardware, versions and commits of the runs. table: the comparison's table.
    methods: the complete runs. planned_seeds: planned number of seeds per method. class_names: in the order of the
    labels. command: repeats the comparison.
    """

    name: str
    title: str
    settings: Mapping[str, Any]
    splits: Mapping[int, str]
    data: Mapping[str, Any]
    machines: Sequence[Mapping[str, Any]]
    table: Table
    methods: Sequence[MethodRuns]
    planned_seeds: int
    class_names: Sequence[str]
    command: str
