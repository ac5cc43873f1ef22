"""How a command fails: one message, and an exit code for bad input or failure. Nothing heavy is imported."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import typer

from dash_core.errors import ConfigError, DashError, DataError, StopRequested
from dash_core.files import naming
from flows.services.notices import warnings_shown

BAD_INPUT_EXIT, FAILED_EXIT = 2, 1  # exit codes


@contextmanager
def plain_errors() -> Iterator[None]:
    """Print a DashError as one message, and exit with 2 for bad input or 1 for a failure.

    A stopped command exits with 128 plus the signal's number, as shells count.
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
        raise typer.Exit(BAD_INPUT_EXIT if isinstance(error, ConfigError | DataError) else FAILED_EXIT) from None
    except KeyboardInterrupt as interrupt:
        print("stopped: the same command continues from the last saved state of each run", file=sys.stderr)
        number = signal.SIGTERM if isinstance(interrupt, _Terminated) else signal.SIGINT
        raise typer.Exit(128 + number) from None


def _printable(text: str) -> str:
    """Return the text with control characters escaped: it may quote a file, and a terminal would obey them."""
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)


class _Terminated(KeyboardInterrupt):
    """SIGTERM, which ends a command as Ctrl-C does."""


def _terminated(number: int, frame: object) -> None:
    raise _Terminated
