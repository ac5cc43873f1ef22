"""Static images, where this machine has a browser."""

import re

import pytest
from kaleido import PageGenerator
from PIL import Image

from dash_core.views.figures import find_browser, write_figures
from dash_core.views.figures.look import STYLES
from tests.views.figures.samples import TWO_SEEDS, figure

needs_browser = pytest.mark.skipif(find_browser() is None, reason="no Chrome or Chromium on this machine")


def test_the_browsers_page_takes_its_scripts_from_files():
    page = PageGenerator(mathjax=False).generate_index()  # as `images` sets it
    scripts = re.findall(r'<script src="([^"]*)"', page)
    assert [script.rsplit("/", 1)[1] for script in scripts] == ["plotly.min.js", "kaleido_scopes.js"]
    assert all(script.startswith("file://") for script in scripts)


@pytest.mark.slow
@needs_browser
def test_svg_and_png_are_drawn_on_white_by_a_browser_without_network_and_the_same_twice(tmp_path):
    """The browser's proxy leads nowhere, so what is drawn came from files alone."""
    drawn = figure("seconds", TWO_SEEDS)
    svg, png, again_svg, again_png, *_ = write_figures({"seconds": drawn, "again": drawn}, tmp_path, static=True)
    assert [path.name for path in (svg, png, again_svg)] == ["seconds.svg", "seconds.png", "again.svg"]
    assert png.read_bytes() == again_png.read_bytes()
    svg = svg.read_text(encoding="utf-8")
    assert again_svg.read_text(encoding="utf-8") == svg.replace("-seconds-", "-again-").replace(
        "traceseconds", "traceagain"
    )
    assert svg.startswith("<svg")
    assert ">experiment<" in svg
    image = Image.open(png).convert("RGB")
    assert image.size == (1800, 840)
    assert image.getpixel((2, 2)) == (255, 255, 255)
    colors = {color for _, color in image.getcolors(maxcolors=2**24)}
    assert tuple(int(STYLES["dash"].color[i : i + 2], 16) for i in (1, 3, 5)) in colors
