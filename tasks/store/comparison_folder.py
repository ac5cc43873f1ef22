"""The folder of a comparison: its table in every form, its report and its parameters, made from records alone."""

import json
from pathlib import Path

from dash_core.comparison import Params
from dash_core.files import write_atomically
from dash_core.protocols import STANDARD
from dash_core.recipes import resolved
from dash_core.views.summary import MethodSummary, sameness, summarise
from dash_core.views.tables import Table, comparison_table, experiments_csv, metrics, to_csv, to_latex, to_markdown
from tasks.store.evidence import Evidence
from tasks.store.runs import to_yaml

PLOTS_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
{refresh_tag}
<title>DVC plots</title>
<style>body { font-family: system-ui, sans-serif; } img { max-width: 100%; }</style>
<script type="module">
{vega}
</script>
<script>
window.vegaEmbed = (...drawing) => addEventListener("load", () => vegaEmbed(...drawing));
</script>
</head>
<body>
{plot_divs}
</body>
</html>
"""  # the names in braces but {vega} are DVC's
MACHINE_FACTS = ("device", "cores", "workers", "threads", "platform", "python", "torch", "precision", "commit")


def write_tables(evidence: Evidence, folder: Path) -> Table:
    """Write the paper-style table in every form, and the numbers that DVC compares; return the table."""
    summaries = summarise(evidence.methods)
    table = table_of(evidence, summaries)
    files: dict[str, str] = {
        "table.md": to_markdown(table),
        "table.csv": to_csv(summaries),
        "table.tex": to_latex(table),
        "experiments.csv": experiments_csv(evidence.methods),
        "metrics.json": json.dumps(metrics(summaries), indent=2) + "\n",
    }
    for name, text in files.items():
        write_atomically(folder / name, text.encode())
    return table


def write_plots_page(path: Path) -> None:
    """Write the page that `dvc plots` fills: DVC's own page loads Vega from a server, and is blank offline."""
    import vl_convert

    script = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
    write_atomically(path, PLOTS_PAGE.replace("{vega}", script.replace("</script", r"<\/script")).encode())


def write_report(evidence: Evidence, path: Path, command: str) -> None:
    """Write the comparison's page: one file that needs no other. command: the command line that repeats it."""
    from dash_core.views.report import ReportContent, report_html

    content = ReportContent(
        name=evidence.params.name,
        title=_title(evidence),
        settings=_settings(evidence.params),
        splits=evidence.splits,
        data={key: value for key, value in evidence.data.items() if key != "class_names"},
        machines=machines_of(evidence),
        table=table_of(evidence, summarise(evidence.methods)),
        methods=evidence.methods,
        planned_seeds=len(evidence.params.seeds),
        class_names=evidence.data["class_names"],
        command=command,
    )
    write_atomically(path, report_html(content).encode())


def write_comparison(evidence: Evidence, folder: Path, command: str) -> Table:
    """Write tables, report and parameters to the comparison's folder; return the table."""
    table = write_tables(evidence, folder)
    if evidence.methods:
        write_report(evidence, folder / "report.html", command)
    write_atomically(folder / "params.yaml", to_yaml(evidence.params.model_dump(mode="json")))
    return table


def table_of(evidence: Evidence, summaries: list[MethodSummary]) -> Table:
    """Return the comparison's table, its title naming data, model and protocol."""
    notes = (
        *sameness(evidence.methods),
        *evidence.gaps,
        *evidence.shared,
        *evidence.conditions,
        evidence.split_note,
    )
    return comparison_table(_title(evidence), summaries, len(evidence.params.seeds), notes)


def _settings(params: Params) -> dict[str, object]:
    """Return what decides the comparison's results: not where its runs are trained, nor other simulations."""
    content = {**params.model_dump(mode="json", exclude={"theory"}), **resolved(params)}
    return {**content, "compare": {"methods": params.compare.methods}}


def _title(evidence: Evidence) -> str:
    params = evidence.params
    setting = f"{params.dataset.name}, {params.model.title}, {params.optimizer.name}"
    protocol = "" if params.protocol == STANDARD else f", {params.protocol.name} protocol"
    end = f", up to experiment {params.experiments}" if params.experiments else ""
    return f"{setting}: {params.chunks} chunks, {params.training.recipe} recipe{protocol}{end}"


def machines_of(evidence: Evidence) -> list[dict[str, object]]:
    """Return the distinct hardware, versions and commits the runs were trained with."""
    machines = {tuple((key, result.get(key)) for key in MACHINE_FACTS) for result in evidence.results}
    return [dict(facts) for facts in sorted(machines, key=str)]
