"""The rules of verdicts: exact chances of a look, coverage under looking, and Holm's correction by hand."""

import numpy as np
import pytest
from scipy import stats

from bench.sequential import crossing_probability, streams
from dash_core.views.holm import surviving
from dash_core.views.rules import (
    FIRST_LOOK,
    FIXED_SEEDS,
    GROUP_SEQUENTIAL,
    LAST_LOOK,
    LOOK_P,
    SAFETY,
    PValues,
    chance_of_any_look,
    t_interval,
)


def drawn(count: int, mean: float = 0.0, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(mean, 1, count)


def test_two_looks_cross_as_often_as_simulated():
    """P(p₃ ≤ 0.1 or p₄ ≤ 0.1) by 100,000 streams."""
    streams = np.random.default_rng(0).normal(size=(100_000, 4))
    p = [stats.ttest_1samp(streams[:, :n], 0, axis=1, alternative="greater").pvalue for n in (3, 4)]
    assert crossing_probability(0.1, 3, 4) == pytest.approx(np.mean(np.minimum(*p) <= 0.1), abs=0.003)
    assert crossing_probability(0.1, 3, 3) == 0.1


@pytest.mark.slow
@pytest.mark.parametrize("p", [1e-6, 3e-4, LOOK_P, 0.07])
def test_the_table_of_chances_is_the_exact_calculation(p):
    assert chance_of_any_look(p) == pytest.approx(SAFETY * crossing_probability(p, FIRST_LOOK, LAST_LOOK), rel=0.01)


def test_a_look_s_level_leaves_the_chance_of_any_look_at_a_fortieth():
    assert chance_of_any_look(LOOK_P) == pytest.approx(0.025, rel=3e-3)


@pytest.mark.parametrize("effect", [0.0, 0.5, 1.2, 4.0])
def test_the_sequential_interval_contains_the_mean_at_every_look_in_95_percent_of_streams(effect):
    found = streams(effect, 10_000, seed=1)
    assert found.covered >= 0.95
    assert found.wrong <= 0.025


def test_large_effects_are_decided_with_few_seeds():
    assert streams(4.0, 2_000, seed=2).seeds < 5
    assert streams(2.0, 2_000, seed=2).seeds < 7


def test_the_sequential_interval_is_the_common_part_of_those_of_all_looks():
    differences = drawn(6, mean=2.0)
    looks = [t_interval(differences[:n], 1 - 2 * LOOK_P)[1:] for n in range(3, 7)]
    lows, highs = zip(*looks, strict=True)
    assert GROUP_SEQUENTIAL.interval(differences) == (max(lows), min(highs))
    assert GROUP_SEQUENTIAL.interval(differences[:2]) is None


def test_looks_that_contradict_each_other_leave_the_first_ones():
    differences = np.array([1.0, 1.001, 1.002, -400.0, -400.1, *[-400.0] * 25])
    low, high = GROUP_SEQUENTIAL.interval(differences)
    assert low < 1.001 < high


def test_seeds_after_the_last_look_change_nothing():
    differences = drawn(40, mean=0.3)
    assert GROUP_SEQUENTIAL.interval(differences) == GROUP_SEQUENTIAL.interval(differences[:LAST_LOOK])


@pytest.mark.parametrize("rule", [FIXED_SEEDS, GROUP_SEQUENTIAL])
@pytest.mark.parametrize("mean", [-1.5, 0.0, 1.5])
@pytest.mark.parametrize("seed", range(5))
def test_the_interval_leaves_the_bound_out_where_a_p_value_is_below_a_fortieth(rule, mean, seed):
    differences = drawn(7, mean, seed)
    low, high = rule.interval(differences)
    p_values = rule.p_values(differences, 0.0)
    assert (low > 0, high < 0) == (p_values.above < 0.025, p_values.below < 0.025)


def test_a_fixed_number_of_seeds_has_students_p_values():
    differences = drawn(5, 0.5)
    found = FIXED_SEEDS.p_values(differences, 0.2)
    assert found.above == pytest.approx(stats.ttest_1samp(differences, 0.2, alternative="greater").pvalue)
    assert found.below == pytest.approx(stats.ttest_1samp(differences, 0.2, alternative="less").pvalue)


@pytest.mark.parametrize("rule", [FIXED_SEEDS, GROUP_SEQUENTIAL])
def test_equal_or_too_few_differences_have_no_p_value(rule):
    assert rule.p_values(np.ones(5), 0.0) is None
    assert rule.p_values(np.array([1.0, 2.0]), 0.0) is None


# Holm


def claim(above: float, below: float = 1.0) -> PValues:
    return PValues(above, below)


def test_the_smallest_p_value_must_be_below_the_level_over_the_number_of_claims():
    assert surviving([claim(0.012), claim(0.013), claim(0.9)]) == [False, False, False]  # 0.025 / 3 = 0.0083
    assert surviving([claim(0.008), claim(0.012), claim(0.024)]) == [True, True, True]  # 0.0083, 0.0125, 0.025
    assert surviving([claim(0.008), claim(0.026), claim(0.001)]) == [True, False, True]


def test_disagreeing_claims_are_a_family_of_their_own_and_untested_ones_do_not_count():
    assert surviving([claim(0.02), None, claim(0.99, 0.01)]) == [False, False, True]
    assert surviving([claim(0.02), None]) == [True, False]
    assert surviving([]) == []
