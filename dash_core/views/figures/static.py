"""Static images: SVG and PNG by a browser on this machine, which reaches no network.

kaleido drives the browser. Its page loads plotly.js from the plotly package; MathJax, which it would load from a CDN,
is off, and the browser is given a proxy that does not exist.
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
_SCALE = 2  # PNG pixels a px
_NOWHERE = "127.0.0.1:9"  # the discard port: files are read, requests fail
_DARK = "#2b2f36"  # text on white
_TIMEOUT = 180  # seconds an image, on a busy machine


def find_browser() -> str | None:
    """Return the path of the Chrome or Chromium that draws static images, or None.

    BROWSER_PATH of the environment decides where it is set; else plotly_get_chrome's download, then what is installed.
    """
    from choreographer.browsers.chromium import Chromium  # here: who wants no images waits for no import

    path = os.environ.get("BROWSER_PATH") or Chromium.find_browser(skip_local=False)
    return str(path) if path and Path(path).is_file() and os.access(path, os.X_OK) else None


def images(figures: Mapping[str, go.Figure]) -> dict[str, bytes]:
    """Return '<name>.svg' and '<name>.png' of every figure, on white, drawn by one browser.

    Raises ConfigError where no browser is found or it does not draw.
    """
    browser = find_browser()
    if browser is None:
        given = os.environ.get("BROWSER_PATH")
        where = f"BROWSER_PATH is {given!r}, which is no program" if given else "none is installed"
        raise ConfigError(
            f"static images need Chrome or Chromium, and {where}: `apt install chromium`, "
            "or `uv run plotly_get_chrome`, or set BROWSER_PATH to its program"
        )
    with ThreadPoolExecutor(1) as thread:  # a thread of its own: the caller may be within an event loop
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
    """Return a copy for paper, its traces named so that plotly draws no random names for them."""
    copy = go.Figure(figure).update_layout(paper_bgcolor="white", font_color=_DARK)
    for number, trace in enumerate(copy.data):
        trace.uid = f"{name}-{number}"
    return copy


def _with_fixed_ids(svg: bytes, name: str) -> bytes:
    """Put the figure's name for the random number in plotly's ids, so that one figure is always one SVG."""
    text = svg.decode()
    number = re.search(r'<defs id="defs-([0-9a-f]+)"', text)
    return re.sub(rf"(?<=[a-z-]){number[1]}", f"-{name}-", text).encode() if number else svg
