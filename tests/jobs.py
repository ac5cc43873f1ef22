"""What worker processes are given to do in tests; light to import."""

import logging
import os
import signal
import sys
import time
from pathlib import Path

from dash_core.errors import ConfigError
from flows.services.workers import warn_parent


def whoami() -> int:
    return os.getpid()


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def refuse(word: str) -> None:
    raise ConfigError(f"refused: {word}")


def has_imported(module: str) -> bool:
    return module in sys.modules


def divide(a: int, b: int) -> float:
    return a / b


def sleep(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


def threads() -> tuple[str, bool]:
    return os.environ["OMP_NUM_THREADS"], signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def never_mind() -> None:
    """Take no notice of a request to stop, and tell the parent once that is so."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    warn_parent("takes no notice")
    time.sleep(60)


def gpu(together=None):
    """Say which GPUs this process sees, once all have come that meet."""
    if together is not None:
        together.wait(60)
    return os.environ.get("CUDA_VISIBLE_DEVICES")


def tell(count: int, last_words: bool = False) -> None:
    """Warn the parent of numbers, in lines of which some are long; die then, if these are the last words."""
    for number in range(count):
        warn_parent(f"{number} of {count} {'x' * (number % 3 * 50_000)}".strip())
    if last_words:
        die()


def prefect_settings() -> dict:
    """Return those settings of Prefect that the user might have set elsewhere."""
    from prefect.settings import get_current_settings

    settings = get_current_settings()
    return {
        "retries": settings.tasks.default_retries,
        "flow_retries": settings.flows.default_retries,
        "level": settings.logging.level,
        "key": settings.api.key,
        "auth": settings.api.auth_string,
        "headers": settings.client.custom_headers,
    }


def warn(words: str) -> None:
    logging.getLogger("dash_core.data").warning(words)


def until_stopped(mark: str) -> None:
    """Write which signal asks to stop into a file, within the block in which runs heed signals."""
    from tasks.store import stopping

    with stopping.heeding():
        Path(mark).write_text("waits")
        while not stopping.requested():
            time.sleep(0.05)
    Path(mark).write_text(stopping.asked_by().name)


def pid_once_marked(run, place, mark: str) -> int:
    """Write this process's id into a file, and return it once another process has written there."""
    Path(mark).write_text(str(os.getpid()))
    while Path(mark).read_text() == str(os.getpid()):
        time.sleep(0.1)
    return os.getpid()
