"""Statistics over seeds, on records small enough to check by hand."""

import pytest

from dash_core.cost import Cost
from dash_core.records import ChunkRecord
from dash_core.spread import Spread
from dash_core.views.summary import BY_KEY, MethodRuns, best, summarise, total_cost


def record(experiment=1, accuracy=0.5, steps=10, converged=True, flops=10**12, seconds=1.0) -> ChunkRecord:
    half = Cost(seconds / 2, flops // 2, 1000)
    return ChunkRecord(
        experiment=experiment,
        images=experiment,
        test_accuracy=accuracy,
        test_loss=1.0,
        class_accuracy=(),
        train_accuracy=1.0,
        train_loss=0.0,
        steps=steps,
        epochs=1,
        converged=converged,
        cost={"intervene": half, "train": half},
    )


def runs(label: str, *seeds: list[ChunkRecord], intervention: str | None = None) -> MethodRuns:
    return MethodRuns(label, intervention or label, dict(enumerate(seeds)))


def winners(key: str, *methods: MethodRuns) -> set[str]:
    return best(summarise(methods), BY_KEY[key])


TWO_SEEDS = runs(
    "dash",
    [record(1, accuracy=0.2, steps=10), record(2, accuracy=0.5, steps=30, converged=False, seconds=3.0)],
    [record(1, accuracy=0.4, steps=20), record(2, accuracy=0.7, steps=50, flops=3 * 10**12)],
)


@pytest.mark.parametrize(
    ("key", "mean", "std"),
    [
        ("last_accuracy", 0.6, 0.1),  # 0.5 and 0.7
        ("average_accuracy", 0.45, 0.1),  # 0.35 and 0.55
        ("last_steps", 40, 10),  # 30 and 50
        ("average_steps", 27.5, 7.5),  # 20 and 35
        ("teraflops", 3e12, 1e12),  # 2 and 4
        ("seconds", 3.0, 1.0),  # 4 and 2
    ],
)
def test_columns_are_mean_and_population_deviation_over_seeds(key, mean, std):
    (summary,) = summarise([TWO_SEEDS])
    spread = summary.spreads[key]
    assert (spread.mean, spread.std) == pytest.approx((mean, std))


def test_one_seed_has_no_deviation():
    assert Spread.of([0.3]) == Spread(0.3, 0.0)


def test_experiments_that_did_not_converge_are_counted_over_all_seeds():
    (summary,) = summarise([TWO_SEEDS])
    assert (summary.seeds, summary.experiments, summary.not_converged) == ((0, 1), 4, 1)


def test_a_runs_cost_is_that_of_all_its_experiments_and_phases():
    assert total_cost([record(seconds=1.0), record(seconds=3.0)]) == Cost(4.0, 2 * 10**12, 1000)


def test_a_method_without_a_complete_run_has_no_summary():
    assert summarise([runs("warm")]) == []


@pytest.mark.parametrize(
    ("key", "written"),
    [
        ("last_accuracy", "60.00 (10.00)"),
        ("average_accuracy", "45.00 (10.00)"),
        ("last_steps", "40 (10)"),
        ("average_steps", "28 (8)"),
        ("teraflops", "3.000 (1.000)"),
        ("seconds", "3.0 (1.0)"),
    ],
)
def test_a_spread_is_written_with_its_columns_unit_and_digits(key, written):
    (summary,) = summarise([TWO_SEEDS])
    assert BY_KEY[key].write(summary.spreads[key]) == written


def test_thousands_are_set_apart():
    assert BY_KEY["last_steps"].write(Spread(12345.6, 1000)) == "12,346 (1,000)"


@pytest.mark.parametrize("key", ["last_accuracy", "average_accuracy"])
def test_the_highest_accuracy_is_best(key):
    assert winners(key, runs("cold", [record(accuracy=0.6)]), runs("dash", [record(accuracy=0.61)])) == {"dash"}


def test_means_that_are_written_alike_are_all_best():
    a, b, c = (runs(name, [record(accuracy=value)]) for name, value in (("a", 0.8), ("b", 0.80004), ("c", 0.7999)))
    assert winners("last_accuracy", a, b, c) == {"a", "b"}


@pytest.mark.parametrize("key", ["last_steps", "average_steps", "teraflops", "seconds"])
def test_the_least_steps_and_cost_are_best_among_all_but_warm(key):
    spent = {"warm": 1, "cold": 3, "warm_rm": 2, "dash": 4}
    methods = [runs(name, [record(steps=n, flops=n * 10**12, seconds=n)]) for name, n in spent.items()]
    assert winners(key, *methods) == {"warm_rm"}


def test_warm_under_another_label_is_not_ranked_by_steps_and_another_method_called_warm_is():
    renamed = runs("baseline", [record(steps=1)], intervention="warm")
    dash = runs("warm", [record(steps=3)], intervention="dash")
    assert winners("last_steps", renamed, dash, runs("cold", [record(steps=4)])) == {"warm"}


def test_warm_is_ranked_by_accuracy():
    assert winners("last_accuracy", runs("warm", [record(accuracy=0.9)]), runs("cold", [record()])) == {"warm"}


def test_warm_alone_has_no_best_steps():
    assert winners("last_steps", runs("warm", [record()])) == set()
