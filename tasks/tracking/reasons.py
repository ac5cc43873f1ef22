"""Errors of MLflow as one short line without passwords."""

import re

from dash_core.errors import DashError, without_password

MAX_CHARACTERS = 200  # of a reason


def explain(error: Exception) -> str:
    """Return an error of MLflow's client as one line of at most MAX_CHARACTERS, without the passwords in addresses.

    An error of ours says what to do, so it is never cut.
    """
    text = without_password(" ".join(str(error).split()) or type(error).__name__)
    if isinstance(error, DashError):
        return text
    if cause := re.search(r"Caused by \w+\([\"']?(?:\w+\([^)]*\): )?(.+?)[\"')]*$", text):
        text = cause[1]
    return text if len(text) <= MAX_CHARACTERS else f"{text[:MAX_CHARACTERS]} …"
