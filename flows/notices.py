"""Warnings of the science on the terminal: what it passed over, made smaller or began again is always said."""

import contextlib
import logging
import sys
from collections.abc import Iterator

SCIENCE = logging.getLogger("dash_core")


class Notices(logging.Handler):
    """Prints each warning once, as a line of its own on stderr, also across a live display."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._said: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        """Print the record's message unless it was printed before."""
        line = f"warning: {record.getMessage()}"
        if line not in self._said:
            self._said.add(line)
            start = "\r\x1b[K" if sys.stderr.isatty() else ""
            sys.stderr.write(f"{start}{line}\n")
            sys.stderr.flush()


@contextlib.contextmanager
def warnings_shown() -> Iterator[None]:
    """Print the science's warnings within the block."""
    notices = show_warnings()
    try:
        yield
    finally:
        SCIENCE.removeHandler(notices)


def show_warnings() -> Notices:
    """Print the science's warnings from now on, whatever level an import gave to the root logger."""
    notices = Notices()
    SCIENCE.addHandler(notices)
    if SCIENCE.level == logging.NOTSET:
        SCIENCE.setLevel(logging.WARNING)
    return notices
