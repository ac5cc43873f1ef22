"""ChunkRecord, one row a chunk, and the append-only file it is kept in before anything else hears of it."""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from dash_core.cost import Cost
from dash_core.errors import RecordError
from dash_core.files import write_atomically

FILE = "chunks.jsonl"


@dataclass(frozen=True)
class ChunkRecord:
    """What one experiment gave and what it cost.

    chunk: j, counted from 1; images: in the union of chunks 1..j; accuracies in [0, 1]; losses in nats;
    steps, epochs: of this experiment; cost: by phase; diagnostics: by name; finished_at: Unix time in ms.
    """

    chunk: int
    images: int
    test_accuracy: float
    test_loss: float
    class_accuracy: tuple[float | None, ...]
    train_accuracy: float
    train_loss: float
    steps: int
    epochs: int
    converged: bool
    cost: Mapping[str, Cost] = field(default_factory=dict)
    diagnostics: Mapping[str, float] = field(default_factory=dict)
    finished_at: int = 0

    @property
    def total_cost(self) -> Cost:
        """All phases together."""
        return sum(self.cost.values(), Cost())

    def result(self) -> dict[str, Any]:
        """Return the record without what differs between two equal runs: seconds, memory and time of day."""
        row = asdict(self)
        del row["finished_at"]
        row["cost"] = {phase: cost.flops for phase, cost in self.cost.items()}
        return row

    def to_json(self) -> str:
        """Return the record as one line."""
        return json.dumps(asdict(self), allow_nan=False)

    @classmethod
    def from_json(cls, line: str) -> "ChunkRecord":
        """Return the record of a line; ValueError if it is not one."""
        row = json.loads(line)
        if not isinstance(row, dict) or set(row) != {f.name for f in fields(cls)}:
            raise ValueError("not the fields of a chunk record")
        row["class_accuracy"] = tuple(row["class_accuracy"])
        row["cost"] = {phase: Cost(**cost) for phase, cost in row["cost"].items()}
        return cls(**row)


def append_record(folder: Path, record: ChunkRecord) -> None:
    """Append one line to the run's records and wait until it is on disk."""
    with (folder / FILE).open("a", encoding="utf-8") as file:
        file.write(record.to_json() + "\n")
        file.flush()
        os.fsync(file.fileno())


def read_records(folder: Path) -> list[ChunkRecord]:
    """Return the run's records in order; a torn last line is left out. RecordError if any other is damaged."""
    path = folder / FILE
    if not path.exists():
        return []
    *lines, rest = path.read_text(encoding="utf-8", errors="replace").split("\n")
    records = []
    for number, line in enumerate(lines, start=1):
        try:
            records.append(ChunkRecord.from_json(line))
            if records[-1].chunk != number:
                raise ValueError(f"chunk {records[-1].chunk} stands where chunk {number} should")
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            if number == len(lines) and not rest:  # a damaged last line: its chunk is recorded again
                return records[: number - 1]
            raise RecordError(
                f"{path}, line {number} is damaged ({error}); remove the run's folder to run it again"
            ) from None
    return records


def rewrite_records(folder: Path, records: list[ChunkRecord]) -> None:
    """Replace the run's records by the given ones, atomically."""
    write_atomically(folder / FILE, "".join(record.to_json() + "\n" for record in records).encode())
