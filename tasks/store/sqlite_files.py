"""Database files of SQLite: whether one is damaged, how its path is written in an address, and how long it may be."""

import sqlite3
import time
from contextlib import closing
from pathlib import Path
from urllib.parse import quote, unquote

CHECK_SECONDS = 2.0  # a larger database is checked in part
CHECK_STEPS = 100_000  # of SQLite's virtual machine, between two looks at the clock
LONGEST_STORE = 470  # bytes of a store's path: SQLite opens files of at most 504, our names below a store have up to 27
MISREAD = "?", ":memory:", "mode=memory"  # in a path that stands in an address as it is
PYTHONS_DRIVER = "pysqlite"  # SQLAlchemy's name of the driver that it uses by default
FILE_URI = "file:"  # SQLite's own form of an address, in which every character can be written


def damage_of(path: Path) -> str | None:
    """Return what is wrong with a database file; None if nothing is, or if it does not exist.

    The check ends after CHECK_SECONDS. A database that another process writes to is in order.
    """
    if not path.exists():
        return None
    deadline = time.monotonic() + CHECK_SECONDS
    try:
        with closing(sqlite3.connect(f"{FILE_URI}{quote(str(path))}?mode=rw", uri=True, timeout=1)) as database:
            database.set_progress_handler(lambda: time.monotonic() > deadline, CHECK_STEPS)
            (verdict,) = database.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.OperationalError as error:
        in_order = "interrupted", "locked", "readonly"  # of a database that can only be read, others say more
        return None if any(word in str(error) for word in in_order) else str(error)
    except sqlite3.DatabaseError as error:
        return str(error)
    return None if verdict == "ok" else " ".join(verdict.split())


def sqlite_url(path: Path, driver: str = "") -> str:
    """Return the SQLAlchemy address of a database file, such as sqlite:////folder/file.db; every path has one.

    A path would end at a `?`, and Prefect takes one with `:memory:` for no file. So these are written as SQLite's own
    kind of address, percent-encoded, and with the driver's name: without it MLflow would take the address for a path.
    """
    if any(word in str(path) for word in MISREAD):
        return f"sqlite+{driver or PYTHONS_DRIVER}:///{FILE_URI}{quote(str(path))}?uri=true"
    return f"sqlite+{driver}:///{path}" if driver else f"sqlite:///{path}"


def path_in(url: str) -> Path | None:
    """Return the path of the database file that an address names; None if it is of another kind."""
    scheme, separator, rest = url.partition(":///")
    if not separator or scheme not in ("sqlite", f"sqlite+{PYTHONS_DRIVER}"):
        return None
    place, _, options = rest.partition("?")
    if place.startswith(FILE_URI) and "uri=true" in options.split("&"):
        return Path(unquote(place.removeprefix(FILE_URI)))
    return Path(place)
