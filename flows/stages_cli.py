"""The commands of the pipeline's stages (dvc.yaml); each also works by itself on a store."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.options import (
    PARAMS,
    DataRoot,
    ParamsFile,
    Preset,
    ResultsFolder,
    Set,
    Store,
    make_writable,
    open_settings,
    output_console,
    plain_errors,
)

if TYPE_CHECKING:
    from flows.stages import Stages


def register(app: typer.Typer) -> None:
    """Add the stages' commands to the program."""
    for command in (prepare, split, train, tables, figures, report, sync, theory):
        app.command()(command)


def prepare(
    params: ParamsFile = PARAMS,
    preset: Preset = None,
    overrides: Set = None,
    store: Store = None,
    data_root: DataRoot = None,
    results: ResultsFolder = None,
) -> None:
    """Decode the dataset into the cache, downloading it where that is needed, and say what it is."""
    with plain_errors():
        _open(params, preset, overrides, store, data_root, results).prepare()


def split(
    check: Annotated[bool, typer.Option("--check", help="Make nothing: verify the plans that are there.")] = False,
    params: ParamsFile = PARAMS,
    preset: Preset = None,
    overrides: Set = None,
    store: Store = None,
    data_root: DataRoot = None,
    results: ResultsFolder = None,
) -> None:
    """Split the training set into chunks, one plan a seed; or verify that the plans belong to it."""
    with plain_errors():
        stages = _open(params, preset, overrides, store, data_root, results)
        stages.check_splits() if check else stages.split()


def train(
    method: Annotated[str, typer.Argument(help="A name in `methods` of the parameters, or an intervention.")],
    params: ParamsFile = PARAMS,
    preset: Preset = None,
    overrides: Set = None,
    store: Store = None,
    data_root: DataRoot = None,
    results: ResultsFolder = None,
) -> None:
    """Train one method with every seed, in parallel, from where it stopped."""
    with plain_errors():
        _open(params, preset, overrides, store, data_root, results).train(method)


def tables(
    params: ParamsFile = PARAMS,
    preset: Preset = None,
    overrides: Set = None,
    store: Store = None,
    data_root: DataRoot = None,
    results: ResultsFolder = None,
) -> None:
    """Write the paper-style table of the complete runs (markdown, CSV, LaTeX), and its numbers as metrics."""
    with plain_errors():
        _open(params, preset, overrides, store, data_root, results).tables()


def figures(
    params: ParamsFile = PARAMS,
    preset: Preset = None,
    overrides: Set = None,
    store: Store = None,
    data_root: DataRoot = None,
    results: ResultsFolder = None,
) -> None:
    """Draw the figures of the complete runs: interactive HTML; SVG and PNG where there is a Chrome or Chromium."""
    with plain_errors():
        _open(params, preset, overrides, store, data_root, results).figures()


def report(
    params: ParamsFile = PARAMS,
    preset: Preset = None,
    overrides: Set = None,
    store: Store = None,
    data_root: DataRoot = None,
    results: ResultsFolder = None,
) -> None:
    """Write the comparison's page, one HTML file that needs no other, and complete the comparison in MLflow."""
    with plain_errors():
        _open(params, preset, overrides, store, data_root, results).report()


def sync(
    params: ParamsFile = PARAMS,
    preset: Preset = None,
    overrides: Set = None,
    store: Store = None,
    data_root: DataRoot = None,
    results: ResultsFolder = None,
) -> None:
    """Complete the comparison in MLflow from the records of its complete runs, as after a failure of MLflow."""
    with plain_errors():
        _open(params, preset, overrides, store, data_root, results).sync()


def theory(
    params: ParamsFile = PARAMS,
    overrides: Set = None,
    store: Store = None,
    results: ResultsFolder = None,
) -> None:
    """Simulate discrete feature learning (paper, section 4) and draw figure 3."""
    with plain_errors():
        _open(params, None, overrides, store, None, results).theory()


def _open(
    params: Path,
    preset: str | None,
    overrides: list[str] | None,
    store: Path | None,
    data_root: Path | None,
    results: Path | None,
) -> "Stages":
    from flows.stages import Stages

    settings, place = open_settings(params, preset, overrides, store, data_root)
    make_writable(place)
    return Stages.of(settings, place, (params, preset, overrides or []), results, output_console())
