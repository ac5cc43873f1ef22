"""The claims that many items share: orders of methods, fewest steps, and the numbers the paper prints."""

from collections.abc import Mapping, Sequence
from itertools import pairwise

from dash_core.views.reproduction.claims import Above, Check, Claim, Near
from dash_core.views.reproduction.reading import (
    AVERAGE_ACCURACY,
    AVERAGE_STEPS,
    LAST_ACCURACY,
    measured,
)
from dash_core.views.summary import BY_KEY, Column

NOT_WORSE = 1.0  # points; a claimed ≥ may lose no more than this; our margin
Number = tuple[float, float]  # mean and population std, as the paper prints them

NAMES = {"shrink_perturb": "S&P", "dash": "DASH", "warm_rm": "warm ReM", "l2_init": "L2 INIT", "head_reset": "Reset"}


def name_of(label: str) -> str:
    """Return a method's name as the paper writes it."""
    return NAMES.get(label, label)


def chain(key: str, labels: Sequence[str], column: Column = LAST_ACCURACY, margin: float = 0.0) -> list[Check]:
    """Return the checks that each method is above the next in a column of one comparison."""
    return [Above(measured(a, column, key), measured(b, column, key), margin) for a, b in pairwise(labels)]


def ordered(keys: Sequence[str], labels: Sequence[str], column: Column = LAST_ACCURACY, ours: str = "") -> list[Claim]:
    """Return one claim per comparison: the methods have this order, the best first."""
    what = {LAST_ACCURACY: "last test accuracy", AVERAGE_ACCURACY: "average test accuracy"}.get(column, column.title)
    order = " > ".join(map(name_of, labels))
    return [Claim(f"{_of(key, keys)}{order} in {what}", chain(key, labels, column), ours) for key in keys]


def fewest_steps(keys: Sequence[str], others: Sequence[str]) -> list[Claim]:
    """Return one claim per comparison: warm takes fewer steps, averaged over experiments, than each of the others."""
    return [
        Claim(
            f"{_of(key, keys)}warm takes the fewest steps on average over the experiments",
            [Above(measured(o, AVERAGE_STEPS, key), measured("warm", AVERAGE_STEPS, key)) for o in others],
        )
        for key in keys
    ]


def at_least(key: str, best: str, others: Sequence[str], text: str) -> Claim:
    """Return the claim that a method is no worse than each of the others in last accuracy."""
    checks = [
        Above(measured(best, LAST_ACCURACY, key), measured(other, LAST_ACCURACY, key), NOT_WORSE) for other in others
    ]
    return Claim(text, checks, f"no worse: it loses no more than {NOT_WORSE:g} point, a margin of ours")


def printed(key: str, numbers: Mapping[tuple[str, str], Number]) -> list[Claim]:
    """Return one claim for each number that the paper prints; `numbers` are by (method, column)."""
    return [
        Claim(
            f"{key}: {name_of(label)}, {BY_KEY[column].title}: {value:,.{BY_KEY[column].digits}f} "
            f"({std:,.{BY_KEY[column].digits}f})",
            [Near(measured(label, BY_KEY[column], key), value, std)],
        )
        for (label, column), (value, std) in numbers.items()
    ]


def _of(key: str, keys: Sequence[str]) -> str:
    return f"{key}: " if len(keys) > 1 else ""
