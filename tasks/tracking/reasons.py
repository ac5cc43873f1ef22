"""Errors of MLflow as one short line without passwords."""

import re

MAX_CHARACTERS = 200  # of a reason


def explain(error: Exception) -> str:
    """Return an error of MLflow's client as one line of at most MAX_CHARACTERS, without the passwords in addresses."""
    text = without_password(" ".join(str(error).split()) or type(error).__name__)
    if cause := re.search(r"Caused by \w+\([\"']?(?:\w+\([^)]*\): )?(.+?)[\"')]*$", text):
        text = cause[1]
    return text if len(text) <= MAX_CHARACTERS else f"{text[:MAX_CHARACTERS]} …"


def without_password(text: str) -> str:
    """Return a text with user and password removed from the addresses in it."""
    return re.sub(r"//\S*@", "//", text)  # up to the last @: a password may contain one, and a slash
