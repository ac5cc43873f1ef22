"""The commands of the pipeline's stages (dvc.yaml); each also works by itself on a store."""

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
    _stages(options).prepare()


@shared_options(*ALL_OPTIONS)
def split(
    options: SharedOptions,
    check: Annotated[bool, typer.Option("--check", help="Make nothing: verify the plans that are there.")] = False,
) -> None:
    """Split the training set into chunks, one plan a seed; or verify that the plans belong to it."""
    stages = _stages(options)
    stages.check_splits() if check else stages.split()


@shared_options(*ALL_OPTIONS)
def train(
    options: SharedOptions,
    method: Annotated[str, typer.Argument(help="A name in `methods` of the parameters, or an intervention.")],
) -> None:
    """Train one method with every seed, in parallel, from where it stopped."""
    _stages(options).train(method)


@shared_options(*ALL_OPTIONS)
def tables(options: SharedOptions) -> None:
    """Write the paper-style table of the complete runs (markdown, CSV, LaTeX), and its numbers as metrics."""
    _stages(options).tables()


@shared_options(*ALL_OPTIONS)
def figures(options: SharedOptions) -> None:
    """Draw the figures of the complete runs: interactive HTML; SVG and PNG where there is a Chrome or Chromium."""
    _stages(options).figures()


@shared_options(*ALL_OPTIONS)
def report(options: SharedOptions) -> None:
    """Write the comparison's page, one HTML file that needs no other, and complete the comparison in MLflow."""
    _stages(options).report()


@shared_options(*ALL_OPTIONS)
def sync(options: SharedOptions) -> None:
    """Complete the comparison in MLflow from the records of its complete runs, as after a failure of MLflow."""
    _stages(options).sync()


@shared_options("params", "overrides", "store", "results")
def theory(options: SharedOptions) -> None:
    """Simulate discrete feature learning (paper, section 4) and draw figure 3."""
    _stages(options).theory()


def _stages(options: SharedOptions) -> "Stages":
    """Return the pipeline of the options, over a store that can be written."""
    from flows.command_line.stages import Stages

    place = options.place
    make_writable(place)
    return Stages.of(options.settings, place, options, output_console())
