"""Pages of items, from made-up numbers: offline, with figures, claims and verdicts."""

import re
from dataclasses import replace
from html import unescape

import pytest

from dash_core.views.reproduction import ITEMS
from dash_core.views.reproduction.digest import NO_CLAIM, digest
from dash_core.views.reproduction.page import item_html
from dash_core.views.reproduction.reproduced import Reproduced
from dash_core.views.rules import GROUP_SEQUENTIAL
from tests.views.reproduction.made import MACHINE, measured, reproduced, runs

FIGURES = [name for name in ITEMS if name.startswith("figure")]
OUTSIDE = re.compile(r"""(?:src|href)\s*=\s*["'](?!#|data:)|url\(\s*["']?(?!data:)""")


@pytest.mark.parametrize("name", ITEMS)
def test_every_item_has_a_page_that_requests_nothing_and_tells_claims_and_verdicts(name):
    made = reproduced(ITEMS[name], "smoke")
    page = item_html(made)
    own = unescape(re.sub(r"<script>.*?</script>", "", page, flags=re.DOTALL))  # plotly.js names addresses, asks none
    assert "default-src 'none'" in own
    assert not OUTSIDE.search(own)
    assert f"dashpipe reproduce {name} --scale smoke" in own
    for finding in made.findings:
        assert finding.judgement == "too few seeds"
    assert own.count("too few seeds</strong>") == len(made.findings)
    assert all(value in own for value in made.item.ours)


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_of_the_paper_is_drawn(name):
    drawings = reproduced(ITEMS[name], "smoke").view.drawings
    assert drawings
    assert len({drawing.name for drawing in drawings}) == len(drawings)
    assert all(drawing.figure.data for drawing in drawings)


def test_the_same_content_gives_the_same_page():
    one, other = (item_html(reproduced(ITEMS["figure-18"], "smoke")) for _ in range(2))
    assert one == other


def test_dead_units_of_a_network_without_relu_are_no_numbers_but_a_page():
    item, methods = ITEMS["figure-16"], (runs("cold", (0.80, 0.81, 0.83)), runs("warm", (0.70, 0.72, 0.72)))
    made = Reproduced(item, "smoke", dict.fromkeys(item.scales["smoke"].comparisons, measured(*methods)), 1.0, "")
    assert [finding.judgement for finding in made.findings] == ["too few seeds"]
    assert "81.33 (1.25)" in item_html(made)  # the accuracies are told


def figure_1(dash=(0.90, 0.92, 0.91)):
    methods = (
        runs("cold", (0.80, 0.81, 0.83), [200, 210, 190]),
        runs("warm", (0.70, 0.72, 0.72), [50, 60, 55]),
        runs("shrink_perturb", (0.85, 0.87, 0.88), [220, 230, 240]),
        runs("dash", dash, [260, 250, 240]),
    )
    item = ITEMS["figure-1"]
    outcome = dict.fromkeys(item.scales["small"].comparisons, measured(*methods))
    return Reproduced(item, "small", outcome, 61.4, "uv run dashpipe reproduce figure-1 --scale small")


def test_a_page_says_how_many_claims_agree():
    assert "Of 6 claims: 6 agree, 0 disagree, 0 too few seeds; 3 of these" in item_html(figure_1())
    assert "Of 6 claims: 3 agree, 3 disagree, 0 too few seeds; " in item_html(figure_1(dash=(0.60, 0.62, 0.61)))


def test_the_record_holds_what_the_summary_needs():
    result = figure_1().result()
    assert (result["item"], result["scale"], result["seconds"], result["machines"]) == (
        "figure-1",
        "small",
        61.4,
        [MACHINE],
    )
    first = result["claims"][0]
    assert first["text"] == "digits: DASH > S&P > cold > warm in last test accuracy"
    assert (first["verdict"], first["seeds"]) == ("agree", 3)
    assert first["numbers"].startswith("dash − shrink_perturb = +4.33 points, 95 % CI [")


def test_the_summary_has_a_row_a_claim_with_its_numbers_and_the_hardware_on_top():
    made = digest([figure_1().result(), reproduced(ITEMS["table-7"], "small").result()])
    head, _, body = made.partition("| Item |")
    assert (
        "Measured on a processor, 2 cores, 2 run(s) at once of 1 thread(s), precision unknown, Python 3.11, torch "
        "unknown." in head
    )
    assert "2 items, 6 claims: 6 agree, 0 disagree, 0 too few seeds; 3 verdicts survive Holm's correction." in head
    assert "Rule of all intervals: Student's t interval, fixed number of seeds." in head
    rows = [line for line in body.splitlines() if line.startswith(("| figure-1", "| table-7"))]
    assert len(rows) == 7
    assert all(row.count("**agree**") == 1 and "| small | 3 | 61 |" in row for row in rows[:6])
    assert NO_CLAIM in rows[6]
    assert (
        "## What stands in for the paper's setting\n\n- figure-1, small: a ResNet-18 of a quarter of the width" in made
    )


def test_runs_that_failed_are_told():
    good = figure_1()
    bad = Reproduced(good.item, good.scale, good.outcome, 1.0, good.command, failures={"run-1": "killed"})
    assert "run-1: killed" in item_html(bad)
    assert "- figure-1, small: 1 runs failed" in digest([bad.result()])


def test_page_and_record_name_the_rule_and_the_runs_that_are_left():
    sequential = replace(figure_1(), rule=GROUP_SEQUENTIAL, left=4)
    page = unescape(item_html(sequential))
    assert "rule: group-sequential t interval" in page
    assert "4 runs are left" in page
    assert "95 % sequential CI [" in page
    result = sequential.result()
    assert (result["rule"], result["left"]) == (GROUP_SEQUENTIAL.name, 4)
    assert "## Runs that are left: the same command continues\n\n- figure-1, small: 4 runs" in digest([result])


def test_a_record_without_p_values_has_a_row_without_holm():
    old = figure_1().result()
    for claim in old["claims"]:
        del claim["p_values"]
    assert digest([old]).count("paired seeds | – | small") == 6
