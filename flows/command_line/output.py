"""Printing to any terminal, file or pipe, whatever its encoding and width."""

import codecs
import contextlib
import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, TextIO

from dash_core.errors import DashError

if TYPE_CHECKING:
    from rich.console import Console

PIPE_WIDTH = 140  # columns: a comparison's table fits
STAND_INS = {"–": "-", "—": "-", "−": "-", "·": ".", "…": ".", "×": "x", "→": ">", "²": "2"}  # one column each


class UnwrittenOutput(DashError, OSError):
    """Standard output cannot be written, for example because a full disk holds it."""


class _Output:
    """A text stream whose errors say that it is the output which cannot be written; a closed pipe stays one."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        with _named():
            return self._stream.write(text)

    def writelines(self, lines: Iterable[str]) -> None:
        with _named():
            self._stream.writelines(lines)

    def flush(self) -> None:
        with _named():
            self._stream.flush()


@contextlib.contextmanager
def _named() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise UnwrittenOutput(
            f"standard output cannot be written ({error.strerror or error}): send it to a place with space, and repeat "
            "the command; what is trained stays"
        ) from None


def prepare_output() -> None:
    """Have standard output and error replace characters that their encoding lacks, and name output that is lost."""
    codecs.register_error("dashpipe", _stand_in)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="dashpipe")
    if sys.stdout is not None:
        sys.stdout = _Output(sys.stdout)


def _stand_in(error: UnicodeError) -> tuple[str, int]:
    """Return the ASCII stand-ins of the characters that could not be encoded, or their escapes."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    missing = error.object[error.start : error.end]
    words = (STAND_INS.get(c) or c.encode("ascii", "backslashreplace").decode() for c in missing)
    return "".join(words), error.end


def output_console() -> "Console":
    """Return the console of long output: as wide as its terminal; in a file or a pipe at least PIPE_WIDTH columns.

    It prints texts as they are: names of datasets, classes and machines may look like markup.
    """
    from rich.console import Console

    plain = {"markup": False, "emoji": False, "highlight": False}
    console = Console(**plain)
    return console if console.is_terminal else Console(width=max(console.width, PIPE_WIDTH), **plain)


def say(console: "Console", line: str) -> None:
    """Print a line as it is: without markup, and never cut."""
    console.print(line, markup=False, highlight=False, soft_wrap=True)
