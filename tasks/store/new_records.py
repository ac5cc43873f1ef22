"""New records of a run, read without reading the earlier ones again."""

from pathlib import Path

from dash_core.records import RECORDS_FILE, ChunkRecord


class NewRecords:
    """Reads the records in one run's folder while another process appends to them."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / RECORDS_FILE
        self._start = 0  # byte where the last line that was read begins
        self._last_line = b""

    def read(self) -> tuple[bool, list[ChunkRecord]]:
        """Return whether the file was replaced since the last call, and the new records: if it was, all of them.

        Each record contains its time in milliseconds, so the last line that was read identifies the file. A torn or
        damaged line and the lines after it are left out until they are repaired; training reports the damage.
        """
        content = self._content()
        replaced = not content.startswith(self._last_line)
        if replaced:
            self._start, self._last_line = 0, b""
            content = self._content()
        records = []
        end = self._start + len(self._last_line)
        for line in content[len(self._last_line) :].splitlines(keepends=True):
            try:
                if not line.endswith(b"\n"):
                    break
                records.append(ChunkRecord.from_json(line.decode()))
            except ValueError:
                break
            self._start, self._last_line = end, line
            end += len(line)
        return replaced, records

    def _content(self) -> bytes:
        try:
            with self._path.open("rb") as file:
                file.seek(self._start)
                return file.read()
        except FileNotFoundError:
            return b""
