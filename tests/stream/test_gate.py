"""The gate: one verdict, its sentences and numbers, for each thing that can be said of a challenger."""

import json

import numpy as np
import pytest

from dash_core.errors import DataError
from dash_core.stream.gate import decide
from dash_core.stream.gate_config import Budget, GateConfig
from dash_core.stream.holdout_size import (
    fewest_losses,
    level_of_a_look,
    needed_z,
    prospect,
    smallest_holdout,
)
from dash_core.stream.paired import tango_z
from tests.stream.answers import NAMES, champion, changed, outcomes

CONFIG = GateConfig(margin=0.02)
OLD = champion()


def verdict(challenger, old=OLD, anchor=None, config=CONFIG, looks_before=0, parent="latest", **more):
    return decide(
        old,
        challenger,
        anchor,
        looks_before=looks_before,
        parent=parent,
        config=config,
        class_names=NAMES,
        **more,
    )


def check(found, name):
    return next(check for check in found.checks if check.name == name)


def test_a_challenger_that_answers_alike_passes_and_does_not_move_the_anchor():
    found = verdict(OLD)
    assert (found.verdict, found.moves_anchor) == ("pass", False)
    assert found.numbers["looks_left"] == 9
    assert "is not worse by 2 points" in check(found, "not_worse").sentence
    assert check(found, "difference").sentence.startswith(
        "Challenger 90 %, champion 90 % of 1,000 hold-out images: +0.00 points, 95 % interval [-0.38, +0.38]"
    )


def test_a_challenger_that_is_clearly_better_passes_and_moves_the_anchor():
    found = verdict(changed(OLD, wins=40, losses=5))
    assert (found.verdict, found.moves_anchor) == ("pass", True)
    assert found.numbers["difference"] == pytest.approx(0.035)
    assert found.numbers["low"] > 0


def test_a_challenger_that_is_worse_fails_with_the_reason_first():
    found = verdict(changed(OLD, losses=25))
    assert found.verdict == "fail"
    assert found.sentences[0].startswith("It is not shown that the challenger is not worse by 2 points (z = ")


def test_a_challenger_that_differs_much_is_not_shown_to_be_as_good():
    found = verdict(changed(OLD, wins=60, losses=60))
    assert (found.verdict, check(found, "not_worse").result) == ("fail", "fail")


def test_the_policy_improved_asks_for_a_proof():
    config = GateConfig(margin=0.02, policy="improved")
    assert verdict(changed(OLD, wins=6), config=config).verdict == "fail"
    better = verdict(changed(OLD, wins=40, losses=5), config=config)
    assert (better.verdict, check(better, "improved").result) == ("pass", "pass")


def test_an_anchor_stops_losses_that_are_small_one_by_one():
    anchor = changed(OLD, wins=60)
    challenger = changed(OLD, losses=3)
    assert verdict(challenger).verdict == "pass"
    found = verdict(challenger, anchor=anchor)
    assert (found.verdict, check(found, "anchor").result) == ("fail", "fail")
    assert "a loss of 4 points is not excluded" in check(found, "anchor").sentence
    assert verdict(challenger, anchor=anchor, config=GateConfig(margin=0.02, anchor_margin=0.2)).verdict == "pass"


def test_a_class_that_lost_much_fails_and_is_named():
    found = verdict(changed(changed(OLD, wins=24, among=0), losses=14, among=1))
    assert (found.verdict, check(found, "not_worse").result) == ("fail", "pass")
    assert check(found, "classes").sentence == "The challenger is worse on dog (-5.60 points) (Holm at 0.05)."
    assert found.numbers["classes_worse"] == ["dog"]


def test_a_large_drop_of_a_class_that_is_not_proven_is_for_a_person():
    labels = np.arange(1000) % 4
    old = outcomes(np.arange(1000) >= 100, labels)
    challenger = changed(changed(old, wins=24, among=0), wins=20, losses=29, among=1)
    found = verdict(challenger, old, config=GateConfig(margin=0.05, class_drop=0.03))
    assert (found.verdict, check(found, "classes").result) == ("hold", "pass")
    assert "dog (-3.60 points)" in check(found, "class_drop").sentence


def test_a_class_too_small_to_be_judged_is_never_called_unharmed():
    labels = np.where(np.arange(1000) < 996, np.arange(1000) % 3, 3)
    old = outcomes(np.arange(1000) >= 100, labels)
    found = verdict(changed(old, losses=4, among=3), old)
    told = check(found, "classes").sentence
    assert found.verdict == "pass"
    assert told.endswith("became worse cannot be told, they have fewer than 7 images: bee.")
    assert fewest_losses(4, CONFIG) == 7


def test_a_holdout_too_small_for_the_margin_holds_and_says_what_would_do():
    old = champion(images=359, wrong=10)
    found = verdict(old, old)
    assert (found.verdict, [check.name for check in found.checks]) == ("hold", ["size"])
    assert found.sentences == [
        "The hold-out is too small for this margin: 359 images, and 477 are the fewest that can show a loss below "
        "2 points in 10 looks; set gate.margin to 0.027 or more, lower gate.looks, or raise the share of images that "
        "is held out."
    ]
    assert verdict(old, old, config=GateConfig(margin=0.027)).verdict == "pass"


def test_no_look_is_left():
    assert verdict(OLD, looks_before=9).verdict == "pass"
    found = verdict(OLD, looks_before=10)
    assert found.verdict == "hold"
    assert found.sentences[0].startswith("All 10 looks at this hold-out are used: open a new generation")


def test_the_first_model_needs_its_floor_alone():
    found = verdict(champion(images=40, wrong=10), None)
    assert (found.verdict, found.sentences[0][-47:]) == ("pass", "right; there is no champion to compare it with.")
    low = verdict(champion(images=40, wrong=10), None, config=GateConfig(floor=0.8))
    assert (low.verdict, low.numbers["floor"]) == ("fail", 0.8)


def test_a_fault_of_the_model_fails_it_whatever_it_answers():
    found = verdict(changed(OLD, wins=50), faults=["The exported model does not answer its golden batch."])
    assert found.verdict == "fail"
    assert found.sentences[0] == "The exported model does not answer its golden batch."


def test_a_cost_above_its_bound_fails_and_an_unmeasured_one_holds():
    budget = Budget(parameters=1e6, training_seconds=60)
    assert verdict(OLD, budget=budget, cost={"parameters": 9e5, "training_seconds": 60.0}).verdict == "pass"
    dear = verdict(OLD, budget=budget, cost={"parameters": 2e6, "training_seconds": 1.0})
    assert (dear.verdict, dear.sentences[0]) == ("fail", "parameters: 2e+06, above the budget of 1e+06.")
    assert verdict(OLD, budget=budget, cost={"parameters": 1.0}).verdict == "hold"


def test_other_images_are_an_error():
    with pytest.raises(DataError, match="on the same images in the same order"):
        verdict(champion(images=999))


def test_a_verdict_is_json():
    found = json.loads(json.dumps(verdict(changed(OLD, wins=3, losses=2), anchor=OLD).as_dict()))
    assert (found["verdict"], found["checks"]["anchor"], len(found["sentences"])) == ("pass", "pass", 5)


def test_the_level_pays_for_every_pair_that_can_arise():
    assert level_of_a_look(GateConfig(looks=10), "latest") == pytest.approx(0.05 / 55)
    assert level_of_a_look(GateConfig(looks=10), "champion") == pytest.approx(0.05 / 1023)
    assert (round(needed_z(GateConfig(), "latest"), 2), round(needed_z(GateConfig(), "champion"), 2)) == (3.12, 3.90)
    assert needed_z(GateConfig(looks=1000), "champion") > 35


@pytest.mark.parametrize("parent", ["latest", "champion"])
@pytest.mark.parametrize(("margin", "looks"), [(0.01, 10), (0.02, 5), (0.05, 20), (0.3, 1)])
def test_one_image_fewer_than_the_smallest_holdout_can_never_pass(parent, margin, looks):
    config = GateConfig(margin=margin, looks=looks)
    fewest, needed = smallest_holdout(config, parent), needed_z(config, parent)
    assert float(tango_z(fewest, 0, 0, -margin)) >= needed - 1e-9
    assert fewest * margin >= 5
    assert float(tango_z(fewest - 1, 0, 0, -margin)) < needed or (fewest - 1) * margin < 5


def test_the_likely_size_passes_four_of_five_models_that_are_as_good():
    config, disagreement = GateConfig(margin=0.02), 0.03
    images = smallest_holdout(config, "latest", disagreement)
    assert images == 1461
    generator = np.random.default_rng(0)
    counts = generator.multinomial(images, [disagreement / 2, disagreement / 2, 1 - disagreement], size=4000)
    passed = tango_z(images, counts[:, 0], counts[:, 1], -0.02) >= needed_z(config, "latest")
    assert 0.75 < passed.mean() < 0.88


def test_the_prospect_says_before_training_what_can_be_shown():
    def of(images_by_class, looks_before=0, **more):
        return prospect(
            images_by_class, looks_before=looks_before, parent="latest", config=CONFIG, class_names=NAMES, **more
        )

    enough = of([300, 300, 300, 300])
    assert (enough.can_pass, enough.sentences) == (
        True,
        ["1,200 hold-out images can show a margin of 2 points; 477 are the fewest."],
    )
    small = of([100, 100, 100, 3])
    assert (small.can_pass, small.numbers["smallest_holdout"]) == (False, 477)
    assert small.sentences[1].endswith("fewer than 7 images: bee.")
    assert not of([300] * 4, looks_before=10).can_pass
    told = of([300] * 4, disagreement=0.08).sentences[0]
    assert told.endswith("3,259 images are needed for 2 points.")
