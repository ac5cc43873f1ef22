"""Pages that need no network and are the same bytes for the same records."""

import json
import re
from pathlib import Path

import pytest

import dash_core
from dash_core.errors import ConfigError
from dash_core.views.figures import draw, find_browser, plotly_js, write_figures
from dash_core.views.figures.writing import fragment
from tests.views.figures.samples import CLASSES, TWO_SEEDS, figure, method, record


def test_a_page_stands_beside_one_plotly_js_and_asks_for_nothing_else(tmp_path):
    written = write_figures(draw([TWO_SEEDS], CLASSES), tmp_path / "figures", static=False)
    assert [path.name for path in written if path.suffix == ".html"] == [
        "accuracy_and_steps.html",
        "accuracy_by_steps.html",
        "accuracy_by_flops.html",
        "cost_by_phase.html",
        "seconds.html",
        "class_accuracy.html",
    ]
    assert sorted(written) == sorted((tmp_path / "figures").iterdir())
    for path in written[:-1]:
        page = path.read_text(encoding="utf-8")
        assert re.findall(r'(?:src|href)="([^"]*)"', page) == ["plotly.min.js"]
        assert "http" not in page
    assert written[-1].read_text(encoding="utf-8") == plotly_js()


def test_the_same_records_give_the_same_bytes(tmp_path):
    for folder in ("one", "two"):
        write_figures(draw([TWO_SEEDS, method("warm")], CLASSES), tmp_path / folder, static=False)
    pages = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert all((tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes() for name in pages)


def test_a_fragment_has_the_figures_name_as_id_and_offers_no_upload():
    text = fragment("seconds", figure("seconds", TWO_SEEDS))
    assert '<div id="seconds"' in text
    config = json.loads(re.search(r"const config = (\{.*\});", text)[1])
    assert config["showSendToCloud"] is False
    assert config["responsive"] is True


def test_no_name_can_end_the_script_it_stands_in():
    names = ("</script><script>alert(1)", "b")
    text = fragment("class_accuracy", figure("class_accuracy", method("dash", [record()]), class_names=names))
    assert text.count("</script>") == 1


def test_only_figures_and_what_is_made_of_them_import_plotly():
    core = Path(dash_core.__file__).parent
    drawing = re.compile(
        r"^\s*(?:from|import) (?:plotly|kaleido|choreographer|dash_core\.views\.(?:figures|report))\b", re.M
    )
    importing = {path.relative_to(core).parts[:2] for path in core.rglob("*.py") if drawing.search(path.read_text())}
    assert importing <= {
        ("views", "figures"),
        ("views", "report"),
        ("views", "reproduction"),
        ("views", "stream_report"),
    }


def test_browser_path_decides_and_a_wrong_one_is_no_browser(monkeypatch, tmp_path):
    program = tmp_path / "chrome"
    program.write_text("#!/bin/sh\n")
    monkeypatch.setenv("BROWSER_PATH", str(program))
    assert find_browser() is None  # not a program yet
    program.chmod(0o755)
    assert find_browser() == str(program)


def test_static_images_without_a_browser_say_what_to_install_and_write_nothing(monkeypatch, tmp_path):
    monkeypatch.setenv("BROWSER_PATH", str(tmp_path / "none"))
    with pytest.raises(ConfigError, match=r"BROWSER_PATH is '.*none'.*apt install chromium.*plotly_get_chrome"):
        write_figures(draw([TWO_SEEDS], CLASSES), tmp_path / "figures", static=True)
    assert not (tmp_path / "figures").exists()


def test_a_browser_that_does_not_start_is_named(monkeypatch, tmp_path):
    program = tmp_path / "chrome"
    program.write_text("#!/bin/sh\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("BROWSER_PATH", str(program))
    with pytest.raises(ConfigError, match=r"chrome did not draw"):
        write_figures({"seconds": figure("seconds", TWO_SEEDS)}, tmp_path / "figures", static=True)
