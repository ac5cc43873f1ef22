"""Warnings of `dash_core` on the terminal: what it skips, reduces or starts again.

Only the command's own process prints, above its live display. Its workers send their warnings to it.
"""

import contextlib
import logging
import sys
from collections.abc import Callable, Iterator

SCIENCE_LOGGER = logging.getLogger("dash_core")

_notices: "Notices | None" = None  # of the command that this process does


class Notices(logging.Handler):
    """Prints each warning once, as a line of its own on stderr."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._printed: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        """Print the record's message unless it was printed before."""
        self.say(record.getMessage())

    def say(self, message: str) -> None:
        """Print a warning unless it was printed before."""
        with self.lock:
            if message not in self._printed:
                self._printed.add(message)
                print(f"warning: {message}", file=sys.stderr, flush=True)


class Sender(logging.Handler):
    """Sends each warning to the process that prints."""

    def __init__(self, send: Callable[[str], None]) -> None:
        super().__init__(logging.WARNING)
        self._send = send

    def emit(self, record: logging.LogRecord) -> None:
        """Send the record's message."""
        self._send(record.getMessage())


def handle_warnings(handler: logging.Handler) -> None:
    """Send the warnings of `dash_core` to a handler, whatever level an import has set on the root logger."""
    SCIENCE_LOGGER.addHandler(handler)
    if SCIENCE_LOGGER.level == logging.NOTSET:
        SCIENCE_LOGGER.setLevel(logging.WARNING)


@contextlib.contextmanager
def warnings_shown() -> Iterator[None]:
    """Print the warnings of `dash_core` within the block, those of worker processes too."""
    global _notices
    _notices = Notices()
    handle_warnings(_notices)
    try:
        yield
    finally:
        SCIENCE_LOGGER.removeHandler(_notices)
        _notices = None


def notices_of_command() -> Notices:
    """Return the handler that prints this command's warnings, each once; outside of a command a new one."""
    return _notices or Notices()
