"""The records of a run that were added since the last look, read without reading the others again."""

from pathlib import Path

from dash_core.records import RECORDS_FILE, ChunkRecord


class NewRecords:
    """Follows the records in one run's folder while another process appends to them."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / RECORDS_FILE
        self._start = 0  # byte where the last line that was read begins
        self._last_line = b""

    def read(self) -> tuple[bool, list[ChunkRecord]]:
        """Return whether the file is another one than before, and the new records: all of them in that case.

        A record says in milliseconds when it was made, so the last line that was read tells two files apart. A torn
        or damaged line and all that follows it are left out until they are mended: training says what is wrong.
        """
        content = self._content()
        another = not content.startswith(self._last_line)
        if another:
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
        return another, records

    def _content(self) -> bytes:
        try:
            with self._path.open("rb") as file:
                file.seek(self._start)
                return file.read()
        except FileNotFoundError:
            return b""
