"""The report as text: it requests nothing, trusts no label, and says the same thing twice in the same bytes."""

import csv
import io
import re
from dataclasses import replace

import pytest

from dash_core.views.report import ReportContent, report_html
from dash_core.views.report.sections import experiment_tables
from dash_core.views.summary import COLUMNS, MethodRuns, summarise
from dash_core.views.tables import to_csv
from tests.views.report.contents import content, record, runs

METHODS = (
    runs("cold", 0.80, 0.81, 0.82, steps=1000),
    runs("dash", 0.82, 0.825, 0.84, steps=400, stuck=1),
    runs("warm", 0.7, 0.7),
)
NASTY = '<script>alert("1")</script>&amp;\''


@pytest.fixture(scope="module")
def page() -> str:
    return report_html(content(*METHODS, planned=3))


def own(page: str) -> str:
    """Return the page without plotly.js, which is the only script without a newline after its tag."""
    start = page.index("<script>", page.index("</main>")) + len("<script>")
    return page[:start] + page[page.index("</script>", start) :]


def rows(page: str, section: str) -> list[list[str]]:
    body = page.split(f'<section id="{section}">')[1].split("</section>")[0]
    found = re.findall(r"<tr>(.*?)</tr>", body, flags=re.DOTALL)
    cells = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, flags=re.DOTALL) for row in found]
    return [[" ".join(re.sub("<[^>]*>", "", cell).split()) for cell in row] for row in cells]


def test_nothing_outside_the_page_is_named_by_a_tag_or_a_style(page):
    tags = re.findall(r"<[a-z][^>]*>", own(page))
    links = [value for tag in tags for value in re.findall(r'(?:src|href|srcset|data|poster)="([^"]*)"', tag)]
    assert [link for link in links if not link.startswith(("#", "data:"))] == []
    assert re.findall(r"url\(|@import|https?:", own(page)) == []


def test_the_browser_is_told_to_refuse_every_request(page):
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page)
    assert "default-src &#39;none&#39;" in policy
    assert "http" not in policy


def test_equal_contents_give_equal_bytes(page):
    assert report_html(content(*METHODS, planned=3)) == page


def test_the_tables_cells_are_the_numbers_of_the_csv_rounded(page):
    numbers = csv.DictReader(io.StringIO(to_csv(summarise(METHODS))))
    expected = [[_rounded(row, column) for column in COLUMNS] for row in numbers]
    assert [row[1:-1] for row in rows(page, "table")[1:]] == expected


def _rounded(row: dict[str, str], column) -> str:
    mean, std = (float(row[f"{column.key}_{part}"]) for part in ("mean", "std"))
    return f"{mean:,.{column.digits}f} ({std:,.{column.digits}f})"


def test_differences_are_printed_for_every_column_with_intervals_and_pairs(page):
    heading, dash, warm = rows(page, "statistics")[:3]
    assert heading == ["Method", *(column.title for column in COLUMNS), "Pairs"]
    assert dash == [
        "dash",
        *["+1.83 [1.12, 2.55]"] * 2,  # +2, +1.5 and +2 points
        "−600",
        "−600",
        "−1,200.000",
        "−120.0",
        "3",
    ]
    assert warm[1] == "−10.50 [−16.85, −4.15]"  # -10 and -11 points


def test_the_cost_of_reaching_colds_accuracy_is_printed_with_its_share(page):
    cold, dash, warm = rows(page, "statistics")[4:]
    share = "2,000 (0) 1.00×", "2,000.000 (0.000) 1.00×", "200.0 (0.0) 1.00×"
    assert cold == ["cold", "3 of 3 seeds", "2.0 (0.0)", *share]
    assert dash[:4] == ["dash", "3 of 3 seeds", "2.0 (0.0)", "800 (0) 0.40×"]
    assert warm == ["warm", "0 of 2 seeds", "–", "–", "–", "–"]


def test_every_experiment_has_its_accuracy_and_steps_folded(page):
    made = rows(page, "experiments")
    assert made[0] == ["Experiment", "Images", "cold", "dash", "warm"]
    assert made[1] == ["1", "60", "71.00 (0.82)", "72.83 (0.85)", "60.00 (0.00)"]
    assert made[5] == ["2", "120", "1,000 (0)", "400 (0)", "100 (0)"]
    assert page.count("<details>") == 2


def test_of_many_experiments_about_a_hundred_have_a_row():
    cold = [replace(record(j, 0.5), images=15_060) for j in range(1, 252)]  # on all data; dash on 60 more each time
    dash = [record(j, 0.5) for j in range(1, 252)]
    methods = (MethodRuns("cold", "cold", {0: cold}), MethodRuns("dash", "dash", {0: dash}))
    accuracy, steps = experiment_tables(content(*methods))
    assert [int(row[0].text) for row in accuracy.rows] == [*range(1, 251, 3), 251]
    assert [row[1].text for row in steps.rows[:2]] == ["60–15,060", "240–15,060"]
    assert steps.rows[-1][1].text == "15,060"
    assert accuracy.notes[-1] == "one experiment in 3, and the last; experiments.csv holds all"


def test_the_set_up_holds_every_setting_split_and_machine(page):
    made = dict(row for row in rows(page, "set-up") if len(row) == 2)
    assert made["training.stop_accuracy"] == "0.999"
    assert made["dataset.train_size"] == "null"
    assert made["methods.warm"] == "{}"
    assert made["compare.methods"] == "cold, dash, warm"
    assert made["2"] == "2" * 64
    assert made["digest"] == "d" * 64
    assert made["commit"] == "0123456789ab"
    assert "<pre><code>dashpipe compare</code></pre>" in page


def test_machines_that_differ_stand_side_by_side():
    machines = [{"device": "H100", "torch": "2.14"}, {"device": "A100", "cores": 8}]
    made = rows(report_html(content(METHODS[0], machines=machines)), "set-up")
    assert made[-4:] == [
        ["", "set-up 1", "set-up 2"],
        ["device", "H100", "A100"],
        ["torch", "2.14", "–"],
        ["cores", "–", "8"],
    ]


def test_what_a_user_wrote_is_text_and_never_markup():
    nasty = content(runs("cold", 0.8), runs(NASTY, 0.9), title=NASTY, command=NASTY, class_names=(NASTY, "one"))
    page = own(report_html(nasty))
    assert 'alert("1")' not in page.replace('\\u003cscript>alert(\\"1\\")', "")
    assert "&lt;script&gt;alert(&#34;1&#34;)&lt;/script&gt;" in page


def test_figures_cannot_end_the_script_they_stand_in():
    page = report_html(content(runs("cold", 0.8), runs("</script><b>", 0.9)))
    data = re.findall(r'<script type="application/json"[^>]*>(.*?)</script>', page, flags=re.DOTALL)
    assert len(data) == page.count('<div class="plot"') > 0
    assert all(text.startswith("{") and text.endswith("}") and "<" not in text for text in data)


def test_without_a_complete_run_the_page_says_so():
    empty: ReportContent = content(labels=["cold", "dash"])
    page = report_html(empty)
    assert "No run is complete: there are no numbers yet." in page
    assert "There is no complete run to draw." in page
