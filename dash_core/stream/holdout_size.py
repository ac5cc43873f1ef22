"""What a hold-out can show: the level of each look at it, the fewest images, and what to expect before training."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

from dash_core.stream.gate_config import GateConfig, Parent

EXPECTED_LOSSES = 5  # n·margin below which the score test's size was not verified
POWER = 0.8  # probability with which a challenger that loses nothing should pass


def level_of_a_look(config: GateConfig, parent: Parent) -> float:
    """Return the level of each test on a hold-out that is used `config.looks` times.

    It is alpha / pairs, a union bound over all pairs (challenger, champion) that can arise. If challengers continue
    from the latest model, they do not depend on verdicts: at look k the champion is one of k models, which makes
    H(H + 1)/2 pairs. If they continue from the champion, each verdict decides what comes next: 2^H - 1 pairs.
    """
    looks = config.looks
    pairs = looks * (looks + 1) // 2 if parent == "latest" else 2**looks - 1
    return config.alpha / pairs


def needed_z(config: GateConfig, parent: Parent) -> float:
    """Return the score that a challenger needs at each look."""
    return -NormalDist().inv_cdf(level_of_a_look(config, parent))


def smallest_holdout(
    config: GateConfig, parent: Parent = "latest", disagreement: float = 0.0, power: float = POWER
) -> int:
    """Return the fewest hold-out images with which the gate can work.

    disagreement: share of images on which exactly one of the two models is right. At 0 it is the number below which
    no challenger can pass, even if it answers as the champion does on every image: n ≥ z²(1 - δ)/δ. Otherwise a
    challenger that is as good as the champion passes with probability of about `power`.
    """
    images = _images(config.margin, needed_z(config, parent), disagreement, power)
    return math.ceil(max(images, EXPECTED_LOSSES / config.margin) - 1e-9)


def _images(margin: float, z: float, disagreement: float, power: float) -> float:
    """Return n with √n δ = z √v₀ + z_power √ψ: v₀, ψ are the variances of one pair under H0 and without a loss.

    v₀ is that of Tango's score (`tango_z`) at the expected counts b = c = nψ/2; without disagreement δ(1 - δ).
    """
    linear, constant = -disagreement - 2 * margin, disagreement / 2 * margin * (1 + margin)
    q = (math.sqrt(linear**2 - 8 * constant) - linear) / 4
    under_null = 2 * q - margin * (1 + margin)
    reach = z * math.sqrt(under_null) + NormalDist().inv_cdf(power) * math.sqrt(disagreement)
    return (reach / margin) ** 2


def likely_margin(images: int, config: GateConfig, parent: Parent, disagreement: float, power: float = POWER) -> float:
    """Return the smallest margin with which `images` are enough; 1 if none is."""
    z, low, high = needed_z(config, parent), 1e-6, 1.0
    while high - low > 1e-6:
        margin = (low + high) / 2
        enough = max(_images(margin, z, disagreement, power), EXPECTED_LOSSES / margin) <= images
        low, high = (low, margin) if enough else (margin, high)
    return high


def fewest_losses(classes: int, config: GateConfig) -> int:
    """Return how many images of one class must be lost, with none won, before Holm's procedure can call it worse."""
    return math.ceil(math.log2(classes / config.class_alpha) - 1e-9)


@dataclass(frozen=True)
class Prospect:
    """What a hold-out can show about the next challenger, known before any training.

    can_pass: False if no challenger can pass whatever it answers.
    """

    can_pass: bool
    sentences: Sequence[str]
    numbers: Mapping[str, Any]


def prospect(
    images_by_class: Sequence[int],
    *,
    looks_before: int,
    parent: Parent,
    config: GateConfig,
    class_names: Sequence[str],
    disagreement: float | None = None,
) -> Prospect:
    """Return what the hold-out can show. disagreement: measured between earlier models; None: not known yet."""
    images, left = sum(images_by_class), config.looks - looks_before
    fewest = smallest_holdout(config, parent)
    numbers = {"images": images, "smallest_holdout": fewest, "looks": config.looks, "looks_left": max(left, 0)}
    sentences = []
    if left <= 0:
        sentences.append(f"All {config.looks} looks at this hold-out are used: {NEW_HOLDOUT}.")
    if images < fewest:
        sentences.append(too_small(images, config, parent))
    elif disagreement:
        needed = smallest_holdout(config, parent, disagreement)
        margin = likely_margin(images, config, parent, disagreement)
        numbers |= {"disagreement": disagreement, "likely_holdout": needed, "likely_margin": margin}
        sentences.append(
            f"The models disagree on {percent(disagreement)} of the images: {images:,} images are enough "
            f"to pass {100 * POWER:.0f} % of challengers that lose nothing with a margin of {points(margin)}"
            + ("." if needed <= images else f"; {needed:,} images are needed for {points(config.margin)}.")
        )
    else:
        sentences.append(
            f"{images:,} hold-out images can show a margin of {points(config.margin)}; {fewest:,} are the fewest."
        )
    if blind := blind_classes(images_by_class, config, class_names):
        sentences.append(blind)
    return Prospect(left > 0 and images >= fewest, sentences, numbers)


NEW_HOLDOUT = "open a new generation of the hold-out, from images that arrived since"


def too_small(images: int, config: GateConfig, parent: Parent) -> str:
    """Return the sentence for a hold-out on which no challenger can pass, with the margin that it could show."""
    margin = likely_margin(images, config, parent, 0.0)
    fewest = smallest_holdout(config, parent)
    remedy = f"set gate.margin to {math.ceil(margin * 1000) / 1000:g} or more, " if margin < 0.5 else ""
    return (
        f"The hold-out is too small for this margin: {images:,} images, and {fewest:,} are the fewest that can show "
        f"a loss below {points(config.margin)} in {config.looks} looks; {remedy}lower gate.looks, "
        "or raise the share of images that is held out."
    )


def blind_classes(images_by_class: Sequence[int], config: GateConfig, class_names: Sequence[str]) -> str | None:
    """Return which classes are too small for a loss in them to be shown; None if none is."""
    least = fewest_losses(len(class_names), config)
    blind = [name for name, count in zip(class_names, images_by_class, strict=True) if count < least]
    if not blind:
        return None
    named = ", ".join(blind[:5]) + (f" and {len(blind) - 5} more" if len(blind) > 5 else "")
    return f"Whether one of these classes became worse cannot be told, they have fewer than {least} images: {named}."


def points(share: float) -> str:
    """Return a difference of shares in percentage points."""
    value = f"{100 * share:.2f}".rstrip("0").rstrip(".")
    return f"{value} point{'s' if value != '1' else ''}"


def percent(share: float) -> str:
    """Return a share in percent."""
    return f"{100 * share:.2f}".rstrip("0").rstrip(".") + " %"
