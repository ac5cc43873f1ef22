"""Stopping politely: the first signal asks a run to save its state and stop, a second one interrupts it."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_signal: signal.Signals | None = None


def requested() -> bool:
    """Tell whether this process was asked to stop, within a block of `heeding`."""
    return _signal is not None


def asked_by() -> signal.Signals | None:
    """Return the signal that asked this process to stop; None if none did."""
    return _signal


@contextmanager
def heeding() -> Iterator[None]:
    """Have SIGTERM and Ctrl-C only ask to stop, within the block; a second signal interrupts at once.

    An ignored Ctrl-C stays ignored. Outside the main thread nothing changes, because signals do not arrive there.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    global _signal
    _signal = None
    names = [name for name in (signal.SIGTERM, signal.SIGINT) if signal.getsignal(name) is not signal.SIG_IGN]
    handlers = {name: signal.signal(name, _note_signal) for name in names}
    try:
        yield
    finally:
        for name, handler in handlers.items():
            signal.signal(name, handler)


def _note_signal(name: int, frame: FrameType | None) -> None:
    global _signal
    if _signal:
        raise KeyboardInterrupt
    _signal = signal.Signals(name)
