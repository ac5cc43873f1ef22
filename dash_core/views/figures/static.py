"""Static images: SVG and PNG, drawn by a browser on this machine that gets no network.

kaleido drives the browser. Its page loads plotly.js from the plotly package. MathJax, which it would load from a CDN,
is off, and the browser's proxy does not exist.
"""

import asyncio
import os
import re
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import plotly.graph_objects as go

from dash_core.errors import ConfigError

_WIDTH = 900  # px
_SCALE = 2  # PNG pixels per px
_NOWHERE = "127.0.0.1:9"  # proxy on the discard port: files can be read, requests fail
_DARK = "#2b2f36"  # text on white
_TIMEOUT = 180  # seconds per image; generous for a busy machine


def find_browser() -> str | None:
    """Return the path of the Chrome or Chromium that draws static images, or None.

    The environment's BROWSER_PATH decides if it is set; else plotly_get_chrome's download, then an installed one.
    """
    from choreographer.browsers.chromium import Chromium  # imported here, so that only images wait for it

    path = os.environ.get("BROWSER_PATH") or Chromium.find_browser(skip_local=False)
    return str(path) if path and Path(path).is_file() and os.access(path, os.X_OK) else None


def images(figures: Mapping[str, go.Figure]) -> dict[str, bytes]:
    """Return '<name>.svg' and '<name>.png' of every figure, on white, drawn by one browser.

    Raises ConfigError if there is no browser or it does not draw.
    """
    browser = find_browser()
    if browser is None:
        given = os.environ.get("BROWSER_PATH")
        where = f"BROWSER_PATH is {given!r}, which is no program" if given else "none is installed"
        raise ConfigError(
            f"static images need Chrome or Chromium, and {where}: `apt install chromium`, "
            "or `uv run plotly_get_chrome`, or set BROWSER_PATH to its program"
        )
    with ThreadPoolExecutor(1) as thread:  # the caller may be inside an event loop, so in a thread of its own
        return thread.submit(asyncio.run, _images(figures, browser)).result()


async def _images(figures: Mapping[str, go.Figure], browser: str) -> dict[str, bytes]:
    from choreographer.errors import BrowserClosedError, BrowserFailedError, ChannelClosedError
    from kaleido import Kaleido

    drawn = {}
    try:
        async with Kaleido(mathjax=False, path=browser, proxy_server=_NOWHERE, timeout=_TIMEOUT) as kaleido:
            for name, figure in figures.items():
                on_white = _on_white(name, figure)
                size = {"width": _WIDTH, "height": figure.layout.height}
                svg = await kaleido.calc_fig(on_white, {"format": "svg", **size})
                drawn[f"{name}.svg"] = _with_fixed_ids(svg, name)
                drawn[f"{name}.png"] = await kaleido.calc_fig(on_white, {"format": "png", "scale": _SCALE, **size})
    except (BrowserFailedError, BrowserClosedError, ChannelClosedError, TimeoutError) as error:
        raise ConfigError(
            f"the browser {browser} did not draw ({type(error).__name__}: {error}); "
            "set BROWSER_PATH to another Chrome or Chromium"
        ) from None
    return drawn


def _on_white(name: str, figure: go.Figure) -> go.Figure:
    """Return a copy on white; named traces, because plotly gives unnamed ones random names."""
    copy = go.Figure(figure).update_layout(paper_bgcolor="white", font_color=_DARK)
    for number, trace in enumerate(copy.data):
        trace.uid = f"{name}-{number}"
    return copy


def _with_fixed_ids(svg: bytes, name: str) -> bytes:
    """Replace the random number in plotly's ids by the figure's name, so that equal figures give equal SVGs."""
    text = svg.decode()
    number = re.search(r'<defs id="defs-([0-9a-f]+)"', text)
    return re.sub(rf"(?<=[a-z-]){number[1]}", f"-{name}-", text).encode() if number else svg
