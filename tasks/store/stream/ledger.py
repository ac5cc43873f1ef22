"""The ledger of a stream: an append-only file of JSON lines, each with a hash of the line before, synced one by one.

Light to import: nothing here needs torch.
"""

import hashlib
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dash_core.errors import RecordError
from dash_core.files import naming

LEDGER_FILE = "ledger.jsonl"
HASH_LENGTH = 32  # hex digits of a line's hash: 128 bits, so that a thousand arrivals fit in a megabyte


class Ledger:
    """The entries of one stream. `entries` and `hashes` are those on disk; `append` adds one and waits for the disk.

    Only the owner of the stream's lock may append.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.entries: list[dict[str, Any]] = []
        self.hashes: list[str] = []
        self._end = 0  # bytes of whole lines
        self._read()

    def append(self, kind: str, **fields: Any) -> None:
        """Add an entry; if its line cannot be written, nothing of it stays."""
        entry = {"kind": kind, "at": int(time.time()), **fields}
        line = _line(self.hashes[-1] if self.hashes else "", entry)
        with naming(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab", buffering=0) as file:
                file.truncate(self._end)  # the rest of a line that a crash left
                file.seek(0, os.SEEK_END)
                try:
                    left = line
                    while left:
                        left = left[file.write(left) :]
                    os.fsync(file.fileno())
                except BaseException:
                    file.truncate(self._end)
                    raise
        self._end += len(line)
        self._add(line, entry)

    def _add(self, line: bytes, entry: dict[str, Any]) -> None:
        self.entries.append(entry)
        self.hashes.append(_hash(line))

    def _read(self) -> None:
        """Read the file; a torn last line is left out. RecordError for a line that does not follow the one before."""
        if not self.path.exists():
            return
        with naming(self.path):
            content = self.path.read_bytes()
        *lines, _ = content.split(b"\n")
        for number, text in enumerate(lines, start=1):
            line = text + b"\n"
            before = self.hashes[-1] if self.hashes else ""
            entry = _entry(line)
            if entry is None or entry.pop("before", None) != before:
                if number == len(lines) and self._end + len(line) == len(content) and entry is None:
                    return  # torn in its middle, with the line's end on the disk already
                raise RecordError(
                    f"{self.path}, line {number} was changed, or the line before it: the ledger can no longer be "
                    "trusted. Bring back the file from git or from a copy; nothing is trained or released until then"
                )
            self._end += len(line)
            self._add(line, entry)


def _line(before: str, entry: Mapping[str, Any]) -> bytes:
    return json.dumps({"before": before, **entry}, separators=(",", ":"), allow_nan=False).encode() + b"\n"


def _hash(line: bytes) -> str:
    return hashlib.sha256(line).hexdigest()[:HASH_LENGTH]


def _entry(line: bytes) -> dict[str, Any] | None:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return entry if isinstance(entry, dict) and {"before", "kind", "at"} <= entry.keys() else None
