"""The one warning of a command that lost MLflow."""

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from tasks.outage import REMEDY, Breaker
from tasks.place import Place

LOOK = 0.5  # seconds between two looks: it may be a worker that loses MLflow


@contextmanager
def warned_of_outage(place: Place) -> Iterator[Breaker]:
    """Lend the block a breaker for its tracking, and warn on stderr once if MLflow fails, whichever process sees it."""
    breaker, ended = Breaker.of(place.services), threading.Event()

    def watch() -> None:
        while breaker.reason is None:
            if ended.wait(LOOK):
                break
        if reason := breaker.reason:
            print(f"warning: MLflow failed: {reason}; the runs go on. {REMEDY}", file=sys.stderr, flush=True)

    watcher = threading.Thread(target=watch, name="mlflow-watch", daemon=True)
    watcher.start()
    try:
        yield breaker
    finally:
        ended.set()
        watcher.join()
        breaker.reset()
