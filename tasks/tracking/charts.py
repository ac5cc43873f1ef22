"""The view of a comparison that MLflow's chart page opens with: accuracy and cost by experiment, averaged by method.

By default MLflow hides all runs but ten and draws every metric in the order of its name. The page takes its settings
from a tag of the experiment, as its own "Share" writes it, when the address names the tag's key.
"""

import json
import math
from collections.abc import Collection, Iterator
from typing import Any

SHARE_KEY = "dashpipe"
VIEW_TAG = f"mlflow.sharedViewState.{SHARE_KEY}"
TRAINING_PAGES = "workflowType=machine_learning"  # the menu for training, not that for chats
VIEW_QUERY = f"compareRunsMode=CHART&viewStateShareKey={SHARE_KEY}&{TRAINING_PAGES}"  # the end of the page's address
OUR_SECTION = "Accuracy and cost by chunk"
SECTIONS = (
    OUR_SECTION,
    "Model metrics",
    "phases",
)  # the last two are MLflow's; it fills them and adds others
SIZES = {"columns": 1, "cardHeight": 300}  # a chart a row: two are 200 pixels wide beside the assistant's pane
LINES = ("test_accuracy", "steps", "total_teraflops", "total_seconds")


def settings(accuracies: Collection[float] = ()) -> str:
    """Return the settings of the chart page as MLflow keeps them, JSON: every run, the mean over seeds of a method.

    The axis of the test accuracy spans `accuracies` (0 to 1); without any it begins at 0.
    """
    return json.dumps(
        {
            "searchFilter": "tags.kind = 'run'",  # the summary run has no metrics
            "runsHiddenMode": "SHOW_ALL",
            "groupBy": {"aggregateFunction": "average", "groupByKeys": [{"mode": "tag", "groupByData": "method"}]},
            "compareRunCharts": list(_charts(accuracies)),
            "compareRunSections": [{"uuid": name, "name": name, "display": True, **SIZES} for name in SECTIONS],
            "isAccordionReordered": True,  # keep the order of the sections
        }
    )


def report_link(experiment_id: str, run_id: str) -> str:
    """Return a Markdown link, for MLflow's pages, to report.html among the artifacts of a run."""
    place = f"#/experiments/{experiment_id}/runs/{run_id}/artifacts/report.html?{TRAINING_PAGES}"
    return f"[Report and tables of this comparison]({place})"


def _charts(accuracies: Collection[float]) -> Iterator[dict[str, Any]]:
    """Yield a line for each metric by experiment, then the last accuracy against the FLOPs of the whole run."""
    common = {"metricSectionId": OUR_SECTION, "deleted": False, "isGenerated": False, "runsCountToCompare": 100}
    line = {"type": "LINE", "xAxisKey": "step", "useGlobalXaxisKey": True, "useGlobalLineSmoothing": True}
    for metric in LINES:
        span = _span(accuracies) if metric == "test_accuracy" and accuracies else {}
        yield {**common, **line, "uuid": metric, "metricKey": metric, "range": span}
    axes = {"xaxis": "total_teraflops", "yaxis": "test_accuracy"}
    points = {axis: {"key": metric, "type": "METRIC"} for axis, metric in axes.items()}
    yield {**common, **points, "type": "SCATTER", "uuid": "accuracy against FLOPs"}


def _span(accuracies: Collection[float]) -> dict[str, float]:
    """Return an axis that contains every accuracy, in whole percents, with one to spare at both ends."""
    lowest, highest = math.floor(100 * min(accuracies)), math.ceil(100 * max(accuracies))
    return {"yMin": (lowest - 1) / 100, "yMax": (highest + 1) / 100}
