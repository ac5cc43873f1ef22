"""Errors that the user can fix: each message says what was given, what is allowed and what to do."""

import re


class DashError(Exception):
    """Base class of all errors raised on purpose; the message is shown without a traceback."""


class ConfigError(DashError):
    """A setting is wrong: the message names the key, the value and what is allowed."""


class DataError(DashError):
    """Data are missing or damaged: the message names the file or the key."""


class RecordError(DashError):
    """A record, plan or checkpoint on disk cannot be used: the message names the file."""


class StopRequested(DashError):
    """A run was asked to stop: its state is on disk, and the next start continues from it."""


class TrainingError(DashError):
    """Training cannot continue: the message says experiment, epoch, step and the likely cause."""


def without_password(text: str) -> str:
    """Return a text, such as an error that may be printed, with user and password removed from the addresses in it."""
    return re.sub(r"(?<!/)//(?!/)\S*@", "//", text)  # up to the last @: a password may contain one, and a slash


def public_address(url: str) -> str:
    """Return one address without user and password, whatever characters they contain; a path keeps each @."""
    scheme, _, rest = url.partition("://")
    return url if rest.startswith("/") or "@" not in rest else f"{scheme}://{rest.rpartition('@')[2]}"
