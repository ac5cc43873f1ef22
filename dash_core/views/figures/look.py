"""One look for every figure: colour, dash pattern and marker of each method; a template for light and dark pages.

The eight colours differ under protanopia and deuteranopia, and contrast with white and with near-black. Pattern and
marker differ as well, so that no distinction depends on colour alone.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace

import plotly.graph_objects as go

INK = "#757b84"  # text: contrast 4.2:1 on white, and the same on near-black
GRID = "rgba(128, 134, 144, 0.25)"
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Liberation Sans', Arial, sans-serif"


@dataclass(frozen=True)
class Style:
    """The look of a method: colour (#rrggbb), dash pattern of its line, symbol of its markers."""

    color: str
    dash: str
    symbol: str

    def faded(self, alpha: float) -> str:
        """Return the colour at an opacity in [0, 1], as CSS."""
        red, green, blue = (int(self.color[i : i + 2], 16) for i in (1, 3, 5))
        return f"rgba({red}, {green}, {blue}, {alpha})"


STYLES = {
    "cold": Style("#1f5eff", "solid", "circle"),
    "warm": Style("#b6490d", "solid", "square"),
    "warm_rm": Style("#e88e00", "solid", "diamond"),
    "shrink_perturb": Style("#14b389", "solid", "triangle-up"),
    "dash": Style("#9d33b8", "solid", "star"),
    "shrink": Style("#63a5d9", "solid", "cross"),
    "head_reset": Style("#735c42", "solid", "x"),
    "l2_init": Style("#6d6e85", "solid", "pentagon"),
    "shrink_perturb_ash_adams": Style("#14b389", "dash", "triangle-down"),
    "l2_init_authors": Style("#6d6e85", "dash", "hexagon"),
    "dash_norms": Style("#9d33b8", "dash", "triangle-left"),
    "dash_direction": Style("#9d33b8", "longdash", "triangle-right"),
    "dash_permuted": Style("#1f5eff", "dash", "triangle-ne"),
    "dash_permuted_in_filter": Style("#1f5eff", "dashdot", "triangle-se"),
    "dash_uniform": Style("#63a5d9", "dash", "diamond-wide"),
    "dash_reversed": Style("#b6490d", "dash", "triangle-sw"),
    "dash_random_gradient": Style("#735c42", "dash", "octagon"),
    "dash_shuffled_labels": Style("#e88e00", "dash", "hexagon2"),
    "dash_granularity": Style("#14b389", "dashdot", "diamond-tall"),
    "norm_reset": Style("#6d6e85", "dashdot", "star-triangle-down"),
}
PHASE_COLORS = {
    "intervene": "#3f7348",
    "train": "#a5b74c",
    "evaluate": "#d79fcd",
    "diagnose": "#775adb",
    "checkpoint": "#7c4884",
    "orchestrate": "#3f18e8",
}
_COLORS = tuple(dict.fromkeys(style.color for style in STYLES.values()))
_DASHES = ("dot", "longdash", "dashdot", "longdashdot", "dash")
_SYMBOLS = ("hourglass", "bowtie", "star-triangle-up", "star-square", "hexagram", "star-diamond")


def color_of(intervention: str) -> str:
    """Return the colour of an intervention's methods; an intervention outside STYLES gets one by its name."""
    known = STYLES.get(intervention)
    return known.color if known else _COLORS[_number(intervention) % len(_COLORS)]


def styles_of(methods: Iterable[tuple[str, str]]) -> dict[str, Style]:
    """Return a style for each (label, intervention), no two alike.

    A label that equals its intervention's name has the style of STYLES. Any other label has the intervention's colour,
    and a pattern and marker chosen by the label alone. If two labels choose the same, the later by name gets the next.
    """
    chosen: dict[str, Style] = {}
    for label, intervention in sorted(set(methods), key=lambda method: (method[0] != method[1], method)):
        wanted = [STYLES[label]] if label == intervention and label in STYLES else _variants(label, intervention)
        chosen[label] = next((style for style in wanted if style not in chosen.values()), wanted[0])
    return chosen


def _variants(label: str, intervention: str) -> list[Style]:
    """Return all pairs of pattern and marker, beginning at the label's own; their counts have no common divisor."""
    count, first = len(_DASHES) * len(_SYMBOLS), _number(label)
    numbers = [(first + step) % count for step in range(count)]
    color = color_of(intervention)
    return [Style(color, _DASHES[n % len(_DASHES)], _SYMBOLS[n % len(_SYMBOLS)]) for n in numbers]


def _number(name: str) -> int:
    """Return a whole number from a name, the same in every process."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")


THEORY_STYLES = {  # the simulation's methods in the colours of their counterparts; ideal often coincides with random
    "random": STYLES["cold"],
    "warm": STYLES["warm"],
    "ideal": replace(STYLES["dash"], dash="dot"),
}

_AXIS = {
    "automargin": True,
    "gridcolor": GRID,
    "linecolor": GRID,
    "showline": True,
    "zeroline": False,
    "ticks": "outside",
    "tickcolor": GRID,
    "ticklen": 4,
    "title": {"standoff": 8},
    "exponentformat": "none",
    "separatethousands": True,
}

TEMPLATE = go.layout.Template(
    layout={
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"family": FONT, "size": 13, "color": INK},
        "margin": {"l": 12, "r": 12, "t": 34, "b": 10},
        "autosize": True,
        "xaxis": _AXIS,
        "yaxis": _AXIS,
        "hovermode": "closest",
        "hoverlabel": {"align": "left", "namelength": -1},
        "legend": {
            "orientation": "h",
            "xref": "container",
            "yref": "container",
            "x": 0.5,
            "xanchor": "center",
            "y": 0,
            "yanchor": "bottom",
            "bgcolor": "rgba(0,0,0,0)",
            "traceorder": "normal",
        },
        "modebar": {"bgcolor": "rgba(0,0,0,0)", "color": INK, "activecolor": INK},
    }
)
