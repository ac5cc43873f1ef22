"""Guards that inform: planted label noise is listed, planted drift is flagged, and quiet streams stay quiet."""

import numpy as np
import pytest
from scipy.stats import ks_2samp

from dash_core.errors import DataError
from dash_core.stream.drift import _distance as distance
from dash_core.stream.drift import drift
from dash_core.stream.predicted import Predicted
from dash_core.stream.suspects import label_suspects

NAMES = ("cat", "dog", "owl", "bee")


def predicted(count, seed=0, sharpness=3.0, shares=None):
    """Return predictions of a model that is mostly right, with the labels that it was right about."""
    generator = np.random.default_rng(seed)
    labels = generator.choice(len(NAMES), count, p=shares)
    logits = generator.normal(size=(count, len(NAMES)))
    logits[np.arange(count), labels] += sharpness
    weights = np.exp(logits)
    return Predicted((weights / weights.sum(1, keepdims=True)).astype(np.float32), labels)


def with_noise(clean, share, seed=0):
    """Return the same predictions with so many wrong labels, and where they are."""
    generator = np.random.default_rng(seed)
    wrong = generator.choice(len(clean), int(share * len(clean)), replace=False)
    labels = clean.labels.copy()
    labels[wrong] = (labels[wrong] + generator.integers(1, len(NAMES), len(wrong))) % len(NAMES)
    return Predicted(clean.probabilities, labels), set(wrong.tolist())


def test_planted_wrong_labels_are_on_top_of_the_list():
    noisy, wrong = with_noise(predicted(1000), 0.1)
    found = label_suspects(noisy, NAMES)
    planted = [suspect.index in wrong for suspect in found.listed]
    assert (len(planted), found.many) == (50, True)
    assert sum(planted) >= 45
    assert found.sentence.endswith("look at them before you trust what was learned.")
    first = found.listed[0]
    assert first.given == noisy.labels[first.index]
    assert first.suggested == noisy.probabilities[first.index].argmax()


def test_clean_labels_of_a_sure_model_raise_no_warning():
    found = label_suspects(predicted(1000, sharpness=9.0), NAMES)
    assert (found.many, found.count <= 5) == (False, True)


def test_a_class_that_the_model_knows_badly_is_not_judged():
    noisy, _ = with_noise(predicted(1000), 0.1)
    found = label_suspects(noisy, NAMES, recall=[0.9, 0.3, None, 0.9])
    assert {suspect.given for suspect in found.listed} <= {0, 2, 3}
    assert {suspect.suggested for suspect in found.listed} <= {0, 2, 3}
    assert found.sentence.endswith("Not judged, because the model knows them badly: dog.")


def test_an_empty_arrival_and_an_absent_class_are_no_error():
    nothing = Predicted(np.zeros((0, 4), np.float32), np.zeros(0, np.int64))
    assert label_suspects(nothing, NAMES).sentence == "No label looks wrong."
    alone = predicted(50, shares=[1, 0, 0, 0])
    assert label_suspects(alone, NAMES).count == 0
    with pytest.raises(DataError, match="probabilities must be"):
        Predicted(np.zeros((3, 4)), np.zeros(2, np.int64))


def test_the_distance_is_that_of_scipy():
    generator = np.random.default_rng(0)
    one, two = generator.normal(size=80), generator.normal(0.3, size=130).round(1)
    assert distance(one, two) == pytest.approx(ks_2samp(one, two).statistic)


def test_two_hundred_arrivals_without_drift_are_hardly_ever_flagged():
    before, history, flagged = predicted(1000), [], 0
    for number in range(200):
        found = drift(predicted(150, seed=1 + number), before, history, NAMES)
        history.append(found.distance)
        flagged += found.flagged
    assert flagged <= 2


def test_a_change_is_flagged_at_the_first_arrival_once_the_stream_has_a_history():
    before = predicted(1000)
    history = [drift(predicted(150, seed=number), before, [], NAMES).distance for number in range(1, 8)]
    blurred = drift(predicted(150, seed=99, sharpness=0.5), before, history, NAMES)
    assert blurred.flagged
    assert blurred.sentence.startswith("This arrival looks different.")
    young = drift(predicted(150, seed=99, sharpness=0.5), before, history[:4], NAMES)
    assert (young.flagged, young.threshold) == (False, None)
    shifted = drift(predicted(400, seed=98, shares=[0.7, 0.1, 0.1, 0.1]), before, history, NAMES)
    assert shifted.flagged
    assert shifted.numbers["label_shift"] > 0.3
