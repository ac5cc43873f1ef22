"""The record of an experiment, and the append-only file of a run's records: one line an experiment.

A record is in the file before anything else is told about it.
"""

import json
import math
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from dash_core.cost import Cost
from dash_core.errors import RecordError
from dash_core.files import naming, write_atomically

RECORDS_FILE = "chunks.jsonl"
NUMBER_KEY = "chunk"  # the key of an experiment's number in that file


def milliseconds() -> int:
    """Return the Unix time in milliseconds, the unit of all times in records."""
    return time.time_ns() // 1_000_000


def balanced_accuracy(class_accuracy: Sequence[float | None]) -> float:
    """Return the mean of the classes' accuracies; classes without test images, None, do not count."""
    present = [accuracy for accuracy in class_accuracy if accuracy is not None]
    return math.fsum(accuracy / len(present) for accuracy in present)


@dataclass(frozen=True)
class ChunkRecord:
    """The result and the cost of one experiment.

    experiment: j, counted from 1. images: number of training images. Accuracies are in [0, 1], losses in nats.
    steps, epochs: of this experiment. converged: it reached the stop accuracy or, where the number of epochs is fixed,
    did them all. cost: by phase. diagnostics: by name. finished_at: Unix time in milliseconds.
    evaluation_batch: images in one forward pass of the test. balanced_accuracy: mean of class_accuracy; None in
    records older than this key. taken_from: id of the run that trained it, or its first epochs, if this run began with
    that one's state; its cost counts as this run's. validation_accuracy: after each epoch, empty without validation
    images. picked_epoch: the epoch, counted from 1, whose weights were kept; None: the last. process_seconds:
    wall-clock seconds, added up over the processes that trained it together (GPU-seconds); None: one process did.
    """

    __pydantic_config__: ClassVar = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)

    experiment: Annotated[int, Field(alias=NUMBER_KEY)]
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
    evaluation_batch: int = 512
    balanced_accuracy: float | None = None
    taken_from: str | None = None
    validation_accuracy: tuple[float, ...] = ()
    picked_epoch: int | None = None
    process_seconds: float | None = None

    @property
    def balanced(self) -> float:
        """The test accuracy averaged over the classes, whatever their numbers of images."""
        return balanced_accuracy(self.class_accuracy) if self.balanced_accuracy is None else self.balanced_accuracy

    @property
    def diverged(self) -> bool:
        """Whether training diverged: the train loss is far above that of a uniform guess, ln(classes).

        Far is 10 times, or twice if the experiment did not converge. A network that learns ends below 1 times.
        """
        return self.train_loss > (10 if self.converged else 2) * math.log(max(len(self.class_accuracy), 2))

    @property
    def total_cost(self) -> Cost:
        """Cost of all phases together."""
        return sum(self.cost.values(), Cost())

    def result(self) -> dict[str, Any]:
        """Return the values that are equal in two equal runs: all but seconds, memory, time of day and source."""
        row = asdict(self)
        del row["finished_at"], row["taken_from"], row["process_seconds"]
        row["cost"] = {phase: cost.flops for phase, cost in self.cost.items()}
        return row

    def to_json(self) -> str:
        """Return the record as one line."""
        row = asdict(self)
        for name in ("taken_from", "process_seconds"):
            if row[name] is None:
                del row[name]
        return json.dumps({NUMBER_KEY: row.pop("experiment"), **row}, allow_nan=False)

    def taken(self, source: str) -> "ChunkRecord":
        """Return the record as that of a run which took it from the run `source`, or from where that one took it."""
        return replace(self, taken_from=self.taken_from or source)

    @classmethod
    def from_json(cls, line: str) -> "ChunkRecord":
        """Return the record of a line; ValueError if it is not one."""
        try:
            return _reader().validate_json(line)
        except ValidationError as error:
            mistake = error.errors(include_url=False)[0]
            where = ".".join(map(str, mistake["loc"]))
            raise ValueError(f"{where}: {mistake['msg']}" if where else mistake["msg"]) from None


@cache
def _reader() -> TypeAdapter[ChunkRecord]:
    return TypeAdapter(ChunkRecord)


def append_record(folder: Path, record: ChunkRecord) -> None:
    """Append one line to the run's records and wait until it is on disk; if that fails, remove every part of it.

    DiskError names the file, the reason and the remedy.
    """
    path, line = folder / RECORDS_FILE, (record.to_json() + "\n").encode()
    with naming(path), path.open("ab", buffering=0) as file:
        end = file.tell()
        try:
            while line:
                line = line[file.write(line) :]  # a full disk writes a part, then fails
            os.fsync(file.fileno())
        except BaseException:
            file.truncate(end)
            raise


def check_present(folder: Path) -> None:
    """Raise RecordError if the records of a run were removed while it trains: they are there from its beginning."""
    path = folder / RECORDS_FILE
    if not path.exists():
        raise RecordError(f"{path} was removed while its run trained; the same command trains the run again")


def read_records(folder: Path) -> list[ChunkRecord]:
    """Return the run's records in order, without a torn last line. RecordError if another line is damaged."""
    path = folder / RECORDS_FILE
    if not path.exists():
        return []
    *lines, rest = path.read_text(encoding="utf-8", errors="replace").split("\n")
    records = []
    for number, line in enumerate(lines, start=1):
        try:
            records.append(ChunkRecord.from_json(line))
            if records[-1].experiment != number:
                raise ValueError(f"experiment {records[-1].experiment} stands where experiment {number} should")
        except ValueError as error:
            if number == len(lines) and not rest:  # a damaged last line: its experiment is recorded again
                return records[: number - 1]
            raise RecordError(
                f"{path}, line {number} is damaged ({error}); remove the run's folder to run it again"
            ) from None
    return records


def rewrite_records(folder: Path, records: list[ChunkRecord]) -> None:
    """Replace all records of the run, atomically."""
    write_atomically(folder / RECORDS_FILE, "".join(record.to_json() + "\n" for record in records).encode())
