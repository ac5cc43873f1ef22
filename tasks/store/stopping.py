"""Stopping politely: the first signal asks a run to save its state, the second one insists."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_asked: signal.Signals | None = None


def requested() -> bool:
    """Tell whether this process was asked to stop what it does within `heeding`."""
    return _asked is not None


def asked_by() -> signal.Signals | None:
    """Return the signal by which this process was asked to stop, if it was."""
    return _asked


@contextmanager
def heeding() -> Iterator[None]:
    """Within the block SIGTERM, and Ctrl-C where it is not ignored, only ask; a second one interrupts at once.

    Outside the main thread nothing changes: signals do not arrive there.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    global _asked
    _asked = None
    names = [name for name in (signal.SIGTERM, signal.SIGINT) if signal.getsignal(name) is not signal.SIG_IGN]
    found = {name: signal.signal(name, _ask) for name in names}
    try:
        yield
    finally:
        for name, handler in found.items():
            signal.signal(name, handler)


def _ask(name: int, frame: FrameType | None) -> None:
    global _asked
    if _asked:
        raise KeyboardInterrupt
    _asked = signal.Signals(name)
