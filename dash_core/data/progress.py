"""ProgressCallback: how long work tells whoever watches how far it is; drawing it is the caller's."""

from collections.abc import Callable

ProgressCallback = Callable[[str, int, int], None]  # what, done, total; total is 0 where it is not known


def silent(what: str, done: int, total: int) -> None:
    """Tell nobody."""
