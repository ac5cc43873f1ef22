"""The commands of the pipeline's stages (dvc.yaml); each also works by itself on a store."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.command_line.options import (
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
    from flows.command_line.stages import Stages


def register(app: typer.Typer) -> None:
    """Add the stages' commands to the program."""
    for command in (prepare, split, train, tables, figures, report, sync, theory):
        app.command()(command)


def _stage(act: Callable[["Stages"], None]) -> Callable[..., None]:
    """Return the command that does a stage with the options all stages have, named and described as `act` is."""

    def command(
        params: ParamsFile = PARAMS,
        preset: Preset = None,
        overrides: Set = None,
        store: Store = None,
        data_root: DataRoot = None,
        results: ResultsFolder = None,
    ) -> None:
        with plain_errors():
            act(_open(params, preset, overrides, store, data_root, results))

    command.__name__, command.__doc__ = act.__name__, act.__doc__
    return command


@_stage
def prepare(stages: "Stages") -> None:
    """Decode the dataset into the cache, downloading it where that is needed, and say what it is."""
    stages.prepare()


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


@_stage
def tables(stages: "Stages") -> None:
    """Write the paper-style table of the complete runs (markdown, CSV, LaTeX), and its numbers as metrics."""
    stages.tables()


@_stage
def figures(stages: "Stages") -> None:
    """Draw the figures of the complete runs: interactive HTML; SVG and PNG where there is a Chrome or Chromium."""
    stages.figures()


@_stage
def report(stages: "Stages") -> None:
    """Write the comparison's page, one HTML file that needs no other, and complete the comparison in MLflow."""
    stages.report()


@_stage
def sync(stages: "Stages") -> None:
    """Complete the comparison in MLflow from the records of its complete runs, as after a failure of MLflow."""
    stages.sync()


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
    from flows.command_line.stages import Stages

    settings, place = open_settings(params, preset, overrides, store, data_root)
    make_writable(place)
    return Stages.of(settings, place, (params, preset, overrides or []), results, output_console())
