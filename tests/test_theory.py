"""The discrete feature-learning simulation: by hand, against its reference twin, and against the published numbers."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import bernoulli as scipy_bernoulli

from dash_core.config import parse
from dash_core.errors import ConfigError
from dash_core.spread import Spread
from dash_core.theory import (
    METHODS,
    Points,
    TheoryConfig,
    TheoryPoint,
    accuracies_on_test,
    bernoulli,
    learn,
    learn_by_recounting,
    simulate,
    to_csv,
    training_points,
)

REFERENCE = Path(__file__).parent / "golden" / "theory_reference.csv"


def learn_fast(method, holds, config):
    return learn(method, Points(holds), config)


LEARNERS = {"recounting": learn_by_recounting, "fast": learn_fast}
SMALL = TheoryConfig(features=12, points=60, experiments=8, gamma=6, tau=2, test_points=200, seeds=[0, 1, 2, 3])

# One class with the features A, B, C; four points an experiment; two points must share a feature before it is learned.
TOY = TheoryConfig(classes=1, features=3, points=4, experiments=2, gamma=2, tau=1)
A, B, C = (0, 0), (0, 1), (0, 2)
TOY_POINTS = ("A", "AB", "B", "C", "B", "C", "A", "")  # the second experiment brings 4–7


def holds_of(points: tuple[str, ...], features: str = "ABC") -> np.ndarray:
    return np.array([[[feature in point for feature in features] for point in points]])


def told(experiment) -> tuple[list[int], list[tuple[int, int]], list[int]]:
    """Return a one-class experiment as: points with non-zero gradient at the start, features learned, memorised."""
    start, memorised = (np.flatnonzero(mask[0]).tolist() for mask in (experiment.nonzero, experiment.memorised))
    return start, list(experiment.order), memorised


@pytest.fixture(params=LEARNERS)
def learner(request):
    return LEARNERS[request.param]


@pytest.mark.parametrize("method", METHODS)
def test_the_first_experiment_learns_a_of_the_tied_a_and_b_and_memorises_who_lacks_it(learner, method):
    first, _ = learner(method, holds_of(TOY_POINTS), TOY)
    assert told(first) == ([0, 1, 2, 3], [A], [2, 3])


@pytest.mark.parametrize(
    ("method", "start", "order", "memorised"),
    [
        ("random", [0, 1, 2, 3, 4, 5, 6, 7], [A, B, C], [7]),  # A and B are in three points each, then B and C in two
        ("warm", [4, 5, 7], [], [2, 3, 4, 5, 7]),  # 2 and 3 are memorised: one B and one C are too few
        ("ideal", [2, 3, 4, 5, 7], [B, C], [7]),  # 2 and 3 are back: B and C are in two points each
    ],
)
def test_the_second_experiment_by_hand(learner, method, start, order, memorised):
    _, second = learner(method, holds_of(TOY_POINTS), TOY)
    assert told(second) == (start, order, memorised)


def test_a_point_keeps_its_gradient_until_tau_of_its_features_are_learned(learner):
    config = TheoryConfig(classes=1, features=3, points=4, experiments=1, gamma=2, tau=2)
    (only,) = learner("warm", holds_of(("AB", "AB", "AC", "B")), config)
    assert told(only) == ([0, 1, 2, 3], [A, B], [2, 3])  # 2 has A alone, 3 has B alone


def test_ties_go_to_the_lowest_class_and_then_the_lowest_feature(learner):
    config = TheoryConfig(classes=2, features=2, points=4, experiments=1, gamma=2, tau=2)
    (only,) = learner("random", np.ones((2, 2, 2), bool), config)
    assert only.order == ((0, 0), (0, 1), (1, 0), (1, 1))


def test_features_of_different_classes_are_not_counted_together(learner):
    config = TheoryConfig(classes=2, features=1, points=4, experiments=1, gamma=2, tau=1)
    holds = np.array([[[True], [False]], [[True], [True]]])
    (only,) = learner("random", holds, config)
    assert only.order == ((1, 0),)
    assert only.memorised.tolist() == [[True, True], [False, False]]


@st.composite
def simulations(draw) -> tuple[TheoryConfig, np.ndarray]:
    classes, features, class_points, experiments = (draw(st.integers(1, most)) for most in (3, 5, 6, 4))
    config = TheoryConfig(
        classes=classes,
        features=features,
        points=classes * class_points,
        experiments=experiments,
        gamma=draw(st.integers(1, class_points * experiments)),
        tau=draw(st.integers(1, features)),
        test_points=classes,
    )
    return config, draw(arrays(bool, (classes, class_points * experiments, features)))


def assert_same(method: str, holds: np.ndarray, config: TheoryConfig) -> None:
    pairs = zip(learn_by_recounting(method, holds, config), learn_fast(method, holds, config), strict=True)
    for expected, made in pairs:
        assert made.order == expected.order
        for name in ("nonzero", "learned", "memorised"):
            np.testing.assert_array_equal(getattr(made, name), getattr(expected, name), name)


@given(simulations(), st.sampled_from(METHODS))
def test_the_fast_version_takes_every_step_of_the_paper(simulation, method):
    config, holds = simulation
    assert_same(method, holds, config)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("seed", [0, 1])
def test_the_fast_version_takes_every_step_at_the_papers_size(method, seed):
    config = TheoryConfig(experiments=4)
    assert_same(method, training_points(config, seed)[1], config)


@pytest.mark.parametrize("method", METHODS)
def test_the_fast_version_counts_more_features_than_a_byte_holds(method):
    config = TheoryConfig(classes=1, features=300, points=4, experiments=2, gamma=3, tau=280)
    assert_same(method, np.ones((1, 8, 300), bool), config)


@given(simulations(), st.sampled_from(METHODS))
def test_who_is_left_at_the_end_shares_no_feature_that_is_frequent_enough(simulation, method):
    config, holds = simulation
    for done in learn_fast(method, holds, config):
        seen = done.nonzero.shape[1]
        here = holds[:, :seen]
        left = done.nonzero & ((here & done.learned[:, None]).sum(axis=2) < config.tau)
        counts = (here & left[..., None]).sum(axis=1)
        assert (counts[~done.learned] < config.gamma).all()
        assert (done.memorised & done.nonzero).tolist() == left.tolist()


@given(simulations(), st.sampled_from(["warm", "ideal"]))
def test_warm_and_ideal_never_unlearn_a_feature(simulation, method):
    config, holds = simulation
    experiments = list(learn_fast(method, holds, config))
    for before, after in pairwise(experiments):
        assert (before.learned <= after.learned).all()


@given(simulations())
def test_warm_never_forgets_a_memorised_point_and_looks_at_new_points_only(simulation):
    config, holds = simulation
    experiments = list(learn_fast("warm", holds, config))
    for before, after in pairwise(experiments):
        seen = before.memorised.shape[1]
        assert (before.memorised <= after.memorised[:, :seen]).all()
        assert not after.nonzero[:, :seen].any()


@given(simulations())
def test_random_starts_with_a_gradient_at_every_point_so_far(simulation):
    config, holds = simulation
    for number, done in enumerate(learn_fast("random", holds, config), 1):
        assert done.nonzero.sum() == number * config.points


def test_ideal_learns_at_least_as_many_features_as_warm():
    for seed in SMALL.seeds:
        _, holds = training_points(SMALL, seed)
        learned = [[done.learned.sum() for done in learn_fast(name, holds, SMALL)] for name in ("ideal", "warm")]
        assert all(ideal >= warm for ideal, warm in zip(*learned, strict=True))
        assert learned[0][-1] > learned[1][-1]


@pytest.mark.parametrize("top", [0.2, 1.0])
def test_points_are_drawn_as_scipy_draws_them(top):
    probability = top * np.random.RandomState(1).random_sample(50)
    ours, theirs = np.random.RandomState(2), np.random.RandomState(2)
    expected = [scipy_bernoulli.rvs(probability, random_state=theirs) for _ in range(500)]
    np.testing.assert_array_equal(bernoulli(ours, probability, 500), np.array(expected, bool))
    assert ours.random_sample() == theirs.random_sample()


@pytest.mark.parametrize("chance", [1.0, 1 / 2, 1 / 3, 1 / 10])
def test_guesses_are_drawn_as_scipy_draws_them(chance):
    ours, theirs = np.random.RandomState(3), np.random.RandomState(3)
    expected = [scipy_bernoulli.rvs(chance, random_state=theirs) for _ in range(500)]
    assert bernoulli(ours, np.array([chance]), 500)[:, 0].tolist() == [value == 1 for value in expected]


def test_each_class_draws_its_sorted_probabilities_and_then_its_points():
    config = TheoryConfig(classes=3, features=4, points=6, experiments=2, gamma=1, max_probability=0.5, test_points=3)
    probabilities, holds = training_points(config, seed=5)
    stream = np.random.RandomState(5)
    for kind in range(3):
        drawn = np.sort(0.5 * stream.rand(4))[::-1]
        assert probabilities[kind].tolist() == drawn.tolist()
        assert holds[kind].tolist() == [scipy_bernoulli.rvs(drawn, random_state=stream).tolist() for _ in range(4)]


def accuracy_point_by_point(learned, points, chance: float, tau: int, stream) -> float:
    right = 0
    for features, of_class in zip(learned, points, strict=True):
        for point in of_class:
            known = np.sum(point * features) >= tau
            right += 1 if known else scipy_bernoulli.rvs(chance, random_state=stream)
    return 100 * right / sum(len(of_class) for of_class in points)


def test_a_test_point_with_tau_learned_features_is_right_and_any_other_a_guess():
    config = TheoryConfig(classes=3, features=5, points=3, gamma=1, tau=2, test_points=60)
    draws = np.random.RandomState(0)
    probabilities, learned = draws.rand(3, 5), draws.rand(4, 3, 5) < 0.6
    stream = np.random.RandomState(100 * 3 + 100)
    points = [[scipy_bernoulli.rvs(p, random_state=stream) for _ in range(20)] for p in probabilities]
    expected = [accuracy_point_by_point(each, points, 1 / 3, 2, stream) for each in learned]
    assert accuracies_on_test(learned, probabilities, config).tolist() == expected


@pytest.mark.processor
def test_the_default_simulation_is_the_published_one_to_the_last_byte():
    assert to_csv(simulate(TheoryConfig())).encode() == REFERENCE.read_bytes()


def test_the_global_generator_is_neither_read_nor_set():
    before = np.random.get_state(legacy=False)
    simulate(SMALL)
    after = np.random.get_state(legacy=False)
    np.testing.assert_equal(after, before)


def test_the_global_generator_changes_no_result():
    kept = np.random.get_state()
    first = simulate(SMALL)
    np.random.seed(99)
    second = simulate(SMALL)
    np.random.set_state(kept)
    assert first == second


def test_points_come_by_experiment_and_then_method():
    made = simulate(SMALL)
    assert [(p.experiment, p.method) for p in made] == [(j, m) for j in range(1, 9) for m in METHODS]
    assert {p.seeds for p in made} == {4}


def test_all_methods_have_the_same_first_experiment():
    first = simulate(SMALL)[:3]
    assert len({(p.learned_features, p.nonzero_gradient, p.memorised) for p in first}) == 1


def test_progress_is_told_seed_by_seed():
    told_seeds = []
    simulate(SMALL, told_seeds.append)
    assert told_seeds == [0, 1, 2, 3]


def test_csv_has_four_decimals():
    point = TheoryPoint(2, "warm", 3, Spread(66.66666, 0.5), Spread(23, 1), Spread(1000, 0), Spread(7.25, 0.125))
    header, row, end = to_csv([point]).split("\r\n")
    assert header.startswith("experiment,method,n_seeds,test_acc_mean_pct,test_acc_std_pct,learned_features_mean,")
    assert row == "2,warm,3,66.6667,0.5000,23.0000,1.0000,1000.0000,0.0000,7.2500,0.1250"
    assert end == ""


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"tau": 51}, "theory: `tau` must be at most `features` (50), got 51"),
        ({"classes": 3}, "theory: `points` must be a multiple of `classes` (3), got 1000"),
        ({"test_points": 9_999}, "theory: `test_points` must be a multiple of `classes` (2), got 9999"),
        ({"gamma": 25_001}, "theory: `gamma` must be at most the 25000 points of a class, got 25001"),
        ({"points": 10**6}, "theory: `points` x `experiments` must be at most 16777216, got 50000000"),
        ({"seeds": [1, 2, 1]}, "theory.seeds: `seeds` repeats 1: name each once"),
        ({"seeds": []}, "theory.seeds: "),
        ({"max_probability": 1.5}, "theory.max_probability: "),
        ({"gama": 50}, "unknown key theory.gama (did you mean 'gamma'?)"),
    ],
)
def test_nonsense_is_named_with_its_remedy(setting, message):
    with pytest.raises(ConfigError) as caught:
        parse(TheoryConfig, setting, "theory")
    assert message in str(caught.value)
