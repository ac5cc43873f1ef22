"""`reproduce --dry-run`: what is left, in runs, images, FLOPs and hours; nothing is trained or written."""

import pytest
import torch
from typer.testing import CliRunner

from dash_core.comparison import Params
from dash_core.config import parse
from dash_core.views.reproduction.expected import image_shape, run_work
from dash_core.views.reproduction.measuring import Pace, pace, step_of
from flows.command_line import dry_run
from flows.command_line.dry_run import tell_expected
from flows.command_line.main import app
from flows.command_line.output import output_console
from flows.command_line.reproduction import Selection
from tasks.store.place import place_of


@pytest.fixture
def measured(monkeypatch):
    """The runs whose steps were measured, each at 1,000 images/s."""
    runs = []
    monkeypatch.setattr(dry_run, "pace", lambda run, device: runs.append(run) or Pace(1000.0, "exact"))
    monkeypatch.setattr(dry_run.Crew, "of", lambda params, runs: dry_run.Crew(2, 1))
    return runs


def told(names, tmp_path, capsys, scale="smoke"):
    tell_expected(Selection.of(names, scale, [], again=False), place_of(Params(), tmp_path, None), output_console())
    return capsys.readouterr().out


def test_an_item_is_its_runs_images_flops_and_hours(measured, tmp_path, capsys):
    item = Selection.of(["figure-7"], "smoke", [], again=False).settings["figure-7"]
    runs = [run for params in item.values() for run in params.runs()]
    out = told(["figure-7"], tmp_path, capsys)
    images = sum(run_work(run).trained for run in runs)
    assert f"figure-7   smoke: {len(runs)} of {len(runs)} runs, {images:,.3g} training images" in out
    assert f"{sum(run_work(run).flops for run in runs):.2g} FLOPs" in out
    assert "digits here" in out
    assert len(measured) == 1
    assert not list(tmp_path.iterdir())


def test_runs_that_items_share_are_counted_once_and_complete_ones_not_at_all(measured, tmp_path, capsys, monkeypatch):
    out = told(["figure-1", "table-1"], tmp_path, capsys)
    assert "4 of them also in items above" in out
    monkeypatch.setattr(dry_run, "is_complete", lambda run, place: run.method.label != "dash")
    out = told(["figure-1"], tmp_path, capsys)
    assert "figure-1   smoke: 1 of 4 runs" in out
    assert "together   1 runs" in out


@pytest.mark.slow
def test_every_item_tells_its_hours_at_full_scale(measured, tmp_path, capsys):
    out = told(["all"], tmp_path, capsys, "full")
    assert "table-1    full: 180 of 180 runs" in out
    assert "imagenet not here" in out
    assert len(measured) == len({step_of(run) for run in measured})


def test_a_short_training_tells_the_pace_of_a_step():
    run = parse(Params, {"dataset": {"train_size": 100}, "model": {"name": "cnn3_small"}}).run("cold", 0)
    found = pace(run, torch.device("cpu"))
    assert found.images_per_second > 1
    assert found.precision in ("exact", "bf16")


def test_resized_images_have_the_size_that_is_set():
    imagenet = parse(Params, {"dataset": {"name": "imagenet", "image_size": 64}}).run("cold", 0)
    assert image_shape(imagenet) == (3, 64, 64)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--dry-run"], "name an item of the paper"),
        (["figure-1", "--dry-run", "--summary", "x.md"], "--dry-run trains nothing"),
        (["figure-1", "--budget", "soon"], "--budget 'soon' is no duration"),
        (["figure-1", "--until-decided", "--max-seeds", "31"], "--max-seeds must be 3 to 30"),
        (["figure-1", "--max-seeds", "5"], "give both"),
    ],
)
def test_options_that_make_no_sense_are_refused_before_anything_starts(options, words, tmp_path):
    ended = CliRunner().invoke(app, ["reproduce", *options, "--store", str(tmp_path / "store")])
    assert ended.exit_code == 2
    assert words in ended.stderr
    assert not (tmp_path / "store").exists()
