"""Outcomes of models with chosen wins and losses."""

import numpy as np

from dash_core.stream.outcomes import Outcomes

NAMES = ("cat", "dog", "owl", "bee")


def outcomes(correct, labels=None):
    """Return the outcomes of a model; labels are spread evenly over the classes of NAMES."""
    correct = np.asarray(correct, dtype=bool)
    labels = np.arange(len(correct)) % len(NAMES) if labels is None else np.asarray(labels)
    loss = np.where(correct, 0.1, 2.0) + 1e-3 * (np.arange(len(correct)) % 7)
    return Outcomes([f"{index:08x}" for index in range(len(correct))], labels.astype(np.int64), correct, loss)


def champion(images=1000, wrong=100):
    """Return a champion that is wrong on the first images."""
    return outcomes(np.arange(images) >= wrong)


def changed(base, wins=0, losses=0, among=None):
    """Return a model that is right on so many more images and wrong on so many others, of one class or of all."""
    correct = base.correct.copy()
    members = np.ones(len(correct), dtype=bool) if among is None else base.labels == among
    correct[np.flatnonzero(~base.correct & members)[:wins]] = True
    correct[np.flatnonzero(base.correct & members)[:losses]] = False
    return outcomes(correct, base.labels)
