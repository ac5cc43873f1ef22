"""What a report says in words, word by word, on accuracies that can be subtracted in the head."""

from dataclasses import replace

import pytest

from dash_core.protocols import ClassIncremental, Continuous, Discarding, Protocol, TwoPhase
from dash_core.views.report.reading import findings, headline, listed, reading, warnings
from tests.views.report.contents import content, runs

COLD = runs("cold", 0.80, 0.81, 0.82, 0.83, 0.84)
MEAN = "Averaged over the experiments:"
SAME = "dash’s whole run took 1.00× the steps, 1.00× the TFLOPs and 1.00× the seconds of cold’s."
FIVE = "run at least 5 before you conclude"


def test_a_clear_difference_is_stated_with_its_interval_and_pairs():
    dash = runs("dash", 0.82, 0.825, 0.84, 0.845, 0.86, steps=40)  # +2, +1.5, +2, +1.5, +2 points
    assert reading(content(COLD, dash)) == [
        "Best mean last test accuracy: dash, 83.80 %.",
        "Last test accuracy: dash − cold = +1.80 points, 95 % CI [1.46, 2.14], 5 paired seeds: dash is more accurate. "
        f"{MEAN} +1.80 points [1.46, 2.14]. "
        "dash’s whole run took 0.40× the steps, 0.40× the TFLOPs and 0.40× the seconds of cold’s.",
    ]


def test_a_method_that_is_clearly_worse_is_called_less_accurate():
    warm = runs("warm", 0.78, 0.795, 0.80, 0.815, 0.82)
    assert findings(content(COLD, warm))[:2] == [
        "Best mean last test accuracy: cold, 82.00 %.",
        "Last test accuracy: warm − cold = −1.80 points, 95 % CI [−2.14, −1.46], 5 paired seeds: "
        f"warm is less accurate. {MEAN} −1.80 points [−2.14, −1.46]. {SAME.replace('dash', 'warm')}",
    ]


def test_where_the_interval_includes_0_no_difference_is_told():
    dash = runs("dash", 0.82, 0.79, 0.84, 0.81, 0.85)  # +2, -2, +2, -2, +1
    assert findings(content(COLD, dash))[1] == (
        "Last test accuracy: dash − cold = +0.20 points, 95 % CI [−2.34, 2.74], 5 paired seeds: "
        f"no difference can be told. {MEAN} +0.20 points [−2.34, 2.74]. {SAME}"
    )


def test_two_seeds_are_too_few_for_a_clear_difference():
    said = reading(content(runs("cold", 0.80, 0.81), runs("dash", 0.82, 0.8302), planned=2))
    assert said[1] == (
        "Last test accuracy: dash − cold = +2.01 points, 95 % CI [1.88, 2.14], 2 paired seeds: "
        f"with fewer than 3 pairs no difference is called clear. {MEAN} +2.01 points [1.88, 2.14]. {SAME}"
    )
    assert said[2:] == [
        f"With 2 paired seeds the intervals are wide and lean on the assumption of normal differences (dash): {FIVE}."
    ]


def test_equal_differences_have_no_verdict():
    dash = runs("dash", 0.81, 0.82, 0.83, 0.84, 0.85)
    assert findings(content(COLD, dash))[1] == (
        "Last test accuracy: dash − cold = +1.00 points in each of 5 paired seeds: "
        f"without a spread the interval has no width. {MEAN} +1.00 points. {SAME}"
    )


def test_one_seed_has_no_interval():
    assert reading(content(runs("cold", 0.80), runs("dash", 0.82, steps=50), planned=1)) == [
        "Best mean last test accuracy: dash, 82.00 %.",
        "Last test accuracy: dash − cold = +2.00 points, 1 paired seed: no interval. "
        f"{MEAN} +2.00 points. "
        "dash’s whole run took 0.50× the steps, 0.50× the TFLOPs and 0.50× the seconds of cold’s.",
        f"With 1 seed no spread can be given (cold, dash): {FIVE}.",
    ]


def test_methods_that_share_the_best_mean_are_all_named():
    three = runs("cold", 0.8, 0.9), runs("warm", 0.7, 0.7), runs("dash", 0.9, 0.8)
    assert findings(content(*three))[0] == "Best mean last test accuracy: cold and dash, 85.00 % each."


def test_what_did_not_converge_is_counted():
    dash = runs("dash", 0.81, 0.82, 0.83, 0.84, 0.85, stuck=3)
    assert warnings(content(COLD, dash)) == ["dash: 3 of 10 experiments ended at max_epochs before they converged."]


def test_what_diverged_is_counted_first():
    dash = runs("dash", 0.1, 0.1)
    for records in dash.runs.values():
        records[1] = replace(records[1], train_loss=8314.0)
    assert warnings(content(COLD, dash))[0] == (
        "dash: the training of 2 of 4 experiments diverged (their train loss ended far above that of a guess): "
        "its numbers mean nothing. Lower optimizer.lr."
    )


def test_methods_with_the_same_results_are_said_not_to_be_compared():
    twins = runs("warm", 0.80, 0.81, 0.82, 0.83, 0.84)
    assert warnings(content(COLD, twins, runs("dash", 0.81, 0.82, 0.83, 0.84, 0.85)))[0] == (
        "cold and warm have the same results in every experiment: nothing that sets them apart had an effect."
    )


def test_missing_seeds_are_named_and_the_pairs_that_are_left():
    said = warnings(content(COLD, runs("dash", 0.81, 0.83, 0.85, seeds=(0, 2, 4))))
    assert said == [
        "dash has 3 of 5 seeds planned.",
        "dash and cold are compared on the seeds that both have, 0, 2, 4; left out: 1, 3.",
        f"With 3 paired seeds the intervals are wide and lean on the assumption of normal differences (dash): {FIVE}.",
    ]


def test_a_method_without_a_complete_run_is_missed():
    assert "warm has 0 of 5 seeds planned." in warnings(content(COLD, labels=["cold", "warm"]))


def test_without_cold_no_differences_are_given():
    assert findings(content(runs("warm", 0.8, 0.9), runs("dash", 0.9, 0.9))) == [
        "Best mean last test accuracy: dash, 90.00 %.",
        "No run of cold, the reference, is complete: no differences can be given.",
    ]


def test_a_method_alone_is_not_called_best():
    assert findings(content(COLD)) == ["Mean last test accuracy of cold: 82.00 %."]


def test_without_a_complete_run_there_is_nothing_to_read():
    assert findings(content(labels=["cold"])) == ["No run is complete: there are no numbers yet."]


def test_a_method_without_a_common_seed_is_not_compared():
    dash = runs("dash", 0.9, 0.9, seeds=(8, 9))
    assert findings(content(COLD, dash)) == ["Best mean last test accuracy: dash, 90.00 %."]
    assert "dash and cold have no seed in common: they are not compared." in warnings(content(COLD, dash))


def test_the_headline_says_what_was_compared_and_how():
    assert headline(content(COLD, runs("dash", 0.9))) == (
        "cold and dash on digits (1,438 training images, 359 test images, 2 classes). The training images come in "
        "2 chunks. After each, cnn3_small is trained on all chunks so far, with sgd and the standard recipe, until "
        "it fits 99.9 % of them or 500 epochs are over. The methods differ in what they do to the model between two "
        "chunks. 6 of 10 runs are complete (5 seeds a method)."
    )


CNN = "cnn3_small is trained"
HOW = "with sgd and the standard recipe"
BETWEEN = "The methods differ in what they do to the model"
FIT = "until it fits 99.9 % of them or 500 epochs are over"


@pytest.mark.parametrize(
    ("protocol", "words"),
    [
        (
            TwoPhase(pretrain_epochs=30, epochs=150),
            f"First {CNN} on 50 % of the training images, {HOW}, until 30 epochs are over; then on all of them, until "
            f"150 epochs are over. {BETWEEN} in between.",
        ),
        (
            TwoPhase(share=0.25, pretrain_accuracy=0.5),
            f"First {CNN} on 25 % of the training images, {HOW}, until it fits 50 % of them or 500 epochs are over; "
            f"then on all of them, {FIT}. {BETWEEN} in between.",
        ),
        (
            Discarding(),
            f"The training images come in 2 chunks, and {CNN} on one after the other, without those before it, {HOW}, "
            f"{FIT}. {BETWEEN} after every 15 chunks, up to chunk 40.",
        ),
        (
            Continuous(),
            f"The training images come in 2 chunks, one with each epoch in which {CNN} on all so far, {HOW}; 500 "
            f"epochs on all follow. {BETWEEN} after every 50 epochs as long as chunks arrive; cold has all of them "
            "from the beginning and is not restarted.",
        ),
        (
            ClassIncremental(),
            f"The training images come in 2 chunks, a class in each. After each, {CNN} on all chunks so far, {HOW}, "
            f"{FIT}, and tested on the classes so far. {BETWEEN} between two chunks.",
        ),
    ],
    ids=lambda part: part.name if isinstance(part, Protocol) else "",
)
def test_the_headline_says_what_the_protocol_was(protocol, words):
    told = content(COLD)
    settings = {**told.settings, "protocol": protocol.model_dump(mode="json")}
    assert f"2 classes). {words} 5 of 5 runs" in headline(replace(told, settings=settings))


def test_the_headline_says_how_many_experiments_were_made_and_that_epochs_alone_end_them():
    told = content(COLD)
    training = {**told.settings["training"], "stop_accuracy": None}
    text = headline(replace(told, settings={**told.settings, "experiments": 1, "training": training}))
    assert "the standard recipe, until 500 epochs are over. The methods" in text
    assert "between two chunks. Each run ends after experiment 1. 5 of 5" in text


def test_the_headline_says_which_part_of_the_data_was_used_and_how_many_labels_are_wrong():
    told = content(COLD)
    dataset = {**told.settings["dataset"], "train_size": 1000, "test_size": 100, "label_noise": 0.25}
    text = headline(replace(told, settings={**told.settings, "dataset": dataset}))
    start = "cold on digits (1,000 of 1,438 training images, 25 % of them with a wrong label, 100 of 359 test images, 2"
    assert text.startswith(start)


def test_words_are_listed_as_in_a_sentence():
    assert [listed(words) for words in (["a"], ["a", "b"], ["a", "b", "c"])] == ["a", "a and b", "a, b and c"]
