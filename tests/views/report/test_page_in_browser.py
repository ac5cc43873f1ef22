"""The report in a real browser: silent, self-contained, drawn, readable on a phone and in the dark."""

import csv
import io
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from dash_core.views.report import report_html
from dash_core.views.summary import COLUMNS, summarise
from dash_core.views.tables import to_csv
from tests.browser import Browser, Page, find_chromium, running_chromium
from tests.views.report.contents import content, runs

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_chromium() is None, reason="no Chromium or Chrome on the PATH"),
]

METHODS = (
    runs("cold", 0.80, 0.81, 0.82, steps=1000),
    runs("a_method_with_rather_a_long_label_for_a_phone", 0.82, 0.825, 0.84, steps=400),
    runs("dash", 0.81, 0.83, 0.85, steps=300),
)
DRAWN = "document.documentElement.dataset.drawn !== undefined"
PLOTS = """[...document.querySelectorAll('.plot')].map((plot) => {
    const picture = plot.querySelector('svg.main-svg'), box = picture?.getBoundingClientRect();
    const marks = plot.querySelectorAll('.trace, .points path, .heatmaplayer image, .boxes, .bars path').length;
    return [plot.dataset.figure, Math.round(box?.width ?? 0), Math.round(box?.height ?? 0), marks];
})"""
SHADE = "getComputedStyle({}).{}.match(/[\\d.]+/g).slice(0, 3).map(Number)"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with running_chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("report") / "report.html"
    file.write_text(report_html(content(*METHODS, planned=3)), encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def page(browser: Browser, file: Path) -> Iterator[Page]:
    """Lend the report, opened once for all tests; a test that changes its width or colours puts them back."""
    with browser.page() as page:
        page.go(file)
        page.wait_for(DRAWN)
        yield page


@pytest.fixture(scope="module")
def phone(browser: Browser, file: Path) -> Iterator[Page]:
    """Lend the report as a phone opens it whose owner prefers the dark."""
    with browser.page(width=360, scheme="dark", phone=True) as page:
        page.go(file)
        page.wait_for(DRAWN)
        yield page


def brightness(page: Page, element: str, what: str) -> float:
    """Return the mean of red, green and blue, 0 to 255, of an element's computed colour."""
    return sum(page.evaluate(SHADE.format(element, what))) / 3


def test_a_page_that_complains_and_asks_for_more_would_be_noticed(browser, tmp_path):
    file = tmp_path / "noisy.html"
    file.write_text("<script>console.warn('careful'); throw new Error('lost')</script><img src='http://127.0.0.1:9/'>")
    with browser.page() as page:
        page.go(file)
        assert page.requests == [file.as_uri(), "http://127.0.0.1:9/"]
        assert sorted(line.split("\n")[0] for line in page.console if "ERR_" not in line) == [
            "error: Error: lost",
            "warning: careful",
        ]


def test_the_page_draws_without_a_word_on_the_console_and_without_a_request(page, file):
    assert page.console == []
    assert [url for url in page.requests if not url.startswith(("data:", "blob:"))] == [file.as_uri()]


def test_every_figure_shows_its_traces(page):
    plots = page.evaluate(PLOTS)
    assert len(plots) > 0
    assert [name for name, width, height, marks in plots if width < 200 or height < 100 or marks == 0] == []


def test_the_table_on_the_screen_is_the_csv_rounded(page):
    shown = page.evaluate("[...document.querySelectorAll('#table tbody tr')].map((row) => row.innerText)")
    numbers = csv.DictReader(io.StringIO(to_csv(summarise(METHODS))))
    expected = [[row["method"], *(_rounded(row, column) for column in COLUMNS), row["n_seeds"]] for row in numbers]
    assert [re.split(r"\t\n?|\n", row.strip()) for row in shown] == expected


def _rounded(row: dict[str, str], column) -> str:
    mean, std = (float(row[f"{column.key}_{part}"]) for part in ("mean", "std"))
    return f"{mean:,.{column.digits}f} ({std:,.{column.digits}f})"


def test_neither_a_laptop_nor_a_phone_scrolls_sideways(page, phone):
    for tab, width in ((page, 1280), (phone, 360)):
        assert tab.evaluate("[innerWidth, document.documentElement.scrollWidth]") == [width, width]
        plots = tab.evaluate("[...document.querySelectorAll('.plot svg.main-svg')].map((svg) => svg.clientWidth)")
        assert 0 < max(plots) < width


def test_on_a_phone_a_wide_table_scrolls_in_its_own_box_and_keeps_its_methods_in_sight(phone):
    widths = "(({ scrollWidth, clientWidth }) => [scrollWidth, clientWidth])"
    table, box = phone.evaluate(f"{widths}(document.querySelector('#table .scroll'))")
    assert table > box < 360
    label = "document.querySelector('#table tbody tr:nth-child(2) th').getBoundingClientRect()"
    phone.evaluate("document.querySelector('#table .scroll').scrollLeft = 200")
    left, width, height = phone.evaluate(f"(({{ left, width, height }}) => [left, width, height])({label})")
    assert left == 16  # the page's margin
    assert 100 < width < 180  # a label of 45 letters leaves room for numbers,
    assert height < 120  # and is broken in a few lines


def test_figures_follow_the_width_of_the_window(page):
    page.resize(700)
    page.wait_for("[...document.querySelectorAll('.plot svg.main-svg')].every((svg) => svg.clientWidth < 700)")
    page.resize(1280)
    page.wait_for("[...document.querySelectorAll('.plot svg.main-svg')].every((svg) => svg.clientWidth > 700)")


def test_page_and_figures_follow_the_readers_colour_scheme(page):
    text = "document.querySelector('.plot .xtick text')"
    light = brightness(page, "document.body", "backgroundColor"), brightness(page, text, "fill")
    page.prefer("dark")
    page.wait_for(f"getComputedStyle({text}).fill !== 'rgb(29, 33, 38)'")
    dark = brightness(page, "document.body", "backgroundColor"), brightness(page, text, "fill")
    page.prefer("light")
    page.wait_for(f"getComputedStyle({text}).fill === 'rgb(29, 33, 38)'")
    assert light[0] > 240
    assert light[1] < 60
    assert dark[0] < 40
    assert dark[1] > 200


def test_a_page_opened_in_the_dark_is_dark_from_the_start(phone):
    assert brightness(phone, "document.body", "backgroundColor") < 40
    assert brightness(phone, "document.querySelector('.plot .xtick text')", "fill") > 200


def test_a_label_that_looks_like_a_script_is_shown_and_does_not_run(browser, tmp_path):
    nasty = "</script><script>window.ran = true</script><img src=x onerror='window.ran = true'>"
    file = tmp_path / "nasty.html"
    file.write_text(report_html(content(runs("cold", 0.8), runs(nasty, 0.9), title=nasty)), encoding="utf-8")
    with browser.page() as page:
        page.go(file)
        page.wait_for(DRAWN)
        assert page.evaluate("window.ran") is None
        assert page.evaluate("document.querySelector('h1').textContent") == nasty
        assert page.console == []


def test_paper_gets_light_figures_of_its_width_and_unfolded_numbers(phone):
    phone.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert phone.evaluate("document.querySelectorAll('details:not([open])').length") == 0
    assert phone.evaluate("document.querySelector('.plot svg.main-svg').clientWidth") == 660
    assert brightness(phone, "document.querySelector('.plot .xtick text')", "fill") < 60
    phone.evaluate("dispatchEvent(new Event('afterprint'))")
    assert phone.evaluate("document.querySelectorAll('details[open]').length") == 0
    assert phone.evaluate("document.querySelector('.plot svg.main-svg').clientWidth") < 360
    assert brightness(phone, "document.querySelector('.plot .xtick text')", "fill") > 200
