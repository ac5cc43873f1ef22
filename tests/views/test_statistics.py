"""Statistics over paired seeds: by hand on few numbers, by coverage on many, and in the words they are written in."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from dash_core.cost import Cost
from dash_core.records import ChunkRecord
from dash_core.spread import Spread
from dash_core.views.statistics import (
    PairedDifference,
    paired_differences,
    reach,
    reference_of,
    seed_warnings,
    t_interval,
)
from dash_core.views.summary import BY_KEY, COLUMNS, MethodRuns

ACCURACY, STEPS = BY_KEY["last_accuracy"], BY_KEY["last_steps"]
REPLICATIONS = 20_000


def records(*accuracies: float, steps: int = 10, teraflops: int = 2, seconds: float = 1.0) -> list[ChunkRecord]:
    """A run of one experiment an accuracy, each with the given cost, half of it spent on the intervention."""
    half = Cost(seconds / 2, teraflops * 10**12 // 2, 1000)
    costs = {"intervene": half, "train": half}
    return [
        ChunkRecord(chunk, chunk, accuracy, 1.0, (), 1.0, 0.0, steps, 1, True, costs)
        for chunk, accuracy in enumerate(accuracies, start=1)
    ]


def method(label: str, runs: dict[int, list[ChunkRecord]], intervention: str | None = None) -> MethodRuns:
    return MethodRuns(label, intervention or label, runs)


def with_accuracies(label: str, *accuracies: float) -> MethodRuns:
    return method(label, {seed: records(accuracy) for seed, accuracy in enumerate(accuracies)})


def with_steps(label: str, *steps: int) -> MethodRuns:
    return method(label, {seed: records(0.5, steps=n) for seed, n in enumerate(steps)})


def with_seeds(label: str, *seeds: int) -> MethodRuns:
    return method(label, {seed: records(0.5) for seed in seeds})


def difference(ours: MethodRuns, reference: MethodRuns, column=ACCURACY, level: float = 0.95) -> PairedDifference:
    (made,) = paired_differences([ours], reference, [column], level)
    return made


def interval(made: PairedDifference) -> tuple[float, ...]:
    return made.mean, made.low, made.high


# differences from the reference


def test_three_seeds_by_hand():
    made = difference(with_accuracies("dash", 0.51, 0.62, 0.73), with_accuracies("cold", 0.5, 0.6, 0.7))
    half = 4.3027 * 1 / 3**0.5  # differences 1, 2, 3 points: s = 1, t(2 degrees of freedom, 0.975) = 4.3027
    assert interval(made) == pytest.approx((2, 2 - half, 2 + half), abs=1e-4)
    assert (made.label, made.reference, made.seeds, made.level) == ("dash", "cold", (0, 1, 2), 0.95)


@pytest.mark.parametrize("level", [0.8, 0.95, 0.99])
@pytest.mark.parametrize("count", [2, 3, 10, 100])
def test_the_interval_is_that_of_scipys_paired_t_test(count, level):
    a, b = np.random.default_rng(count).normal(size=(2, count))
    expected = stats.ttest_rel(a, b).confidence_interval(level)
    assert t_interval(a - b, level) == pytest.approx(((a - b).mean(), expected.low, expected.high))


@pytest.mark.parametrize("key", [column.key for column in COLUMNS])
def test_every_column_is_compared_in_its_printed_unit(key):
    cold = method("cold", {seed: records(0.5, 0.5) for seed in (0, 1)})
    dash = method("dash", {seed: records(0.6, 0.8, steps=7, teraflops=4, seconds=5.0) for seed in (0, 1)})
    expected = {
        "last_accuracy": 30,
        "average_accuracy": 20,
        "last_steps": -3,
        "average_steps": -3,
        "teraflops": 4,  # over two experiments
        "seconds": 8,
    }
    assert difference(dash, cold, BY_KEY[key]).mean == pytest.approx(expected[key])


def test_each_method_is_compared_in_each_column_in_the_given_order_and_the_reference_with_nobody():
    cold, dash, warm = (with_seeds(label, 0, 1) for label in ("cold", "dash", "warm"))
    made = paired_differences([dash, cold, warm], cold, [STEPS, ACCURACY])
    assert [(d.label, d.column.key) for d in made] == [
        ("dash", "last_steps"),
        ("dash", "last_accuracy"),
        ("warm", "last_steps"),
        ("warm", "last_accuracy"),
    ]


def test_only_seeds_that_both_have_are_compared():
    dash = method("dash", {7: records(0.9), 2: records(0.6), 0: records(0.6)})
    cold = method("cold", {0: records(0.5), 2: records(0.4), 5: records(0.0)})
    made = difference(dash, cold)
    assert (made.seeds, made.mean) == ((0, 2), pytest.approx(15))


def test_one_common_seed_has_a_difference_without_an_interval():
    made = difference(with_accuracies("dash", 0.7), with_accuracies("cold", 0.5, 0.6))
    assert (made.seeds, *interval(made)) == ((0,), pytest.approx(20), None, None)


def test_a_method_without_a_common_seed_is_left_out():
    assert paired_differences([with_seeds("dash", 1), with_seeds("warm")], with_seeds("cold", 0)) == []


def test_equal_differences_have_an_interval_without_width_though_floats_differ():
    ours, cold = (0.57, 0.3, 0.91), (0.47, 0.2, 0.81)
    assert len({a * 100 - b * 100 for a, b in zip(ours, cold, strict=True)}) > 1
    made = difference(with_accuracies("dash", *ours), with_accuracies("cold", *cold))
    assert interval(made) == (10, 10, 10)


@pytest.mark.parametrize(
    ("differences", "clear"),
    [
        ((10, 11, 12), True),
        ((-10, -11, -12), True),
        ((1, 2, 3), False),  # 0 is within
        ((10, 11), False),  # two seeds
        ((1000, 1001), False),
        ((10,), False),
        ((10, 10, 10), False),  # no spread to judge by
        ((0, 0, 0), False),
    ],
)
def test_a_difference_is_clear_if_three_seeds_with_a_spread_exclude_zero(differences, clear):
    cold = with_steps("cold", *(5000 for _ in differences))
    assert difference(with_steps("dash", *(5000 + d for d in differences)), cold, STEPS).clear is clear


@pytest.mark.parametrize("count", [3, 5, 10])
def test_the_interval_covers_the_truth_as_often_as_it_says_whatever_a_seed_does_to_both(count):
    draw = np.random.default_rng(count)
    seed_effect = draw.normal(scale=5, size=(REPLICATIONS, count))
    cold = 70 + seed_effect + draw.normal(scale=0.5, size=seed_effect.shape)
    dash = 71.5 + seed_effect + draw.normal(scale=0.8, size=seed_effect.shape)
    _, low, high = t_interval(dash - cold)
    covered = np.mean((low <= 1.5) & (high >= 1.5))
    assert covered == pytest.approx(0.95, abs=3 * (0.95 * 0.05 / REPLICATIONS) ** 0.5)


def test_the_quantile_of_the_normal_distribution_would_cover_too_seldom_with_three_seeds():
    drawn = np.random.default_rng(3).normal(size=(REPLICATIONS, 3))
    _, low, high = t_interval(drawn)
    wider = stats.t.ppf(0.975, 2) / stats.norm.ppf(0.975)
    covered = np.mean(np.abs(low + high) / 2 <= (high - low) / 2 / wider)
    assert covered == pytest.approx(0.81, abs=0.02)


def test_pairing_takes_out_what_a_seed_does_to_both():
    draw = np.random.default_rng(0)
    seed_effect = 70 + draw.normal(scale=5, size=5)
    cold, dash = (seed_effect + effect + draw.normal(scale=0.3, size=5) for effect in (0, 1.5))
    made = difference(with_accuracies("dash", *dash / 100), with_accuracies("cold", *cold / 100))
    unpaired = stats.ttest_ind(dash, cold, equal_var=False).confidence_interval()
    assert made.high - made.low < (unpaired.high - unpaired.low) / 5
    assert made.clear
    assert unpaired.low < 0 < unpaired.high


steps = st.integers(0, 10**6)
pairs = st.lists(st.tuples(steps, steps), min_size=2, max_size=6)


def two(values: list[tuple[int, int]]) -> tuple[MethodRuns, MethodRuns]:
    ours, theirs = zip(*values, strict=True)
    return with_steps("dash", *ours), with_steps("cold", *theirs)


@settings(max_examples=20)
@given(pairs)
def test_exchanging_method_and_reference_changes_the_sign(values):
    dash, cold = two(values)
    mean, low, high = interval(difference(dash, cold, STEPS))
    assert interval(difference(cold, dash, STEPS)) == (-mean, -high, -low)


@settings(max_examples=20)
@given(pairs, steps)
def test_what_is_added_to_both_changes_nothing(values, added):
    moved = [(ours + added, theirs + added) for ours, theirs in values]
    assert interval(difference(*two(moved), STEPS)) == interval(difference(*two(values), STEPS))


@settings(max_examples=20)
@given(pairs)
def test_a_higher_level_has_an_interval_around_that_of_a_lower_one_around_the_mean(values):
    narrow, wide = (difference(*two(values), STEPS, level) for level in (0.5, 0.99))
    assert wide.low <= narrow.low <= narrow.mean <= narrow.high <= wide.high


@settings(max_examples=20)
@given(pairs)
def test_the_order_of_seeds_changes_nothing(values):
    dash, cold = two(values)
    backwards = dict(reversed(dash.runs.items()))
    assert difference(replace(dash, runs=backwards), cold, STEPS) == difference(dash, cold, STEPS)


@pytest.mark.parametrize("level", [0, 1, 95])
def test_a_level_that_is_no_probability_is_refused(level):
    with pytest.raises(ValueError, match=rf"level must be in \(0, 1\), got {level}: 0.95 is usual"):
        paired_differences([with_seeds("dash", 0, 1)], with_seeds("cold", 0, 1), level=level)


def test_an_interval_of_one_difference_is_refused():
    with pytest.raises(ValueError, match="at least 2 differences, got 1: run more seeds"):
        t_interval(np.array([1.0]))


def test_the_reference_is_the_cold_method_under_any_label():
    scratch = MethodRuns("scratch", "cold", {})
    assert reference_of([MethodRuns("cold", "dash", {}), scratch]) is scratch
    assert reference_of([MethodRuns("cold", "dash", {})]) is None


def written(mean, low=None, high=None, key="last_accuracy", seeds=5, level=0.95) -> str:
    return PairedDifference("DASH", "cold", BY_KEY[key], tuple(range(seeds)), mean, low, high, level).write()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (written(1.2, 0.4, 2.0), "DASH − cold = +1.20 points, 95 % CI [0.40, 2.00], 5 paired seeds"),
        (written(-1.2, -2.0, -0.4), "DASH − cold = −1.20 points, 95 % CI [−2.00, −0.40], 5 paired seeds"),
        (written(-0.001, -1, 1), "DASH − cold = +0.00 points, 95 % CI [−1.00, 1.00], 5 paired seeds"),
        (
            written(-12345.6, -20000, -4691.2, "average_steps", 3, 0.99),
            "DASH − cold = −12,346 steps, 99 % CI [−20,000, −4,691], 3 paired seeds",
        ),
        (
            written(0.5, 0.25, 0.75, "teraflops", level=0.999),
            "DASH − cold = +0.500 TFLOPs, 99.9 % CI [0.250, 0.750], 5 paired seeds",
        ),
        (written(2, 1, 3, "seconds"), "DASH − cold = +2.0 s, 95 % CI [1.0, 3.0], 5 paired seeds"),
        (written(-24, key="last_steps", seeds=1), "DASH − cold = −24 steps, 1 paired seed: no interval"),
        (
            written(24, 24, 24, "last_steps"),
            "DASH − cold = +24 steps in each of 5 paired seeds: without a spread the interval has no width",
        ),
    ],
)
def test_a_difference_in_words(text, words):
    assert text == words


def test_hyphens_of_labels_stay_hyphens():
    made = difference(with_accuracies("dash-0.1", 0.5), with_accuracies("cold-a", 0.6))
    assert made.write() == "dash-0.1 − cold-a = −10.00 points, 1 paired seed: no interval"


def test_a_column_of_ones_own_has_its_title_for_a_unit():
    epochs = replace(STEPS, key="epochs", title="epochs", measure=lambda r: r[-1].epochs)
    made = difference(with_seeds("dash", 0), with_seeds("cold", 0), epochs)
    assert made.write() == "dash − cold = +0 epochs, 1 paired seed: no interval"


# reaching the reference's accuracy

COLD = method("cold", {0: records(0.6, 0.7, 0.8), 1: records(0.8, 0.7, 0.7), 2: records(0.5, 0.6, 0.9)})
DASH = method(
    "dash",
    {
        0: records(0.7, 0.8, 0.9, steps=4, teraflops=8, seconds=0.5),  # equals 0.8 at experiment 2
        1: records(0.75, 0.6, 0.6, steps=6, teraflops=2, seconds=2.0),  # above 0.7 at experiment 1, not later
        2: records(0.8, 0.8, 0.89, steps=99),  # never reaches 0.9
    },
)


def test_the_reference_is_reached_at_the_first_experiment_that_is_as_good_as_its_last():
    (made,) = reach([DASH], COLD)
    assert (made.label, made.reference, made.seeds, made.reached) == ("dash", "cold", (0, 1, 2), (0, 1))
    assert made.experiment == Spread(1.5, 0.5)  # 2 and 1


def test_reaching_costs_all_experiments_and_phases_until_then():
    (made,) = reach([DASH], COLD)
    assert made.steps == Spread(7, 1)  # 2 · 4 and 6
    assert made.teraflops == Spread(9, 7)  # 2 · 8 and 2
    assert made.seconds == Spread(1.5, 0.5)  # 2 · 0.5 and 2


def test_the_cost_is_held_against_the_references_whole_run_on_the_seeds_that_reached():
    longer = replace(COLD, runs=COLD.runs | {2: records(0.5, 0.6, 0.9, steps=10**6, teraflops=10**6, seconds=1e6)})
    (made,) = reach([DASH], longer)
    assert (made.reference_steps, made.reference_teraflops, made.reference_seconds) == (
        Spread(30, 0),
        Spread(6, 0),
        Spread(3, 0),
    )


def test_the_reference_reaches_its_own_last_accuracy_once_it_is_as_good_for_the_first_time():
    dash, cold = reach([DASH, COLD], COLD)
    assert (dash.label, cold.label, cold.reached) == ("dash", "cold", (0, 1, 2))
    assert cold.experiment.mean == pytest.approx((3 + 1 + 3) / 3)


def test_what_nobody_reaches_has_no_cost():
    (made,) = reach([with_accuracies("warm", 0.4, 0.4)], with_accuracies("cold", 0.5, 0.5))
    assert (made.reached, made.experiment, made.steps, made.teraflops, made.seconds) == ((), None, None, None, None)
    assert (made.reference_steps, made.reference_teraflops, made.reference_seconds) == (None, None, None)


def test_seeds_that_only_one_has_do_not_reach_or_miss_anything():
    made = reach([with_seeds("dash", 1, 4), with_seeds("warm", 4)], with_seeds("cold", 0, 1))
    assert [(r.label, r.seeds, r.reached) for r in made] == [("dash", (1,), (1,))]


def test_a_reach_in_words():
    dash, cold = reach([DASH, COLD], COLD)
    assert dash.write() == (
        "dash to cold's last accuracy: experiment 1.5, 7 steps (0.23× of cold's whole run), "
        "9.000 TFLOPs (1.50×), 1.5 s (0.50×); mean of 2 seeds, not reached by 1 of 3 seeds"
    )
    assert cold.write() == (
        "cold to its own last accuracy: experiment 2.3, 23 steps (0.78× of cold's whole run), "
        "4.667 TFLOPs (0.78×), 2.3 s (0.78×); mean of 3 seeds"
    )


def test_a_reach_in_words_sets_thousands_apart_and_takes_no_mean_of_one_seed():
    dash = method("DASH", {0: records(0.9, steps=12340, teraflops=1234, seconds=1234.5)})
    (made,) = reach([dash], method("cold", {0: records(0.9, steps=30000, teraflops=1234, seconds=617.25)}))
    assert made.write() == (
        "DASH to cold's last accuracy: experiment 1.0, 12,340 steps (0.41× of cold's whole run), "
        "1,234.000 TFLOPs (1.00×), 1,234.5 s (2.00×); 1 seed"
    )


def test_what_nobody_reaches_in_words():
    (made,) = reach([with_accuracies("warm", 0.4, 0.4)], with_accuracies("cold", 0.5, 0.5))
    assert made.write() == "warm to cold's last accuracy: not reached by 2 of 2 seeds"


def test_there_is_no_ratio_to_a_cost_of_nothing():
    free = method("cold", {0: records(0.5, teraflops=0, seconds=0.0)})
    (made,) = reach([with_seeds("dash", 0)], free)
    assert made.write().endswith("10 steps (1.00× of cold's whole run), 2.000 TFLOPs, 1.0 s; 1 seed")


# what to doubt


def test_five_paired_seeds_of_one_method_leave_nothing_to_doubt():
    assert seed_warnings([with_seeds("cold", *range(5)), with_seeds("dash", *range(5))], planned=5) == []


def test_one_seed_gives_no_spread():
    assert seed_warnings([with_seeds("cold", 0), with_seeds("dash", 0)], planned=1) == [
        "With 1 seed no spread can be given (cold, dash): run at least 5 before you conclude."
    ]


@pytest.mark.parametrize("count", [2, 3, 4])
def test_few_seeds_have_intervals_to_be_doubted(count):
    seeds = range(count)
    assert seed_warnings([with_seeds("cold", *seeds), with_seeds("dash", *seeds)], planned=count) == [
        f"With {count} paired seeds the intervals are wide and lean on the assumption of normal differences (dash): "
        "run at least 5 before you conclude."
    ]


def test_seeds_that_are_missing_are_named_with_what_that_does_to_the_comparison():
    assert seed_warnings([with_seeds("cold", 0, 1, 2, 3, 4), with_seeds("dash", 1, 4)], planned=5) == [
        "dash has 2 of 5 seeds planned.",
        "dash and cold are compared on the seeds that both have, 1, 4; left out: 0, 2, 3.",
        "With 2 paired seeds the intervals are wide and lean on the assumption of normal differences (dash): "
        "run at least 5 before you conclude.",
    ]


def test_a_method_without_a_common_seed_is_said_not_to_be_compared():
    assert seed_warnings([with_seeds("cold", *range(5)), with_seeds("dash", *range(5, 10))], planned=5) == [
        "dash and cold have no seed in common: they are not compared."
    ]


def test_a_single_pair_among_several_seeds_has_no_interval():
    assert seed_warnings([with_seeds("cold", *range(5)), with_seeds("dash", *range(4, 9))], planned=5) == [
        "dash and cold are compared on the seeds that both have, 4; left out: 0, 1, 2, 3, 5, 6, 7, 8.",
        "With 1 paired seed no interval can be given (dash): run at least 5 before you conclude.",
    ]


def test_a_method_without_a_complete_run_is_only_missing():
    assert seed_warnings([with_seeds("cold", *range(5)), with_seeds("dash")], planned=5) == [
        "dash has 0 of 5 seeds planned."
    ]


def test_several_comparisons_are_said_not_to_be_corrected_for():
    methods = [with_seeds(label, *range(5)) for label in ("warm", "cold", "dash")]
    assert seed_warnings(methods, planned=5) == [
        "Each interval is for one comparison by itself: 2 methods are compared with cold, "
        "and nothing is corrected for several comparisons."
    ]


def test_without_a_reference_only_spreads_are_doubted():
    assert seed_warnings([with_seeds("warm", 0, 1, 2), with_seeds("dash", 0, 1)], planned=3) == [
        "dash has 2 of 3 seeds planned.",
        "With 2 seeds a spread is itself uncertain (dash): run at least 5 before you conclude.",
        "With 3 seeds a spread is itself uncertain (warm): run at least 5 before you conclude.",
    ]
