"""The commands of the pipeline's stages (dvc.yaml); each also works by itself on a store."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.command_line.options import ALL_OPTIONS, SharedOptions, shared_options
from flows.command_line.output import output_console
from flows.command_line.session import make_writable

if TYPE_CHECKING:
    from flows.command_line.stages import Stages


@shared_options(*ALL_OPTIONS)
def prepare(options: SharedOptions) -> None:
    """Decode the dataset into the cache, downloading it where that is needed, and say what it is."""
    with _stages(options) as stages:
        stages.prepare()


@shared_options(*ALL_OPTIONS)
def split(
    options: SharedOptions,
    check: Annotated[bool, typer.Option("--check", help="Make nothing: verify the plans that are there.")] = False,
) -> None:
    """Split the training set into chunks, one plan a seed; or verify that the plans belong to it."""
    with _stages(options) as stages:
        stages.check_splits() if check else stages.split()


@shared_options(*ALL_OPTIONS)
def train(
    options: SharedOptions,
    method: Annotated[str, typer.Argument(help="A name in `methods` of the parameters, or an intervention.")],
) -> None:
    """Train one method with every seed, in parallel, from where it stopped."""
    with _stages(options) as stages:
        stages.train(method)


@shared_options(*ALL_OPTIONS)
def tables(options: SharedOptions) -> None:
    """Write the paper-style table of the complete runs (markdown, CSV, LaTeX), and its numbers as metrics."""
    with _stages(options) as stages:
        stages.tables()


@shared_options(*ALL_OPTIONS)
def figures(options: SharedOptions) -> None:
    """Draw the figures of the complete runs: interactive HTML; SVG and PNG where there is a Chrome or Chromium."""
    with _stages(options) as stages:
        stages.figures()


@shared_options(*ALL_OPTIONS)
def report(options: SharedOptions) -> None:
    """Write the comparison's page, one HTML file that needs no other, and complete the comparison in MLflow."""
    with _stages(options) as stages:
        stages.report()


@shared_options(*ALL_OPTIONS)
def sync(options: SharedOptions) -> None:
    """Complete the comparison in MLflow from the records of its complete runs, as after a failure of MLflow."""
    with _stages(options) as stages:
        stages.sync()


@shared_options("params", "overrides", "store", "results")
def theory(options: SharedOptions) -> None:
    """Simulate discrete feature learning (paper, section 4) and draw figure 3."""
    with _stages(options) as stages:
        stages.theory()


@contextmanager
def _stages(options: SharedOptions) -> Iterator["Stages"]:
    """Yield the pipeline of the options, over a store that can be written.

    Under DVC the command ends when DVC does: otherwise the command of a killed DVC would run on and overwrite the next
    attempt's files. Its end loses nothing: files on disk are complete, and workers and the Prefect server end with this
    process. It fails if what it depends on was changed while it ran.
    """
    from flows.command_line.stages import Stages
    from flows.command_line.under_dvc import StageInputs, end_with_dvc

    inputs = None
    if stage := os.environ.get("DVC_STAGE"):
        end_with_dvc()
        inputs = StageInputs(stage, Path.cwd())  # where DVC runs a stage, whatever folder it was called in
    place = options.place
    make_writable(place)
    if inputs:
        inputs.check_own_parts(options.settings)
    yield Stages.of(options.settings, place, options, output_console())
    if inputs:
        inputs.check()
