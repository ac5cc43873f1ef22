"""The gate: may a challenger replace the champion? A pure function of what both answered on the same hold-out.

The challenger passes if it is not worse by the margin (Tango's score test), at a level that pays for every use of the
hold-out, if the same holds against the anchor with a wider margin, so that small losses cannot add up, if no class
became worse (exact McNemar tests, Holm), and if its cost is within the budget.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dash_core.errors import DataError
from dash_core.stream.gate_config import Budget, GateConfig, Parent
from dash_core.stream.holdout_size import (
    NEW_HOLDOUT,
    blind_classes,
    level_of_a_look,
    needed_z,
    percent,
    points,
    smallest_holdout,
    too_small,
)
from dash_core.stream.outcomes import Outcomes
from dash_core.stream.paired import Pairs, better_p, holm, tango_interval, tango_z, worse_p
from dash_core.stream.verdict import Check, Verdict

INTERVAL_LEVEL = 0.95
LARGE_CLASS = 100  # images from which on an observed drop is shown to a person


def decide(
    champion: Outcomes | None,
    challenger: Outcomes,
    anchor: Outcomes | None = None,
    *,
    looks_before: int,
    parent: Parent,
    config: GateConfig,
    class_names: Sequence[str],
    budget: Budget | None = None,
    cost: Mapping[str, float] | None = None,
    faults: Sequence[str] = (),
    stopped: str | None = None,
) -> Verdict:
    """Return the verdict on a challenger.

    champion: None for the first model, which needs no more than `config.floor` and costs no look. anchor: the model
    that small losses together are held to; None: the champion is the anchor. All outcomes are of the same images in
    the same order. looks_before: how often this hold-out was used before. cost: measured, by the names of the budget.
    faults: a sentence for everything that is wrong with the model itself; each fails it. stopped: the bound of the
    budget that ended the challenger's training; a person decides on such a model.
    """
    checks = [Check("mechanics", "fail", fault) for fault in faults]
    checks += budget_checks(budget or Budget(), cost or {}, stopped)
    if champion is None:
        return Verdict([*checks, _first(challenger, config)])
    for other in (champion, anchor):
        if other is not None and list(other.ids) != list(challenger.ids):
            raise DataError("challenger, champion and anchor must be compared on the same images in the same order")
    if unable := _unable(len(challenger), looks_before, parent, config):
        return Verdict([*checks, unable])
    pairs, level = Pairs.of(challenger, champion), level_of_a_look(config, parent)
    improvement = better_p(pairs.b, pairs.c)
    checks += [
        _difference(challenger, champion, pairs),
        _not_worse(pairs, looks_before, parent, config),
        *([_improved(pairs, improvement, level)] if config.policy == "improved" else []),
        *([_anchor(Pairs.of(challenger, anchor), parent, config)] if anchor is not None else []),
        *_classes(challenger, champion, config, class_names),
        _log_loss(challenger, champion),
    ]
    return Verdict(checks, moves_anchor=improvement <= level)


def budget_checks(budget: Budget, cost: Mapping[str, float], stopped: str | None = None) -> list[Check]:
    """Return a check for each bound of the budget.

    A person decides where a bound was not measured, and on a model whose training a bound stopped.
    """
    checks = []
    for name, bound in budget.given.items():
        what, numbers = name.replace("_", " "), {f"{name}_bound": bound}
        if name == stopped:
            told = (
                f"Training was stopped at its budget of {bound:,.6g} {what}, before it ended by itself. The next "
                f"delivery trains further; `dashpipe stream budget` sets another bound."
            )
            checks.append(Check("budget", "hold", told, numbers | ({name: cost[name]} if name in cost else {})))
            continue
        if name not in cost:
            checks.append(Check(name, "hold", f"budget.{name} is set to {bound:g}, but was not measured.", numbers))
            continue
        within = cost[name] <= bound
        told = f"{what}: {cost[name]:,.6g}, {'within' if within else 'above'} the budget of {bound:,.6g}."
        checks.append(Check(name, "pass" if within else "fail", told, {**numbers, name: cost[name]}))
    return checks


def _first(model: Outcomes, config: GateConfig) -> Check:
    accuracy = model.accuracy
    numbers = {"images": len(model), "accuracy": accuracy}
    told = f"The first model: {percent(accuracy)} of {len(model):,} hold-out images are right"
    if config.floor is None:
        return Check("first", "pass", f"{told}; there is no champion to compare it with.", numbers)
    passed = accuracy >= config.floor
    told += f"; gate.floor asks for {percent(config.floor)}."
    return Check("first", "pass" if passed else "fail", told, {**numbers, "floor": config.floor})


def _unable(images: int, looks_before: int, parent: Parent, config: GateConfig) -> Check | None:
    """Return why this hold-out cannot decide, whatever the outcomes; None if it can."""
    numbers = {"images": images, "look": looks_before + 1, "looks": config.looks}
    if looks_before >= config.looks:
        told = f"All {config.looks} looks at this hold-out are used: {NEW_HOLDOUT}."
        return Check("looks", "hold", told, {**numbers, "looks_left": 0})
    if images < smallest_holdout(config, parent):
        return Check("size", "hold", too_small(images, config, parent), numbers)
    return None


def _difference(challenger: Outcomes, champion: Outcomes, pairs: Pairs) -> Check:
    low, high = tango_interval(pairs, INTERVAL_LEVEL)
    told = (
        f"Challenger {percent(challenger.accuracy)}, champion {percent(champion.accuracy)} of {pairs.n:,} hold-out "
        f"images: {_signed(pairs.difference)} points, {100 * INTERVAL_LEVEL:.0f} % interval "
        f"[{_signed(low)}, {_signed(high)}]; only the challenger is right on {pairs.b}, only the champion on {pairs.c}."
    )
    numbers = {
        "images": pairs.n,
        "accuracy": challenger.accuracy,
        "champion_accuracy": champion.accuracy,
        "difference": pairs.difference,
        "low": low,
        "high": high,
        "level": INTERVAL_LEVEL,
        "only_challenger_right": pairs.b,
        "only_champion_right": pairs.c,
        "disagreement": pairs.disagreement,
    }
    return Check("difference", "pass", told, numbers)


def _not_worse(pairs: Pairs, looks_before: int, parent: Parent, config: GateConfig) -> Check:
    """Tango's score test of H0: the challenger is worse by the margin or more."""
    z, needed = float(tango_z(pairs.n, pairs.b, pairs.c, -config.margin)), needed_z(config, parent)
    passed, look = z >= needed, looks_before + 1
    numbers = {
        "margin": config.margin,
        "z": z,
        "z_needed": needed,
        "level_of_look": level_of_a_look(config, parent),
        "look": look,
        "looks": config.looks,
        "looks_left": config.looks - look,
    }
    shown = (
        f"It is shown that the challenger is not worse by {points(config.margin)}"
        if passed
        else f"It is not shown that the challenger is not worse by {points(config.margin)}"
    )
    return Check("not_worse", "pass" if passed else "fail", f"{shown} ({_test(z, needed, look, config)}).", numbers)


def _test(z: float, needed: float, look: int, config: GateConfig) -> str:
    return f"z = {z:.2f}, needed {needed:.2f}; look {look} of {config.looks}"


def _improved(pairs: Pairs, p: float, level: float) -> Check:
    """Exact McNemar test of H0: the challenger is not better."""
    passed = p <= level
    shown = "It is shown that the challenger is better" if passed else "It is not shown that the challenger is better"
    told = f"{shown} ({pairs.b} images won, {pairs.c} lost: p = {p:.2g}, needed {level:.2g})."
    return Check("improved", "pass" if passed else "fail", told, {"improvement_p": p, "improvement_level": level})


def _anchor(pairs: Pairs, parent: Parent, config: GateConfig) -> Check:
    """The same test against the anchor. Both must pass, so no further correction is needed."""
    margin, needed = config.margin_to_anchor, needed_z(config, parent)
    z = float(tango_z(pairs.n, pairs.b, pairs.c, -margin))
    passed = z >= needed
    told = (
        f"Against the anchor, the last model that was better: {_signed(pairs.difference)} points; a loss of "
        f"{points(margin)} is {'excluded' if passed else 'not excluded'} (z = {z:.2f}, needed {needed:.2f})."
    )
    numbers = {"anchor_difference": pairs.difference, "anchor_margin": margin, "anchor_z": z}
    return Check("anchor", "pass" if passed else "fail", told, numbers)


def _classes(challenger: Outcomes, champion: Outcomes, config: GateConfig, class_names: Sequence[str]) -> list[Check]:
    """Exact McNemar tests of harm in each class, Holm over the classes; a large observed drop is for a person."""
    counts = [_of_class(label, challenger, champion) for label in range(len(class_names))]
    tested = [label for label, pairs in enumerate(counts) if pairs.n]
    rejected = holm([worse_p(counts[label].b, counts[label].c) for label in tested], config.class_alpha)
    worse = [label for label, bad in zip(tested, rejected, strict=True) if bad]
    dropped = [
        label
        for label in tested
        if label not in worse and counts[label].n >= LARGE_CLASS and -counts[label].difference > config.class_drop
    ]
    changes = {class_names[label]: counts[label].difference for label in tested}
    numbers: dict[str, Any] = {"class_differences": changes, "classes_worse": [class_names[label] for label in worse]}
    checks = []
    if worse:
        told = f"The challenger is worse on {_listed(worse, counts, class_names)} (Holm at {config.class_alpha:g})."
        checks.append(Check("classes", "fail", told, numbers))
    if dropped:
        told = f"A large drop that is not proven: {_listed(dropped, counts, class_names)}; look at these images."
        checks.append(Check("class_drop", "hold", told, {"classes_dropped": [class_names[label] for label in dropped]}))
    blind = blind_classes([pairs.n for pairs in counts], config, class_names)
    if not worse:
        unsure = " " + blind if blind else ""
        told = f"No class is shown to be worse (exact McNemar tests, Holm at {config.class_alpha:g}).{unsure}"
        checks.append(Check("classes", "pass", told, numbers))
    return checks


def _of_class(label: int, challenger: Outcomes, champion: Outcomes) -> Pairs:
    members = challenger.labels == label
    new, old = challenger.correct[members], champion.correct[members]
    return Pairs(int(members.sum()), int((new & ~old).sum()), int((old & ~new).sum()))


def _listed(labels: Sequence[int], counts: Sequence[Pairs], class_names: Sequence[str]) -> str:
    parts = [f"{class_names[label]} ({_signed(counts[label].difference)} points)" for label in labels[:5]]
    return ", ".join(parts) + (f" and {len(labels) - 5} more" if len(labels) > 5 else "")


def _log_loss(challenger: Outcomes, champion: Outcomes) -> Check:
    """Report the change of the log-loss with a paired 95 % interval; it decides nothing."""
    changes = challenger.log_loss - champion.log_loss
    mean, reach = float(changes.mean()), 1.96 * float(changes.std(ddof=1)) / np.sqrt(len(changes))
    told = f"Log-loss: {mean:+.4f} nats [{mean - reach:+.4f}, {mean + reach:+.4f}] (for information)."
    return Check("log_loss", "pass", told, {"log_loss_change": mean, "log_loss_reach": float(reach)})


def _signed(share: float) -> str:
    return f"{100 * share:+.2f}"
