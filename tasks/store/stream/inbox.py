"""The inbox: which deliveries are there, which are complete, and which files they hold. It is read, never changed.

A delivery is a folder directly in the inbox: `<delivery>/<class>/<image>`, or a `manifest.csv` or `manifest.jsonl` with
the columns file and label, and optionally group, size (bytes) and sha256. It is complete when

* it has a manifest, and all its files are there with the given sizes;
* or it has the marker `_DONE`;
* or nothing in it has changed for `settle_seconds`.

A listing costs one stat for each file. A delivery whose listing is known is not opened again. Light to import.
"""

import csv
import hashlib
import json
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dash_core.errors import DataError
from dash_core.files import write_atomically

MARKER = "_DONE"
MANIFESTS = ("manifest.csv", "manifest.jsonl")
EMPTY = "it is empty"
CACHE_VERSION = 1


@dataclass(frozen=True)
class Item:
    """One file of a delivery. file: relative path; label: class name, None: there is none. stamp: size and times."""

    file: str
    label: str | None
    group: str | None = None
    sha256: str | None = None
    stamp: tuple[int, int, int] = (0, 0, 0)


@dataclass(frozen=True)
class Delivery:
    """A folder in the inbox. signature: hash of its listing. waiting: why it is not complete, or None.

    seconds: until it is complete, if nothing changes and time alone is missing. accepted: a person has looked at it.
    """

    path: Path
    signature: str
    waiting: str | None = None
    seconds: float = 0.0
    items: Sequence[Item] = ()
    accepted: bool = field(default=False)

    @property
    def source(self) -> str:
        """The name under which the ledger knows it."""
        return self.path.name


class Seen:
    """The listings whose deliveries are in the ledger; a cache, which may be removed at any time."""

    def __init__(self, cache: Path) -> None:
        self._file = cache / "seen.json"
        try:
            content = json.loads(self._file.read_text(encoding="utf-8"))
            self._signatures: dict[str, str] = content["signatures"] if content["version"] == CACHE_VERSION else {}
        except (OSError, ValueError, KeyError, TypeError):
            self._signatures = {}

    def __contains__(self, delivery: Delivery) -> bool:
        return self._signatures.get(str(delivery.path)) == delivery.signature

    def add(self, delivery: Delivery) -> None:
        """Remember that a delivery with this listing is in the ledger."""
        self._signatures[str(delivery.path)] = delivery.signature
        content = {"version": CACHE_VERSION, "signatures": self._signatures}
        write_atomically(self._file, json.dumps(content).encode(), durable=False)


def deliveries(inbox: Path, classes: Sequence[str], settle_seconds: float, *, accepted: bool = False) -> list[Delivery]:
    """Return the deliveries in an inbox in the order of their names; DataError if the inbox cannot be listed."""
    try:
        with os.scandir(inbox) as entries:
            folders = sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))
    except OSError as error:
        raise DataError(f"inbox {inbox}: {error.strerror or error}; make the folder, or change stream.yaml") from None
    return [delivery(inbox / name, classes, settle_seconds, accepted=accepted) for name in folders]


def delivery(path: Path, classes: Sequence[str], settle_seconds: float, *, accepted: bool = False) -> Delivery:
    """Return one delivery and whether it is complete."""
    if path.name in classes:
        why = f"it is named like a class: put {path.name}/ into a folder for each delivery"
        return Delivery(path, "", waiting=why, seconds=float("inf"))
    digest, newest, stamps = hashlib.sha256(str(accepted).encode()), 0.0, {}
    try:
        for name, status in sorted(_walk(path, "")):
            stamp = (status.st_size, status.st_mtime_ns, status.st_ctime_ns)
            stamps[name] = stamp
            digest.update(os.fsencode(f"{name}\0") + b"%d %d %d\0" % stamp)
            newest = max(newest, status.st_mtime, status.st_ctime)
        signature = digest.hexdigest()
        listed = _manifest(path, stamps)
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = "it changes" if isinstance(error, OSError) else "its manifest cannot be read"
        return Delivery(path, "", waiting=f"{reason} ({error})", seconds=float("inf"))
    if listed is not None:
        items, missing = listed
        if missing:
            more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
            why = f"{missing[0]}{more} of its manifest is missing"
            return Delivery(path, signature, waiting=why, seconds=float("inf"))
        if not items:
            return Delivery(path, signature, waiting=EMPTY, seconds=float("inf"))
        return Delivery(path, signature, items=items, accepted=accepted)
    items = [_item(name, stamp) for name, stamp in stamps.items() if name != MARKER]
    if not items:
        return Delivery(path, signature, waiting=EMPTY, seconds=float("inf"))
    quiet = time.time() - newest
    if MARKER not in stamps and quiet < settle_seconds:
        seconds = settle_seconds - quiet
        return Delivery(path, signature, waiting=f"it changed {max(quiet, 0):.0f} s ago", seconds=seconds, items=items)
    return Delivery(path, signature, items=items, accepted=accepted)


def _walk(folder: Path, prefix: str) -> Iterator[tuple[str, os.stat_result]]:
    """Yield the relative name and status of every file; hidden ones and links out of the delivery are left out."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith(".") or entry.name == "__MACOSX":
                continue
            name = prefix + entry.name
            if entry.is_dir(follow_symlinks=False):
                yield from _walk(folder / entry.name, f"{name}/")
            else:
                yield name, entry.stat(follow_symlinks=False)


def _item(name: str, stamp: tuple[int, int, int]) -> Item:
    """Return a file of a delivery without a manifest: its label is the folder directly below the delivery."""
    label, slash, _ = name.partition("/")
    return Item(name, label if slash else None, stamp=stamp)


def _manifest(path: Path, stamps: dict[str, tuple[int, int, int]]) -> tuple[list[Item], list[str]] | None:
    """Return the files of the manifest in its order, and what is missing or of another size; None without it."""
    name = next((name for name in MANIFESTS if name in stamps), None)
    if name is None:
        return None
    items, missing = [], []
    for row in _rows(path / name):
        file = os.path.normpath(row["file"])
        stamp = stamps.get(file)
        size = row.get("size")
        if stamp is None or (size not in (None, "") and int(size) != stamp[0]):
            missing.append(file)
            continue
        items.append(Item(file, row.get("label") or None, row.get("group") or None, row.get("sha256") or None, stamp))
    return items, missing


def _rows(file: Path) -> list[dict[str, Any]]:
    text = file.read_text(encoding="utf-8-sig")
    if file.suffix == ".jsonl":
        return [json.loads(line) for line in text.splitlines() if line.strip()]
    rows = list(csv.DictReader(text.splitlines()))
    if rows and "file" not in rows[0]:
        raise ValueError("it needs the columns file and label")
    return rows
