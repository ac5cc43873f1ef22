"""Small line charts as SVG, drawn without a script, so that the page is light and works everywhere."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from markupsafe import Markup

WIDTH, HEIGHT = 640, 240
LEFT, RIGHT, TOP, BOTTOM = 66, 12, 12, 54
TICKS = 4
MOST_POINTS = 60  # markers are drawn up to so many points


@dataclass(frozen=True)
class Line:
    """One line: its name, its class in the style sheet, and (x, y) points, x whole numbers."""

    name: str
    look: str
    points: Sequence[tuple[int, float]]


def line_chart(title: str, unit: str, x_title: str, lines: Sequence[Line]) -> Markup:
    """Return a chart of lines over whole numbers, with a legend if there are several. unit: of the y values."""
    xs = sorted({x for line in lines for x, _ in line.points})
    ys = [y for line in lines for _, y in line.points]
    if not xs:
        return Markup("")
    ticks = _ticks(min(ys), max(ys))
    frame = _Frame(xs[0], xs[-1], ticks[0], ticks[-1])
    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">']
    for tick in ticks:
        y = frame.y(tick)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{_number(tick, ticks)}</text>')
    for x in _shown(xs):
        parts.append(f'<text x="{frame.x(x):.1f}" y="{HEIGHT - BOTTOM + 22}" text-anchor="middle">{x}</text>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(f'<text x="{middle:.0f}" y="{HEIGHT - 6}" text-anchor="middle">{escape(x_title)}</text>')
    for line in lines:
        parts += _drawn(line, frame, unit)
    parts.append("</svg>")
    return Markup("".join(parts)) + _legend(lines)


@dataclass(frozen=True)
class _Frame:
    """The ranges of both axes, and where their values are drawn."""

    x_low: float
    x_high: float
    y_low: float
    y_high: float

    def x(self, value: float) -> float:
        width, span = WIDTH - LEFT - RIGHT, self.x_high - self.x_low
        return LEFT + (width * (value - self.x_low) / span if span else width / 2)

    def y(self, value: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * (value - self.y_low) / (self.y_high - self.y_low)


def _drawn(line: Line, frame: _Frame, unit: str) -> list[str]:
    places = [(frame.x(x), frame.y(y), x, y) for x, y in line.points]
    path = " ".join(f"{'M' if index == 0 else 'L'}{x:.1f} {y:.1f}" for index, (x, y, _, _) in enumerate(places))
    parts = [f'<path class="{line.look}" d="{path}"/>']
    if len(places) <= MOST_POINTS:
        parts += [
            f'<circle class="{line.look}" cx="{x:.1f}" cy="{y:.1f}" r="3.5">'
            f"<title>{escape(line.name)}, {number}: {value:.4g} {escape(unit)}</title></circle>"
            for x, y, number, value in places
        ]
    return parts


def _legend(lines: Sequence[Line]) -> Markup:
    if len(lines) < 2:
        return Markup("")
    items = "".join(f'<li class="{line.look}">{escape(line.name)}</li>' for line in lines)
    return Markup(f'<ul class="legend">{items}</ul>')


def _ticks(low: float, high: float) -> list[float]:
    """Return round values from below the lowest to above the highest; below a single value."""
    low = low if high > low else high - 0.02 * (abs(high) or 1.0)
    spread = high - low
    step = 10 ** math.floor(math.log10(spread / TICKS))
    step *= next(factor for factor in (1, 2, 5, 10) if factor * step * TICKS >= spread)
    first, last = math.floor(low / step), math.ceil(high / step)
    return [number * step for number in range(first, max(last, first + 1) + 1)]


def _number(value: float, ticks: Sequence[float]) -> str:
    digits = max(0, -math.floor(math.log10(ticks[1] - ticks[0]) + 1e-9))
    return f"{value:,.{digits}f}"


def _shown(xs: Sequence[int]) -> list[int]:
    """Return the numbers below the axis: eight at most."""
    stride = math.ceil(len(xs) / 8)
    return list(xs[::stride])


def interval_picture(low: float, high: float, difference: float, margin: float) -> Markup:
    """Return a difference with its interval on a line, beside zero and the tolerated loss, all as shares."""
    reach = 1.15 * max(abs(low), abs(high), margin)
    width, height = WIDTH, 100

    def x(value: float) -> float:
        return 20 + (width - 40) * (value + reach) / (2 * reach)

    def label(value: float, text: str, y: int, look: str = "") -> str:
        anchor = "start" if x(value) < 90 else "end" if x(value) > width - 90 else "middle"
        return f'<text class="{look}" x="{x(value):.1f}" y="{y}" text-anchor="{anchor}">{escape(text)}</text>'

    parts = [
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="difference of accuracies with its interval">',
        f'<rect class="worse" x="0" y="24" width="{x(-margin):.1f}" height="44"/>',
        f'<line class="zero" x1="{x(0):.1f}" x2="{x(0):.1f}" y1="24" y2="68"/>',
        f'<line class="interval" x1="{x(low):.1f}" x2="{x(high):.1f}" y1="46" y2="46"/>',
        f'<circle class="interval" cx="{x(difference):.1f}" cy="46" r="6"/>',
        label(difference, f"{100 * difference:+.2f} points".replace("-", "−"), 17, "strong"),
        label(-margin, f"worse by {100 * margin:g} points", 90),
        label(0, "no difference" if x(0) - x(-margin) > 230 else "", 90),
        "</svg>",
    ]
    return Markup("".join(parts))
