"""The items of our own: what their pages answer, from outcomes made by hand."""

import pytest

from dash_core.comparison import Params
from dash_core.config import parse
from dash_core.views.reproduction import ITEMS
from dash_core.views.reproduction.items_controls import ARMS
from dash_core.views.reproduction.outcome import Measured
from dash_core.views.reproduction.page import item_html
from dash_core.views.rules import FIXED_SEEDS
from tests.views.reproduction.made import MACHINE, measured, reproduced, runs

NOISE = (0.001, -0.002, 0.0015, -0.0005, 0.0)


def outcome(**accuracies: float):
    """Return five seeds of each arm around these last accuracies; the noise differs from arm to arm."""
    shifted = {label: [a + NOISE[(i + n) % 5] for n in range(5)] for i, (label, a) in enumerate(accuracies.items())}
    return {"cifar10": measured(*(runs(label, last) for label, last in shifted.items()))}


LIKE_DASH = dict.fromkeys(ARMS, 0.42) | {"warm": 0.3}


@pytest.mark.parametrize(
    ("changed", "answer"),
    [
        ({}, "It is the shrinking"),
        ({"dash_permuted": 0.36, "dash_permuted_in_filter": 0.36}, "It is the shrinking"),
        ({"dash_norms": 0.33, "dash_permuted": 0.36, "dash_permuted_in_filter": 0.36}, "The direction matters"),
        ({"dash_norms": 0.33}, "It is a change of direction, but any would do"),
        ({"dash_norms": 0.33, "dash_direction": 0.29}, "Not decided by the rule"),
        ({"dash_norms": 0.33, "dash_permuted": 0.36}, "Not decided by the rule"),
        ({"dash": 0.3}, "Not decided: DASH is not above warm"),
    ],
)
def test_the_plain_answer_follows_the_rule_that_was_written_down(changed, answer):
    made = outcome(**{**LIKE_DASH, **changed})
    given = ITEMS["direction"].answer(made, FIXED_SEEDS)
    assert given.startswith(answer)
    assert "dash − warm = " in given


def test_the_claims_of_direction_agree_where_only_directions_help():
    made = outcome(**{**LIKE_DASH, "dash_norms": 0.3, "dash_permuted": 0.33, "dash_permuted_in_filter": 0.33})
    found = [
        [check.verdict(made).judgement for check in claim.checks] for claim in ITEMS["direction"].claims(["cifar10"])
    ]
    assert found == [["agree"], ["agree", "agree"], ["disagree"], ["agree"], ["agree"]]


def grown(few: float, many: float):
    """Return cold at 0.5 and warm with 2 and with 50 chunks."""
    warm = {2: few, 50: many}
    made = {}
    for chunks, accuracy in warm.items():
        methods = [runs("warm", [accuracy + n for n in NOISE])]
        methods += [runs("cold", [0.5 - n for n in NOISE])] if chunks == 2 else []
        made[f"{chunks} chunks"] = Measured(parse(Params, {"chunks": chunks}), methods, [MACHINE])
    shifted = [accuracy + NOISE[n - 1] for n in range(5) for accuracy in [many]]
    made["50 chunks"] = Measured(parse(Params, {"chunks": 50}), [runs("warm", shifted)], [MACHINE])
    return made


@pytest.mark.parametrize(
    ("few", "many", "answer"),
    [(0.4, 0.45, "The gap shrinks"), (0.45, 0.4, "The gap grows"), (0.4, 0.4, "Whether the gap depends")],
)
def test_growth_says_whether_the_gap_depends_on_it(few, many, answer):
    made = grown(few, many)
    assert ITEMS["growth"].answer(made, FIXED_SEEDS).startswith(answer)
    (table,) = ITEMS["growth"].view(made).tables
    assert [row[0].text for row in table.rows] == ["2", "50"]
    assert [row[1].text for row in table.rows] == ["100 %", "2 %"]
    assert table.rows[0][2].text.startswith(f"{100 * (0.5 - few):.2f}")


def test_the_page_begins_with_the_answer():
    made = reproduced(ITEMS["direction"], "smoke")
    assert "Not decided: DASH is not above warm here." in item_html(made)


def test_no_two_bars_of_the_directions_figure_look_alike():
    (drawing, *_) = reproduced(ITEMS["direction"], "smoke").view.drawings
    looks = [(bar.marker.color, bar.marker.pattern.shape) for bar in drawing.figure.data]
    assert len(set(looks)) == len(looks) == len(ARMS)
