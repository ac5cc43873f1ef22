"""ProgressCallback: called by long work with its progress; the caller decides how to show it."""

from collections.abc import Callable

ProgressCallback = Callable[[str, int, int], None]  # what, done, total; total is 0 if unknown


def silent(what: str, done: int, total: int) -> None:
    """Ignore the progress."""
