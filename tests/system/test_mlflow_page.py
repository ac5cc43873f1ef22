"""MLflow's pages over a real comparison in a real browser: what they show, and that they keep to this machine."""

import csv
import re
import signal
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.browser import Page, find_chromium, running_chromium
from tests.system import shell

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_chromium() is None, reason="no Chromium or Chrome on the PATH"),
]

SETTINGS = (*shell.TINY[:-1], "seeds=[0, 1]")
METHODS, CHUNKS = ("warm", "dash"), 3
ADDRESS = r"http://127\.0\.0\.1:\d+/\S+(?=\s)"  # to the end of the word: a line may be half written
CHARTS = ("test_accuracy", "steps", "total_teraflops", "total_seconds")
NO_LOGIN = "/ajax-api/2.0/mlflow/users/current"  # a server without accounts answers 404, and the browser complains
MLFLOW_SAYS = (
    "error: Failed to load resource: the server responded with a status of 404 (Not Found)",
    "error: None ResizeObserver loop completed with undelivered notifications.",
    "warning: AG Grid: since v27.1, `getRowNodeId` is deprecated and has been replaced by `getRowId`.",
    "warning: AG Grid: since v27.1, `immutableData` is deprecated.",
    "warning: AG Grid: tried to call sizeColumnsToFit() but the grid is coming back with zero width",
)
DRAWN = "document.querySelectorAll('.js-plotly-plot .points path').length >= {}"
PLOTS = """[...document.querySelectorAll('.js-plotly-plot')].map((plot) => {
    const box = plot.querySelector('svg.main-svg').getBoundingClientRect();
    const data = plot.data.filter((trace) => (trace.mode ?? '').includes('markers'));
    return {
        range: plot.layout.yaxis.range,
        size: [box.width, box.height],
        points: plot.querySelectorAll('.points path').length,
        lines: data.map(({uuid, text, x, y}) => ({uuid, text, x: [...(x ?? [])], y: [...(y ?? [])]})),
    };
})"""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = tmp_path_factory.mktemp("page") / "store"
    ended = shell.dashpipe(store, "compare", settings=SETTINGS)
    assert ended.code == 0, ended.err
    return store


@pytest.fixture(scope="module")
def address(store: Path) -> Iterator[str]:
    """Lend the address that `dashpipe ui` names, and end it as a terminal would."""
    running = shell.start(store, "ui", "--no-browser", "--port", "0", settings=SETTINGS)
    out, err = running.outputs
    assert running.until(lambda: re.search(ADDRESS, out.read_text()), 120), err.read_text()
    yield re.search(ADDRESS, out.read_text())[0]
    running.process.send_signal(signal.SIGTERM)
    assert running.end(60).code == 0
    assert shell.within(10, lambda: shell.processes_of(store) == [])


@pytest.fixture(scope="module")
def page(address: str) -> Iterator[Page]:
    """Lend the page as a new user sees it, on a screen high enough for the five charts."""
    with running_chromium() as browser, browser.page(width=1400) as page:
        page.resize(1400, 2400)
        page.go(address)
        page.wait_for(DRAWN.format((len(CHARTS) * CHUNKS + 1) * len(METHODS)), seconds=120)
        yield page


@pytest.fixture(scope="module")
def plots(page: Page) -> list[dict]:
    return page.evaluate(PLOTS)


@pytest.fixture(scope="module")
def table(store: Path) -> dict[str, dict[str, str]]:
    """Return the rows of table.csv by method."""
    (file,) = store.glob("comparisons/*/table.csv")
    return {row["method"]: row for row in csv.DictReader(file.read_text().splitlines())}


def test_runs_are_listed_by_name_under_their_method(page):
    text = page.evaluate("document.body.innerText")
    for method in METHODS:
        assert f"Group: {method}" in text
        for seed in (0, 1):
            assert f"{method} · seed {seed}" in text
    assert "4 matching runs" in text


def test_first_charts_are_accuracy_and_cost_with_a_point_for_each_method_and_chunk(page, plots):
    titles = page.evaluate("document.body.innerText")
    assert titles.index("Accuracy and cost by chunk") < titles.index("Model metrics") < titles.index("phases")
    for plot in plots[: len(CHARTS)]:
        assert plot["size"][0] > 400
        assert plot["size"][1] > 180
        assert plot["points"] >= len(METHODS) * CHUNKS
        assert {(line["uuid"], len(line["y"])) for line in plot["lines"]} == {
            (f"tag.method.{m}", CHUNKS) for m in METHODS
        }


def test_lines_are_the_mean_over_seeds_of_the_records(plots, store):
    records = shell.records(store, SETTINGS)
    for metric, plot in zip(CHARTS[:2], plots, strict=False):
        for line in plot["lines"]:
            method = line["uuid"].removeprefix("tag.method.")
            seeds = [[getattr(record, metric) for record in records[f"{method} {seed}"]] for seed in (0, 1)]
            assert line["y"] == pytest.approx([sum(pair) / 2 for pair in zip(*seeds, strict=True)], rel=1e-9)


def test_accuracy_and_flops_of_the_last_chunk_are_those_of_the_table(plots, table):
    for line in plots[0]["lines"]:
        row = table[line["uuid"].removeprefix("tag.method.")]
        assert f"{100 * line['y'][-1]:.2f}" == f"{float(row['last_accuracy_mean']):.2f}"
    for line in plots[2]["lines"]:
        row = table[line["uuid"].removeprefix("tag.method.")]
        assert f"{line['y'][-1]:.6f}" == f"{float(row['teraflops_mean']):.6f}"
    (points,) = plots[len(CHARTS)]["lines"]
    triples = zip(points["text"], points["x"], points["y"], strict=True)
    shown = {name: (f"{flops:.6f}", f"{100 * accuracy:.2f}") for name, flops, accuracy in triples}
    assert shown == {
        method: (f"{float(row['teraflops_mean']):.6f}", f"{float(row['last_accuracy_mean']):.2f}")
        for method, row in table.items()
    }


def test_axis_of_the_accuracy_holds_every_run_and_little_more(plots, store):
    accuracies = [record.test_accuracy for run in shell.records(store, SETTINGS).values() for record in run]
    low, high = plots[0]["range"]
    assert min(accuracies) - 0.02 < low < min(accuracies) <= max(accuracies) < high < max(accuracies) + 0.0201


def test_description_shows_the_table_and_leads_to_the_report(page, address, table):
    page.wait_for("document.querySelector('a[href*=\"report.html\"]')")
    link = page.evaluate("document.querySelector('a[href*=\"report.html\"]').href")
    cells = page.evaluate("[...document.querySelectorAll('td')].map((cell) => cell.innerText.trim())")
    accuracies = [f"{float(row['last_accuracy_mean']):.2f} (" for row in table.values()]
    assert [start for start in (*table, *accuracies) if not any(cell.startswith(start) for cell in cells)] == []
    assert link.startswith(address.split("#")[0])


def test_report_opens_among_the_artifacts_in_a_frame_of_its_own(page):
    link = page.evaluate("document.querySelector('a[href*=\"report.html\"]').href")
    page.go(link)
    page.send("Page.reload")  # another place in the same page is no navigation
    page.wait_for("document.querySelector('iframe[src^=\"blob:\"]')", seconds=60)
    assert page.evaluate("document.querySelector('iframe').getAttribute('sandbox')") == "allow-scripts"
    text = page.evaluate("document.body.innerText")
    assert all(name in text for name in ("table.md", "table.csv", "table.tex", "experiments.csv", "params.yaml"))


def test_console_says_nothing_of_ours_and_no_request_leaves_this_machine(page, address, store):
    base = address.split("#")[0]
    assert [line for line in page.console if not line.startswith(MLFLOW_SAYS)] == []
    assert [url for url in page.requests if not url.startswith((base, "data:", "blob:"))] == []
    answers = re.findall(r'"\w+ (\S+) HTTP/1.1" (\d+)', (store / "mlflow-server.log").read_text())
    assert {path for path, status in answers if int(status) >= 400} <= {NO_LOGIN}


def test_pages_telemetry_is_off(address):
    ask = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with ask.open(f"{address.split('#')[0]}ajax-api/3.0/mlflow/ui-telemetry", timeout=60) as answer:
        assert b'"disable_ui_telemetry":true' in answer.read().replace(b" ", b"")


def test_every_search_of_the_guide_is_understood(store):
    guide = (shell.ROOT / "docs" / "mlflow.md").read_text(encoding="utf-8")
    searches = re.search(r"```text\n(.*?)```", guide, re.DOTALL)[1].splitlines()
    client = shell.mlflow_client(store)
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    found = {search: len(client.search_runs(experiments, search)) for search in searches}
    assert found["tags.method = 'dash'"] == 2
    assert found["tags.kind = 'run' and tags.seed = '0'"] == 2
    assert found["tags.kind = 'comparison'"] == 1
    assert found["attributes.status = 'FAILED'"] == 0
