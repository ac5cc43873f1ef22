"""The page of a stream answers, in this order: what arrived, what was set aside, is it better, what is served, undo."""

import json
import re
from dataclasses import replace

import pytest

from dash_core.stream.state import Observation
from dash_core.views.stream_report import stream_html, write_stream_report
from dash_core.views.stream_report.charts import Line, interval_picture, line_chart
from dash_core.views.stream_report.sections import arrivals_table
from tests.browser import find_chromium, running_chromium
from tests.views.stream_report.streams import identity, stream

QUESTIONS = ["arrived", "set-aside", "better", "served", "over-time", "undo"]


def text_of(html):
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", html.partition("<body>")[2]))


def test_the_page_answers_in_order_and_says_what_waits_for_a_person():
    html = stream_html(stream())
    assert re.findall(r'<section id="([a-z-]+)">', html) == [*QUESTIONS, "contract"]
    text = text_of(html)
    assert f"Model {identity(2)} is served since 20 Nov 2026, 13:08 UTC: passed the gate." in text
    assert f"Model {identity(4)} waits for your decision. To release it:" in text
    assert "dashpipe stream release photos --because &#34;...&#34;" in text
    assert "37 images set aside wait for your decision:" in text
    assert f"Serve the previous model, {identity(1)}, again. It takes effect at once and trains nothing:" in text
    assert "7 of 10 looks left" in text
    assert "The hold-out is too small for this margin" in text


@pytest.mark.parametrize(("models", "badge"), [(1, "pass"), (2, "pass"), (3, "fail"), (4, "hold")])
def test_the_newest_verdict_is_shown_with_its_picture_if_there_is_a_comparison(models, badge):
    html = stream_html(stream(models))
    assert f'class="badge {badge}"' in html
    assert ('class="interval"' in html) == (models in (2, 3))


def test_what_became_of_each_delivery_says_what_the_gate_or_a_person_did_with_its_model():
    def became(**changes):
        cells = [row[-1].text for row in arrivals_table(stream(**changes)).rows]
        return [cell.partition("\n")[2] for cell in reversed(cells)][:4]

    assert became() == ["passed", "passed", "failed", "waits for a person"]
    state = stream().state
    unsaid = tuple(one for one in state.verdicts if one.model in (identity(1), identity(3)))
    assert became(verdicts=unsaid) == ["passed", "replaced before it was judged", "failed", "not judged yet"]
    held = tuple(replace(one, verdict="hold") for one in state.verdicts)
    assert became(verdicts=held) == ["not released"] * 3 + ["waits for a person"]
    by_a_person = tuple(replace(one, by="person") for one in state.releases)
    assert became(verdicts=held[2:], releases=by_a_person) == [
        *["released by a person"] * 2,
        "not released",
        "waits for a person",
    ]
    assert became(verdicts=state.verdicts[:2], tainted=frozenset({identity(4)}))[2] == "not judged yet"


def test_a_stream_without_a_model_and_one_without_a_look_left_have_pages():
    assert "No model has been released yet." in stream_html(stream(0))
    state = stream().state
    used_up = stream(generations=(state.generations[0].__class__(**{**vars(state.generations[0]), "looks": 10}),))
    assert "The hold-out has no look left" in stream_html(used_up)


def test_the_page_says_what_was_retracted_and_whether_the_champion_does_harm():
    state = stream(3).state
    arrivals = (*state.arrivals[:2], replace(state.arrivals[2], retracted="wrong labels"), *state.arrivals[3:])
    lost = Observation(arrival=3, release=2, images=100, won=0, lost=9)
    text = text_of(stream_html(stream(3, arrivals=arrivals, tainted=frozenset({identity(3)}), observations=(lost,))))
    assert "retracted: wrong labels" in text
    assert "dashpipe stream retract photos DELIVERY" in text
    assert text_of(stream_html(stream(3, observations=()))).count("shown that the champion is worse") == 0
    harmed = text_of(stream_html(stream(3, observations=(replace(lost, arrival=2),))))
    assert "It is shown that the champion is worse than the model before it: on 100 new images" in harmed
    gone = text_of(stream_html(stream(3, tainted=frozenset({identity(2), identity(1)}))))
    assert "The champion was trained on a delivery that was retracted." in gone
    assert "Serve the previous model" not in gone


def test_nothing_that_a_stream_says_can_become_part_of_the_page():
    nasty = "<script>alert(1)</script>"
    html = stream_html(stream(name=nasty))
    assert "<script" not in html
    assert "&lt;script&gt;" in html


def test_the_page_is_written_from_the_files_of_the_stream(tmp_path):
    content = stream()
    (tmp_path / "evaluations").mkdir()
    for model, verdict in content.verdicts.items():
        (tmp_path / "evaluations" / f"verdict-{model}.json").write_text(json.dumps(verdict))
    for number, found in content.inspections.items():
        (tmp_path / "evaluations" / f"arrival-{number:04d}.json").write_text(json.dumps(found))
    file = write_stream_report(content.state, tmp_path)
    assert file == tmp_path / "report" / "index.html"
    assert file.read_text() == stream_html(content)
    (tmp_path / "evaluations" / f"verdict-{identity(4)}.json").write_text("{")
    assert write_stream_report(content.state, tmp_path).exists()


def test_a_chart_has_round_ticks_around_its_values_and_names_its_lines():
    chart = str(
        line_chart("t", "%", "chunk", [Line("a", "challenger", [(1, 90.2), (3, 93.9)]), Line("b", "x", [(1, 91)])])
    )
    assert re.findall(r'text-anchor="end">([\d.]+)<', chart) == ["90", "91", "92", "93", "94"]
    assert chart.count("<circle") == 3
    assert '<li class="challenger">a</li>' in chart
    flat = str(line_chart("t", "s", "chunk", [Line("a", "cost", [(1, 0.0)])]))
    assert "nan" not in flat
    whole = str(line_chart("t", "%", "chunk", [Line("a", "champion", [(1, 100.0), (2, 100.0)])]))
    assert re.findall(r'text-anchor="end">([\d.]+)<', whole)[-1] == "100.0"
    assert line_chart("t", "s", "chunk", []) == ""
    assert "nan" not in interval_picture(0.0, 0.0, 0.0, 0.01)


@pytest.mark.slow
@pytest.mark.skipif(find_chromium() is None, reason="no Chromium or Chrome on the PATH")
def test_the_page_is_quiet_fits_a_phone_and_asks_for_nothing(tmp_path):
    file = tmp_path / "index.html"
    file.write_text(stream_html(stream()), encoding="utf-8")
    with running_chromium() as browser:
        for width, phone in ((1400, False), (390, True)):
            with browser.page(width=width, phone=phone) as page:
                page.go(file)
                assert page.console == []
                assert [url for url in page.requests if not url.startswith("data:")] == [file.resolve().as_uri()]
                assert page.evaluate("[innerWidth, document.documentElement.scrollWidth]") == [width, width]
