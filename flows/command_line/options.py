"""What the commands have in common: options, where things lie, and how an error is told. Nothing heavy is imported."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dash_core.errors import ConfigError, DashError, DataError, StopRequested
from dash_core.files import make_writable_folder, naming
from flows.services.notices import warnings_shown
from tasks import SERVICES

if TYPE_CHECKING:
    from rich.console import Console

    from dash_core.comparison import Params
    from flows.services.prefect_server import PrivateServer
    from tasks.store.place import Place

BAD_INPUT, FAILED = 2, 1

ParamsFile = Annotated[Path, typer.Option("--params", help="The parameters' file.", metavar="FILE")]
Preset = Annotated[str | None, typer.Option(help="A setting of the paper, laid over the parameters (see presets/).")]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", help="Override a value: section.key=value. Repeatable.", metavar="KEY=VALUE"),
]
Again = Annotated[bool, typer.Option("--again", help="Train again what is complete already.")]
Store = Annotated[
    Path | None,
    typer.Option(
        envvar="DASHPIPE_STORE", help="Folder of runs, tables and mlflow.db. Default: the parameters' folder."
    ),
]
DataRoot = Annotated[
    Path | None,
    typer.Option(envvar="DASHPIPE_DATA", help="Folder of datasets, as torchvision lays them out. Default: STORE/data."),
]
ResultsFolder = Annotated[
    Path | None,
    typer.Option("--results", help="Folder of the pipeline's outputs (see dvc.yaml). Default: inside the store."),
]

PARAMS = Path("params.yaml")


def open_settings(
    params: Path, preset: str | None, overrides: list[str] | None, store: Path | None, data_root: Path | None
) -> tuple["Params", "Place"]:
    """Return the checked parameters, and where their runs happen."""
    from flows.command_line.settings import load_params

    settings = load_params(params, preset, overrides or [])
    return settings, open_place(params, store, data_root, settings)


def open_place(params: Path, store: Path | None, data_root: Path | None, settings: "Params | None" = None) -> "Place":
    """Return where runs happen; ConfigError if there is no such device, or a folder's name cannot be one."""
    from dash_core.comparison import Params
    from dash_core.device import choose_device
    from tasks.store.place import place_of

    try:
        place = place_of(settings or Params(), store or params.parent, data_root)
    except (OSError, RuntimeError, ValueError) as error:  # a loop of links, a NUL
        raise ConfigError(f"--store or --data-root: no such folder can be ({error}); name another") from None
    choose_device(place.device)
    return place


@contextmanager
def standing_by(store: Path) -> Iterator["PrivateServer | None"]:
    """Lend the block a private Prefect server that only imports, which takes seconds: nothing is started or written.

    None where the user configured an API. Call it first: this process then imports beside it.
    """
    from flows.services.prefect_server import PrivateServer, configured_url
    from flows.services.prefect_settings import private_environment

    try:
        server = None if configured_url() else PrivateServer(store / SERVICES).stand_by()
    except (OSError, RuntimeError, ValueError):  # `open_place` explains why there can be no such folder
        server = None
    if server is None:
        yield None
        return
    try:
        with private_environment():
            yield server
    finally:
        server.stop()


def make_writable(place: "Place") -> None:
    """Make the store, or raise ConfigError that says why it cannot hold results."""
    make_writable_folder("--store", place.store, place.services)


def output_console() -> "Console":
    """Return the console of long output: a terminal as wide as it is, a file or a pipe wide enough for the table."""
    from rich.console import Console

    console = Console()
    return console if console.is_terminal else Console(width=max(console.width, 140))


@contextmanager
def plain_errors() -> Iterator[None]:
    """Show an error of ours as one message and the right exit code: 2 for bad input, 1 for a failure.

    A command that is stopped ends with 128 and the number of the signal, as a shell counts.
    """
    signal.signal(signal.SIGTERM, _terminated)
    try:
        with naming(), warnings_shown():
            yield
    except StopRequested as error:
        from tasks.store.stopping import asked_by

        print(f"stopped: {error}", file=sys.stderr)
        raise typer.Exit(128 + (asked_by() or signal.SIGTERM)) from None
    except DashError as error:
        print(f"error: {_printable(str(error))}", file=sys.stderr)
        raise typer.Exit(BAD_INPUT if isinstance(error, ConfigError | DataError) else FAILED) from None
    except KeyboardInterrupt as interrupt:
        print("stopped: the same command goes on from the last saved state of each run", file=sys.stderr)
        number = signal.SIGTERM if isinstance(interrupt, _Terminated) else signal.SIGINT
        raise typer.Exit(128 + number) from None


def _printable(text: str) -> str:
    """Return the text with control characters written out: keys and names come from files, and a terminal obeys."""
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)


class _Terminated(KeyboardInterrupt):
    """SIGTERM, which ends a command as Ctrl-C does."""


def _terminated(number: int, frame: object) -> None:
    raise _Terminated
