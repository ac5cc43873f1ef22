"""Warnings of the science on the terminal: what it passed over, made smaller or began again is always said.

Only the command's own process prints, above its live display; its workers send it what they have to say.
"""

import contextlib
import logging
import sys
import threading
from collections.abc import Iterator
from multiprocessing.connection import Connection

SCIENCE = logging.getLogger("dash_core")


class Notices(logging.Handler):
    """Prints each warning once, as a line of its own on stderr."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._said: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        """Print the record's message unless it was printed before."""
        self.say(record.getMessage())

    def say(self, message: str) -> None:
        """Print a warning unless it was printed before."""
        with self.lock:
            if message not in self._said:
                self._said.add(message)
                print(f"warning: {message}", file=sys.stderr, flush=True)

    def listen(self, worker: Connection) -> threading.Thread:
        """Print what a worker sends, until the other end is closed; return the thread that does."""

        def read() -> None:
            with contextlib.suppress(EOFError, OSError):
                while True:
                    self.say(worker.recv_bytes().decode())

        thread = threading.Thread(target=read, name="worker-notices", daemon=True)
        thread.start()
        return thread


class Sender(logging.Handler):
    """Sends each warning to the process that prints."""

    def __init__(self, printer: Connection) -> None:
        super().__init__(logging.WARNING)
        self._printer = printer

    def emit(self, record: logging.LogRecord) -> None:
        """Send the record's message; nobody hears it where that process is gone."""
        with contextlib.suppress(OSError):
            self._printer.send_bytes(record.getMessage().encode())


def handle_warnings(handler: logging.Handler) -> None:
    """Give the science's warnings to a handler, whatever level an import gave to the root logger."""
    SCIENCE.addHandler(handler)
    if SCIENCE.level == logging.NOTSET:
        SCIENCE.setLevel(logging.WARNING)


@contextlib.contextmanager
def warnings_shown() -> Iterator[None]:
    """Print the science's warnings within the block."""
    notices = Notices()
    handle_warnings(notices)
    try:
        yield
    finally:
        SCIENCE.removeHandler(notices)
