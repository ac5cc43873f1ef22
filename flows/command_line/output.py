"""Printing to any terminal, file or pipe, whatever its encoding and width."""

import codecs
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

PIPE_WIDTH = 140  # columns: a comparison's table fits
STAND_INS = {"–": "-", "—": "-", "−": "-", "·": ".", "…": ".", "×": "x", "→": ">", "²": "2"}  # one column each


def accept_every_character() -> None:
    """Have standard output and error replace characters that their encoding lacks, instead of failing."""
    codecs.register_error("dashpipe", _stand_in)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="dashpipe")


def _stand_in(error: UnicodeError) -> tuple[str, int]:
    """Return the ASCII stand-ins of the characters that could not be encoded, or their escapes."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    missing = error.object[error.start : error.end]
    words = (STAND_INS.get(c) or c.encode("ascii", "backslashreplace").decode() for c in missing)
    return "".join(words), error.end


def output_console() -> "Console":
    """Return the console of long output: as wide as its terminal; in a file or a pipe at least PIPE_WIDTH columns."""
    from rich.console import Console

    console = Console()
    return console if console.is_terminal else Console(width=max(console.width, PIPE_WIDTH))


def say(console: "Console", line: str) -> None:
    """Print a line as it is: without markup, and never cut."""
    console.print(line, markup=False, highlight=False, soft_wrap=True)
