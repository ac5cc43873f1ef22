"""The gate over a whole generation of the hold-out: how often is a model released that is worse by the margin?"""

from dataclasses import dataclass

import numpy as np
import pytest

from dash_core.stream.gate import decide
from dash_core.stream.gate_config import GateConfig
from dash_core.stream.holdout_size import needed_z
from dash_core.stream.outcomes import Outcomes
from dash_core.stream.paired import tango_z

STREAMS, LIMIT = 2000, 0.05


def bound(share: float, streams: int) -> float:
    """Return the count that is exceeded once in a thousand if the true share is `share`."""
    return share * streams + 3.1 * np.sqrt(share * (1 - share) * streams)


def false_releases(config, parent, *, images, disagreement, streams=STREAMS, seed=0, z_needed=None):
    """Return the share of streams that ever release one of `looks` challengers that are worse by exactly the margin.

    Each challenger differs from the champion on images of its own choice; the champion stays until the first release.
    """
    generator = np.random.default_rng(seed)
    p_loss, p_win = (disagreement + config.margin) / 2, (disagreement - config.margin) / 2
    ever = np.zeros(streams, dtype=bool)
    for _ in range(config.looks):
        counts = generator.multinomial(images, [p_win, p_loss, 1 - p_win - p_loss], size=streams)
        z = tango_z(images, counts[:, 0], counts[:, 1], -config.margin)
        ever |= z >= (needed_z(config, parent) if z_needed is None else z_needed)
    return ever.mean()


@dataclass
class Adversary:
    """Someone who builds each challenger by the verdicts so far, and knows what the hold-out was drawn from.

    It probes with models that are as good as the champion: each wins on half of a set of images and loses on half of
    another. A probe that fails shows that this hold-out has few of its wins or many of its losses, so that the other
    halves are the lucky ones. At the end it submits models that are worse by exactly the margin, with the lucky
    halves of all probes that failed.
    """

    probes: int
    disagreement: float  # of one probe

    def false_releases(self, config, parent, *, images, streams=STREAMS, seed=0, z_needed=None):
        generator = np.random.default_rng(seed)
        needed = needed_z(config, parent) if z_needed is None else z_needed
        cells = np.full((self.probes, 4), self.disagreement / 2)  # win, lose; the other halves of both sets
        harm = np.full(config.looks, config.margin)  # images that a challenger loses beside the probes' sets
        chances = np.concatenate([cells.ravel(), harm])
        counts = generator.multinomial(images, [*chances, 1 - chances.sum()], size=streams)
        probed, harmed = counts[:, : 4 * self.probes].reshape(streams, self.probes, 4), counts[:, 4 * self.probes : -1]
        z = tango_z(images, probed[:, :, 0], probed[:, :, 1], -config.margin)
        lucky = z < needed
        b, c = ((probed[:, :, half] * lucky).sum(1) for half in (2, 3))
        ever = np.zeros(streams, dtype=bool)
        for look in range(self.probes, config.looks):
            ever |= tango_z(images, b, c + harmed[:, look], -config.margin) >= needed
        return ever.mean()


@pytest.mark.parametrize("parent", ["latest", "champion"])
@pytest.mark.parametrize(("images", "margin", "disagreement"), [(1000, 0.02, 0.05), (5000, 0.01, 0.03)])
def test_challengers_worse_by_the_margin_are_hardly_ever_released(parent, images, margin, disagreement):
    config = GateConfig(margin=margin)
    share = false_releases(config, parent, images=images, disagreement=disagreement)
    assert share * STREAMS <= bound(LIMIT, STREAMS)
    assert share <= 0.02  # a union bound over pairs that never arise is on the safe side


def test_an_adversary_who_is_paid_for_gains_nothing_and_one_who_is_not_does():
    config, adversary = GateConfig(margin=0.02), Adversary(probes=6, disagreement=0.04)
    shares = {parent: adversary.false_releases(config, parent, images=1000) for parent in ("latest", "champion")}
    assert shares["champion"] <= LIMIT
    unpaid = adversary.false_releases(config, "champion", images=1000, z_needed=1.645)
    assert unpaid > 2 * LIMIT > shares["champion"]
    repeated = false_releases(config, "latest", images=1000, disagreement=0.05, z_needed=1.645)
    assert repeated > 2 * LIMIT


@pytest.mark.slow
@pytest.mark.parametrize("looks", [2, 5, 10, 20])
@pytest.mark.parametrize(("images", "margin"), [(500, 0.05), (1000, 0.02), (5000, 0.01), (20000, 0.005)])
def test_no_stream_and_no_adversary_exceeds_the_level(looks, images, margin):
    config, streams = GateConfig(margin=margin, looks=looks), 20_000
    limit = bound(LIMIT, streams) / streams
    for disagreement in (1.5 * margin, 3 * margin, 6 * margin):
        for parent in ("latest", "champion"):
            assert false_releases(config, parent, images=images, disagreement=disagreement, streams=streams) <= limit
        for probes in range(1, looks):
            if 2 * probes * disagreement + looks * margin < 0.9:
                adversary = Adversary(probes, disagreement)
                assert adversary.false_releases(config, "champion", images=images, streams=streams) <= limit


def walk(generator, correct, margin, disagreement):
    """Return the answers of a model that is worse by `margin` in the population, and differs by `disagreement`."""
    accuracy = 0.9
    p_loss, p_win = (disagreement + margin) / 2, (disagreement - margin) / 2
    draw = generator.random(correct.shape)
    return np.where(correct, draw >= p_loss / accuracy, draw < p_win / (1 - accuracy))


def outcomes(correct):
    images = len(correct)
    return Outcomes(range(images), np.zeros(images, dtype=np.int64), correct, np.zeros(images))


def creep(seed, anchored, images=6000):
    """Return the loss of the last released model, if each challenger is worse by half the margin than its champion."""
    config, generator = GateConfig(margin=0.02, class_alpha=1e-12), np.random.default_rng(seed)
    first = generator.random(images) < 0.9
    champion, lost = first, 0.0
    for look in range(config.looks):
        challenger = walk(generator, champion, config.margin / 2, 0.02)
        verdict = decide(
            outcomes(champion),
            outcomes(challenger),
            outcomes(first) if anchored else None,
            looks_before=look,
            parent="latest",
            config=config,
            class_names=["all"],
        )
        if verdict.verdict == "pass":
            champion, lost = challenger, lost + config.margin / 2
    return lost


def test_small_losses_do_not_add_up_beyond_twice_the_margin_because_of_the_anchor():
    with_anchor = [creep(seed, anchored=True) for seed in range(12)]
    without = [creep(seed, anchored=False) for seed in range(12)]
    assert max(with_anchor) <= 0.04
    assert min(without) > 0.04
