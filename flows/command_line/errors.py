"""How a command fails: one message, and an exit code for bad input or failure. Nothing heavy is imported."""

import contextlib
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import typer

from dash_core.errors import ConfigError, DashError, DataError, StopRequested, without_password
from dash_core.files import naming, write_atomically
from dash_core.parts import PartError
from flows.command_line.output import UnwrittenOutput
from flows.services.machine import OPEN_FILES, too_few_files
from flows.services.notices import warnings_shown
from tasks import SERVICES_FOLDER
from tasks.store.stopping import INTERRUPTING, STOPPING_SIGNALS, asked_by

BAD_INPUT_EXIT, FAILED_EXIT = 2, 1  # exit codes
UNWRITTEN_EXIT = 120  # as in Python: not all of the output could be written, for example to a full disk
OWN_PART_FILE = "own-part-error.txt"  # the traceback of the last own part that was found broken
OLDEST_CLOCK = 0.0  # seconds of Unix time: before 1970, records and databases have no time to write


@contextlib.contextmanager
def plain_errors() -> Iterator[None]:
    """Print a DashError as one message, and exit with 2 for bad input or 1 for a failure.

    A stopped command exits with 128 plus the signal's number, as shells count.
    """
    for number in STOPPING_SIGNALS:
        if number != signal.SIGINT and signal.getsignal(number) is not signal.SIG_IGN:  # `nohup` ignores SIGHUP
            signal.signal(number, _terminated)
    try:
        _check_clock()
        with _explained(), naming(), warnings_shown():
            yield
    except StopRequested as error:
        _say(f"stopped: {error}")
        raise typer.Exit(128 + (asked_by() or signal.SIGTERM)) from None
    except UnwrittenOutput as error:
        _say(f"error: {error}")
        raise typer.Exit(UNWRITTEN_EXIT) from None
    except DashError as error:
        _say(f"error: {_printable(without_password(str(error)))}")
        raise typer.Exit(BAD_INPUT_EXIT if isinstance(error, ConfigError | DataError) else FAILED_EXIT) from None
    except KeyboardInterrupt as interrupt:
        _say("stopped: the same command continues from the last saved state of each run")
        number = interrupt.number if isinstance(interrupt, _Terminated) else signal.SIGINT
        raise typer.Exit(128 + number) from None


@contextlib.contextmanager
def traceback_kept(store: Path) -> Iterator[None]:
    """Write the traceback of an own part that is broken to a file in the store, or the temporary folder; name it."""
    try:
        yield
    except PartError as error:
        if not error.details:
            raise
        for folder in (store / SERVICES_FOLDER, Path(tempfile.gettempdir())):
            file = folder / OWN_PART_FILE
            with contextlib.suppress(OSError, DashError):
                write_atomically(file, without_password(error.details).encode())
                break
        raise type(error)(f"{error} (its traceback is in {file})") from None


def _check_clock() -> None:
    """Raise ConfigError if the machine's clock is before 1970: nothing that writes a time would work."""
    if (now := time.time()) < OLDEST_CLOCK:
        year = 1970 + now / (365.25 * 86400)
        raise ConfigError(
            f"the clock of this machine says {year:.0f}: set it (`date -s`, or a time service), and repeat"
        )


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    """Raise the system's error that no more files can be opened as one message with a remedy."""
    try:
        yield
    except OSError as error:
        if error.errno not in OPEN_FILES:
            raise
        raise too_few_files() from None


def _printable(text: str) -> str:
    """Return the text with control characters escaped: it may quote a file, and a terminal would obey them."""
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)


def _say(line: str) -> None:
    with contextlib.suppress(OSError):  # a terminal that is gone
        print(line, file=sys.stderr, flush=True)


class _Terminated(KeyboardInterrupt):
    """A signal that ends a command as Ctrl-C does."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


def _terminated(number: int, frame: object) -> None:
    for repeated in set(STOPPING_SIGNALS) - set(INTERRUPTING):
        signal.signal(repeated, signal.SIG_IGN)  # a closed terminal may send its signal twice
    raise _Terminated(number)
