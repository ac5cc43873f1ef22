"""The order of runs and the seeds that are added: by hand on few runs."""

import pytest

from dash_core.views.reproduction import ITEMS
from dash_core.views.reproduction.planning import by_claims_decided, more_seeds, needed

every_item = pytest.mark.parametrize("name", ITEMS)


def test_runs_that_decide_most_claims_for_their_time_come_first():
    seconds = {"slow": 100.0, "cold": 10.0, "warm": 4.0, "dash": 12.0, "unread": 1.0}
    claims = [["slow", "cold"], ["cold", "warm"], ["cold", "dash"], ["warm", "cold"]]
    # cold and warm complete two claims in 14 s; then dash one in 12 s, slow one in 100 s
    assert by_claims_decided(claims, seconds) == ["cold", "warm", "dash", "slow", "unread"]


def test_a_claim_that_needs_only_complete_runs_does_not_count():
    assert by_claims_decided([["complete"], ["b"]], {"a": 1.0, "b": 5.0}) == ["b", "a"]
    assert by_claims_decided([], {"a": 1.0, "b": 5.0}) == ["a", "b"]


def test_claims_inside_a_larger_one_are_counted_with_it():
    seconds = dict.fromkeys("abcd", 1.0)
    claims = [["a", "b", "c"], ["a", "b"], ["b", "c"], ["a", "c"], ["d"]]
    # a, b, c: four claims in 3 s, more a second than a pair (1 in 2 s) or d (1 in 1 s)
    assert by_claims_decided(claims, seconds) == ["a", "b", "c", "d"]


@every_item
def test_every_claim_tells_which_runs_it_compares(name):
    item = ITEMS[name]
    settings = item.scales["small"].params()
    for claim in item.claims_at("small"):
        runs = needed(claim, settings)
        assert runs
        assert all(label in settings[key].compare.methods or item.simulated for key, label in runs)


def test_only_the_methods_that_are_compared_are_needed():
    item = ITEMS["figure-7"]
    settings = item.scales["small"].params()
    key = next(iter(settings))
    grows, more = item.claims_at("small")
    assert needed(grows, settings) == {(key, "cold")}
    assert needed(more, settings) == {(key, "cold"), (key, "warm")}


@pytest.mark.parametrize(
    ("seeds", "count", "most", "expected"),
    [
        ([0, 1, 2], 1, 20, [0, 1, 2, 3]),
        ([7, 3], 2, 20, [7, 3, 8, 9]),
        ([0, 1, 2], 4, 5, [0, 1, 2, 3, 4]),
        ([0, 1, 2], 1, 3, [0, 1, 2]),
        ([0, 1, 2, 3], 1, 3, [0, 1, 2, 3]),
    ],
)
def test_seeds_are_added_after_the_largest_up_to_the_limit(seeds, count, most, expected):
    assert more_seeds(seeds, count, most) == expected
