"""An item: one figure or table of the paper, declared with its settings at three scales, its claims and its view."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go

from dash_core.comparison import Params
from dash_core.config import parse
from dash_core.views.reproduction.claims import Claim
from dash_core.views.reproduction.outcome import Outcome
from dash_core.views.rules import Rule
from dash_core.views.tables import Table

SCALES = {
    "full": "the paper's setting; where its value is UNKNOWN, ours",
    "small": "real images, minutes on two CPU cores",
    "smoke": "the embedded digits, seconds: shows that it runs, and nothing else",
}
Overlay = Mapping[str, Any]  # in the shape of params.yaml, laid over the defaults of Params


@dataclass(frozen=True)
class Scale:
    """An item's comparisons by key.

    stands_in: in words, which data and models replace the paper's; empty if none do.
    """

    comparisons: Mapping[str, Overlay]
    stands_in: str = ""

    def params(self) -> dict[str, Params]:
        """Return the comparisons' parameters by key; ConfigError names what is wrong in them."""
        return {key: parse(Params, overlay) for key, overlay in self.comparisons.items()}


@dataclass(frozen=True)
class PageFigure:
    """A figure of an item's page. name: safe as an id and as a file name."""

    name: str
    title: str
    caption: str
    figure: go.Figure


@dataclass(frozen=True)
class View:
    """An item's figures and tables, in the paper's form."""

    drawings: Sequence[PageFigure] = ()
    tables: Sequence[Table] = ()


def no_answer(outcome: Outcome, rule: Rule) -> str:
    """Return the answer of an item that asks nothing itself."""
    return ""


@dataclass(frozen=True)
class Item:
    """One figure or table of the paper.

    shows: the content in one line. setting: the paper's, in words. ours: each value that the paper leaves UNKNOWN, with
    our choice. claims: keys of the comparisons at a scale → the paper's claims on them. numbers: the paper's numbers,
    as claims that are checked in its own setting alone. answer: to the item's own question, in sentences, by a rule for
    intervals; empty if it asks none. simulated: the comparisons are feature-learning simulations.
    """

    name: str
    shows: str
    setting: str
    ours: Sequence[str]
    scales: Mapping[str, Scale]
    view: Callable[[Outcome], View]
    claims: Callable[[Sequence[str]], Sequence[Claim]]
    numbers: Sequence[Claim] = ()
    answer: Callable[[Outcome, Rule], str] = no_answer
    simulated: bool = False

    def claims_at(self, scale: str, changed: bool = False) -> list[Claim]:
        """Return the claims that are checked at a scale; the paper's numbers only at an unchanged `full`."""
        claims = list(self.claims(list(self.scales[scale].comparisons)))
        return claims + list(self.numbers) if scale == "full" and not changed else claims


def always(*claims: Claim) -> Callable[[Sequence[str]], Sequence[Claim]]:
    """Return claims that are the same at every scale."""
    return lambda keys: claims
