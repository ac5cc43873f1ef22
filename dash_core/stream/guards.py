"""Divide the images of an arrival: training, hold-out, known already, or set aside with a reason. A pure function.

No image changes its side; no image is on both sides; no image has two labels.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from dash_core.stream.prints import near
from dash_core.stream.sides import is_held_out

TWO_LABELS = "two labels"
NEAR_DUPLICATE = "near duplicate of an image on the other side"
CONSTANT = "constant image"
UNKNOWN_CLASS = "unknown class"
NO_LABEL = "no label"
UNREADABLE = "unreadable image"
WRONG_SHAPE = "wrong shape"
COLOUR = "colour in a grey stream"
UNSUPPORTED = "unsupported photo format"
NO_IMAGE = "no image file"
LINK = "link"
CHANGED = "other content than its manifest says"


@dataclass(frozen=True, eq=False)
class Candidates:
    """The readable images of an arrival. ids: 32 bytes each; labels: int64 (N,); keys: what decides their side.

    prints: perceptual hashes, uint64 (N,), 0 where there are none. constant: bool (N,). accepted: a person wants them.
    """

    ids: Sequence[bytes]
    labels: np.ndarray
    keys: Sequence[str]
    prints: np.ndarray
    constant: np.ndarray
    accepted: bool = False


@dataclass(frozen=True, eq=False)
class KnownImages:
    """The images that a stream has: their labels by id, and the perceptual hashes of each side, uint64."""

    labels: Mapping[bytes, int] = field(default_factory=dict)
    train_prints: np.ndarray = field(default_factory=lambda: np.empty(0, np.uint64))
    held_prints: np.ndarray = field(default_factory=lambda: np.empty(0, np.uint64))


@dataclass(frozen=True, eq=False)
class Division:
    """Rows of the candidates: of the training set, held out, known already; set_aside: the reason by row."""

    train: np.ndarray
    held_out: np.ndarray
    known: np.ndarray
    set_aside: Mapping[int, str]


def divide(candidates: Candidates, known: KnownImages, salt: str, share: float) -> Division:
    """Divide an arrival's images. Of equal images with one label, the first counts; with two labels, none does.

    A person's acceptance lets constant images and near duplicates pass, and nothing else.
    """
    set_aside, repeated, fresh = _by_label(candidates, known)
    held = [is_held_out(candidates.keys[row], salt, share) for row in fresh]
    rows = {side: [row for row, out in zip(fresh, held, strict=True) if out is side] for side in (False, True)}
    if not candidates.accepted:
        for side in (False, True):
            for row in rows[side]:
                if candidates.constant[row]:
                    set_aside[row] = CONSTANT
        held_rows = _without(rows[True], set_aside)
        _set_near_aside(candidates, held_rows, known.train_prints, set_aside)
        held_rows = _without(held_rows, set_aside)
        others = np.concatenate([known.held_prints, candidates.prints[held_rows]])
        _set_near_aside(candidates, _without(rows[False], set_aside), others, set_aside)
    train, held_out = (np.array(_without(rows[side], set_aside), dtype=np.int64) for side in (False, True))
    return Division(train, held_out, np.array(repeated, dtype=np.int64), set_aside)


def _by_label(candidates: Candidates, known: KnownImages) -> tuple[dict[int, str], list[int], list[int]]:
    """Return what has two labels, what is known or repeated, and the first row of each new image."""
    labels = defaultdict(set)
    for image, label in zip(candidates.ids, candidates.labels.tolist(), strict=True):
        labels[image].add(label)
    set_aside, repeated, fresh = {}, [], []
    seen: set[bytes] = set()
    for row, (image, label) in enumerate(zip(candidates.ids, candidates.labels.tolist(), strict=True)):
        if image in known.labels and known.labels[image] == label:
            repeated.append(row)
        elif image in known.labels or len(labels[image]) > 1:
            set_aside[row] = TWO_LABELS
        elif image in seen:
            repeated.append(row)
        else:
            fresh.append(row)
        seen.add(image)
    return set_aside, repeated, fresh


def _without(rows: Sequence[int], set_aside: Mapping[int, str]) -> list[int]:
    return [row for row in rows if row not in set_aside]


def _set_near_aside(candidates: Candidates, rows: list[int], others: np.ndarray, set_aside: dict[int, str]) -> None:
    for row, is_near in zip(rows, near(candidates.prints[rows], others), strict=True):
        if is_near:
            set_aside[row] = NEAR_DUPLICATE
