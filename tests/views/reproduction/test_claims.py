"""Claims on records made by hand: the verdict and the numbers are those of a calculation by hand."""

from dataclasses import replace

import pytest
from scipy import stats

from dash_core.views.reproduction.claims import Above, Claim, Near, Verdict, counted, find
from dash_core.views.reproduction.items_dynamics import _previous
from dash_core.views.reproduction.items_pretraining import _harmless
from dash_core.views.reproduction.orderings import ordered, printed
from dash_core.views.reproduction.outcome import JudgedOutcome
from dash_core.views.reproduction.reading import LAST_ACCURACY, LAST_STEPS, correlation, gap, measured
from dash_core.views.rules import GROUP_SEQUENTIAL
from tests.views.reproduction.made import measured as made
from tests.views.reproduction.made import record, runs

COLD, WARM = (measured(label, LAST_ACCURACY, "a") for label in ("cold", "warm"))


def outcome(cold, warm):
    return {"a": made(runs("cold", cold), runs("warm", warm))}


def verdict(cold, warm, margin=0.0) -> Verdict:
    return Above(COLD, WARM, margin).verdict(outcome(cold, warm))


def test_a_difference_whose_interval_leaves_out_0_agrees():
    found = verdict((0.71, 0.72, 0.73), (0.70, 0.70, 0.70))  # 1, 2, 3 points: 2 ± 4.303 · 1/√3
    assert found.judgement == "too few seeds"
    found = verdict((0.72, 0.73, 0.74), (0.69, 0.70, 0.70))  # 3, 3, 4 points: 3.33 ± 4.303 · 0.577/√3
    assert (found.judgement, found.seeds) == ("agree", 3)
    assert found.numbers == "cold − warm = +3.33 points, 95 % CI [1.90, 4.77], 3 paired seeds"
    assert found.p_values.above == pytest.approx(stats.t.sf(10, 2))  # t = 3.33 · √3 / 0.577
    assert found.p_values.below == pytest.approx(stats.t.cdf(10, 2))


def test_the_same_the_other_way_round_disagrees():
    assert verdict((0.69, 0.70, 0.70), (0.72, 0.73, 0.74)).judgement == "disagree"


@pytest.mark.parametrize(
    ("cold", "warm"),
    [
        ((0.9,), (0.1,)),  # one seed: no interval
        ((0.9, 0.8), (0.1, 0.1)),  # two pairs
        ((0.75, 0.75, 0.75), (0.70, 0.70, 0.70)),  # equal differences: no width
        ((0.70, 0.71, 0.72), (0.71, 0.70, 0.72)),  # the interval holds 0
        ((), (0.1, 0.2, 0.3)),  # no seed in common
    ],
)
def test_too_few_seeds_cannot_tell(cold, warm):
    assert verdict(cold, warm).judgement == "too few seeds"


def test_a_margin_turns_not_worse_into_a_claim_that_can_agree():
    level = (0.700, 0.701, 0.699), (0.700, 0.700, 0.700)  # 0, 0.1, −0.1 points: 0 ± 0.25
    assert verdict(*level).judgement == "too few seeds"
    assert verdict(*level, margin=1.0).judgement == "agree"
    worse = (0.670, 0.671, 0.669), (0.700, 0.700, 0.700)  # −3 ± 0.25
    assert verdict(*worse, margin=1.0).judgement == "disagree"


def test_seeds_are_paired_by_their_number():
    cold, warm = runs("cold", (0.72, 0.73, 0.74, 0.99)), runs("warm", (0.69, 0.70, 0.70))
    assert Above(COLD, WARM).verdict({"a": made(cold, warm)}).seeds == 3


@pytest.mark.parametrize(
    ("accuracy", "expected"),
    [((0.6683, 0.6732, 0.6781), "agree"), ((0.68, 0.683, 0.686), "agree"), ((0.69, 0.69, 0.70), "disagree")],
)
def test_a_printed_number_is_met_within_two_of_its_deviations(accuracy, expected):
    """67.32 (0.51): up to 68.34, and half a last digit."""
    found = Near(COLD, 67.32, 0.51).verdict({"a": made(runs("cold", accuracy))})
    assert (found.judgement, found.seeds) == (expected, 3)


def test_a_printed_number_needs_three_seeds():
    found = Near(COLD, 67.32, 0.51).verdict({"a": made(runs("cold", (0.6732, 0.6732)))})
    assert found.judgement == "too few seeds"
    assert found.numbers == "cold, Last acc. %: 67.32 (0.00), paper 67.32 (0.51)"


def test_a_number_without_a_deviation_is_met_as_printed():
    steps = measured("warm", LAST_STEPS, "a")
    same, more = ({"a": made(runs("warm", (0.5,) * 3, steps=[n] * 3))} for n in (1173, 1174))
    assert Near(steps, 1173, 0).verdict(same).judgement == "agree"
    assert Near(steps, 1173, 0).verdict(more).judgement == "disagree"


def test_a_claim_agrees_where_every_check_does_and_disagrees_where_any_does():
    high, middle, low = (0.90, 0.91, 0.93), (0.80, 0.80, 0.81), (0.70, 0.71, 0.71)
    labels = ("dash", "cold", "warm")

    def judged(*last):
        methods = [runs(label, accuracies) for label, accuracies in zip(labels, last, strict=True)]
        (finding,) = find(ordered(["a"], labels), {"a": made(*methods)})
        return finding.judgement

    assert judged(high, middle, low) == "agree"
    assert judged(high, low, middle) == "disagree"
    assert judged(high, middle, middle) == "too few seeds"


def test_the_numbers_of_a_mixed_claim_say_what_each_check_found():
    high, low = (0.90, 0.91, 0.93), (0.70, 0.71, 0.71)
    methods = runs("dash", high), runs("cold", low), runs("warm", low)
    (finding,) = find(ordered(["a"], ("dash", "cold", "warm")), {"a": made(*methods)})
    assert finding.numbers.count(": agree") == 1
    assert finding.numbers.count(": too few seeds") == 1
    assert finding.seeds == 3


def test_a_gap_is_a_difference_of_differences_seed_by_seed():
    plain = outcome((0.72, 0.73, 0.74), (0.70, 0.71, 0.71))["a"]  # 2, 2, 3
    hard = outcome((0.50, 0.53, 0.55), (0.40, 0.40, 0.41))["a"]  # 10, 13, 14
    gaps = [gap(measured("cold", LAST_ACCURACY, k), measured("warm", LAST_ACCURACY, k), k) for k in ("hard", "plain")]
    assert [round(v) for v in gaps[0].values({"hard": hard}).values()] == [10, 13, 14]
    assert Above(*gaps).verdict({"hard": hard, "plain": plain}).judgement == "agree"  # 8, 11, 11


def test_a_correlation_is_read_seed_by_seed_where_both_vary():
    def run(norms, steps):
        pairs = enumerate(zip(norms, steps, strict=True), start=1)
        return [record(j, 0.5, s, {} if norm is None else {"norm": norm}) for j, (norm, s) in pairs]

    cold = runs("cold", (0.5, 0.5, 0.5))
    by_seed = {
        0: run((1.0, 2.0, 3.0, None), (10, 20, 30, 5)),  # r = 1; what was not measured is left out
        1: run((1.0, 2.0, 3.0, 4.0), (40, 30, 20, 10)),  # r = −1
        2: run((1.0, 1.0, 1.0, 1.0), (10, 20, 30, 40)),  # nothing varies: no r
    }
    found = correlation("a", ["cold"], lambda r: r.diagnostics.get("norm"), lambda r: r.steps, "r")
    values = found.values({"a": made(type(cold)("cold", "cold", by_seed))})
    assert {seed: round(r, 9) for seed, r in values.items()} == {0: 1.0, 1: -1.0}


def test_verdicts_are_counted():
    claims = [Claim("cold is above warm", [Above(COLD, WARM)]), Claim("warm is above cold", [Above(WARM, COLD)])]
    found = find(claims, outcome((0.72, 0.73, 0.74), (0.69, 0.70, 0.70)))
    assert counted(found) == {"agree": 1, "disagree": 1, "too few seeds": 0}


def test_the_printed_numbers_become_a_claim_each():
    (claim,) = printed("cifar10", {("cold", "last_accuracy"): (67.32, 0.51)})
    assert claim.text == "cifar10: cold, Last acc. %: 67.32 (0.51)"


def test_an_experiment_that_has_ended_counts_with_its_last_accuracy_on_the_previous_data():
    def kept(*values):
        return {f"previous_accuracy/epoch_{epoch}": value for epoch, value in enumerate(values)}

    records = [
        record(1, 0.5),
        record(2, 0.5, diagnostics=kept(0.1, 0.9)),
        record(3, 0.5, diagnostics=kept(0.3, 0.4, 0.5)),
    ]
    assert [_previous(epoch).measure(records) for epoch in range(3)] == pytest.approx([0.2, 0.65, 0.7])


def test_a_seed_without_a_longer_harmless_pre_training_says_nothing_of_it():
    def pretrained(*shares):
        warm = runs("warm", [0.6] * len(shares))
        for seed, share in enumerate(shares):
            warm.runs[seed][0] = replace(warm.runs[seed][0], train_accuracy=share)
        return made(warm)

    outcome = {"m, p=1": pretrained(0.2, 0.2), "m, p=4": pretrained(0.4, 0.7), "m, p=16": pretrained(0.9, 0.9)}
    (check,) = _harmless(list(outcome))[0].checks
    assert set(check.left.values(outcome)) == {0}


def test_a_verdict_in_a_view_is_by_the_rule_of_the_outcome():
    found = outcome((0.72, 0.73, 0.74), (0.69, 0.70, 0.70))
    assert Above(COLD, WARM).verdict(found).judgement == "agree"
    judged = JudgedOutcome(found, GROUP_SEQUENTIAL)  # 3.33 ± 13.3 · 0.577/√3 = 3.33 ± 4.43
    verdict = Above(COLD, WARM).verdict(judged)
    assert verdict.judgement == "too few seeds"
    assert "95 % sequential CI [−1.1" in verdict.numbers


def test_a_claim_of_several_checks_has_the_p_values_of_all_or_any():
    """False if any check is false: the largest. True if every check is true: the smallest, times their number."""
    high, middle, low = (0.90, 0.91, 0.93), (0.80, 0.80, 0.81), (0.70, 0.71, 0.71)
    methods = [runs(label, last) for label, last in zip(("dash", "cold", "warm"), (high, low, middle), strict=True)]
    (finding,) = find(ordered(["a"], ("dash", "cold", "warm")), {"a": made(*methods)})
    dash, cold = (verdict.p_values for verdict in finding.verdicts)
    assert dash.above < 0.025 < cold.above
    assert finding.p_values.above == cold.above
    assert finding.p_values.below == 2 * cold.below


def test_a_number_that_the_paper_prints_has_no_p_value():
    (finding,) = find(printed("a", {("cold", "last_accuracy"): (67.32, 0.51)}), outcome((0.6, 0.7, 0.8), (0.1,)))
    assert finding.p_values is None
