"""The tests in pairs: published values, an independent implementation, and the size by enumeration."""

from statistics import NormalDist

import numpy as np
import pytest
from scipy.stats import binom
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

from dash_core.stream.paired import (
    Pairs,
    better_p,
    evidence_of_harm,
    holm,
    not_worse_p,
    tango_interval,
    tango_z,
    worse_p,
)


def test_tangos_example_of_contact_lenses():  # Tango 1998, section 5: 43 pairs right under both, one under one
    assert round(float(tango_z(44, 0, 1, -0.1)), 3) == 1.709
    assert round(not_worse_p(Pairs(44, 0, 1), 0.1), 3) == 0.044


@pytest.mark.parametrize(
    ("pairs", "level", "interval"),
    [
        (Pairs(21, 1, 7), 0.95, (-0.517, -0.026)),  # Fagerland et al. 2014: airway hyper-responsiveness
        (Pairs(618, 28, 25), 0.90, (-0.0148, 0.0247)),  # R: PropCIs::scoreci.mp(25, 28, 618, 0.9)
    ],
)
def test_the_interval_is_the_published_one(pairs, level, interval):
    assert tango_interval(pairs, level) == pytest.approx(interval, abs=5e-4)


@pytest.mark.parametrize("pairs", [Pairs(100, 12, 5), Pairs(359, 0, 3), Pairs(50, 0, 0), Pairs(2000, 90, 140)])
def test_the_interval_holds_exactly_what_the_test_does_not_reject(pairs):
    low, high = tango_interval(pairs)
    scores = tango_z(pairs.n, pairs.b, pairs.c, low), tango_z(pairs.n, pairs.b, pairs.c, high)
    assert [float(score) for score in scores] == pytest.approx([1.959964, -1.959964], abs=1e-4)
    mirrored = tango_interval(Pairs(pairs.n, pairs.c, pairs.b))
    assert (-mirrored[1], -mirrored[0]) == pytest.approx((low, high), abs=1e-8)


def test_models_that_differ_on_every_image_have_an_interval_up_to_one():
    assert tango_interval(Pairs(10, 10, 0))[1] == 1.0
    assert tango_interval(Pairs(10, 0, 10))[0] == -1.0


def test_at_no_difference_the_score_is_mcnemars():
    for b, c in ((3, 9), (40, 20), (1, 0)):
        assert float(tango_z(200, b, c, 0.0)) == pytest.approx((b - c) / np.sqrt(b + c))
    assert float(tango_z(200, 0, 0, 0.0)) == 0.0


@pytest.mark.parametrize(("b", "c"), [(10, 2), (2, 10), (0, 4), (7, 7), (0, 0)])
def test_mcnemar_is_the_exact_one(b, c):
    two_sided = mcnemar([[5, b], [c, 5]], exact=True).pvalue if b + c else 1.0
    assert min(1.0, 2 * min(better_p(b, c), worse_p(b, c))) == pytest.approx(two_sided)
    assert better_p(b, c) == worse_p(c, b)


def test_holm_is_that_of_statsmodels():
    generator = np.random.default_rng(0)
    for _ in range(4):  # each call of statsmodels collects garbage first
        p_values = generator.beta(0.3, 3, size=20)
        assert holm(p_values, 0.05) == multipletests(p_values, 0.05, method="holm")[0].tolist()
    assert holm([], 0.05) == []


def size(n: int, margin: float, disagreement: float, level: float) -> float:
    """P(the test passes) if the new model is worse by exactly the margin: a sum over all (b, c)."""
    p_loss, p_win = (disagreement + margin) / 2, (disagreement - margin) / 2
    c = np.arange(int(binom.ppf(1 - 1e-12, n, p_loss)) + 1)[:, None]
    b = np.arange(int(binom.ppf(1 - 1e-12, n, p_win)) + 1 if p_win > 0 else 1)[None, :]
    within = (b + c) <= n
    chance = binom.pmf(c, n, p_loss) * binom.pmf(b, np.maximum(n - c, 0), p_win / (1 - p_loss)) * within
    quantile = -NormalDist().inv_cdf(level)
    return float(chance[(tango_z(n, b, c, -margin) >= quantile) & within].sum())


GRID = [
    (n, margin, disagreement, level)
    for n in (359, 1000, 2000, 5000)
    for margin in (0.005, 0.01, 0.02, 0.05)
    for disagreement in (margin, 0.06, 0.1, 0.3)
    for level in (0.05, 1e-3, 2e-4)
    if n * margin >= 5
]


@pytest.mark.parametrize("case", GRID[::9])
def test_the_test_has_its_level(case):
    assert size(*case) <= 1.05 * case[-1]


@pytest.mark.slow
def test_the_test_has_its_level_wherever_five_losses_are_expected():
    assert [case for case in GRID if size(*case) > 1.05 * case[-1]] == []


def test_evidence_of_harm_needs_nine_losses_without_a_win():
    assert evidence_of_harm(0, 8) < 100 <= evidence_of_harm(0, 9)
    assert evidence_of_harm(0, 0) == pytest.approx(1.0)
    assert evidence_of_harm(500, 500) < 1 < evidence_of_harm(400, 600)
    assert evidence_of_harm(0, 5000) > 1e100


def test_a_model_that_is_as_good_rarely_ever_looks_harmful():
    generator = np.random.default_rng(1)
    losses = np.cumsum(generator.integers(0, 2, size=(2000, 200)), axis=1)
    seen = np.arange(1, 201)
    ever = {(int(c), int(n)) for c, n in zip(losses.ravel(), np.tile(seen, 2000), strict=True) if 2 * c > n + 4}
    harmful = {pair for pair in ever if evidence_of_harm(pair[1] - pair[0], pair[0]) >= 100}
    alarms = [any((int(c), int(n)) in harmful for c, n in zip(row, seen, strict=True)) for row in losses]
    assert sum(alarms) <= 33  # 1 % of 2,000, and three standard errors
