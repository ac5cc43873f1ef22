"""States of runs, kept for other runs to begin with (`dash_core.beginnings`), in a folder that may be removed.

A kept state is `<key>.ckpt`, a second name of the run's own checkpoint where the disk has such names, and `<key>.json`,
which describes it and is written last. Of a complete run the description alone is kept: its folder has the weights.
"""

import hashlib
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from safetensors.torch import load

from dash_core.beginnings import Beginning, Course, State, begin_with, of_complete_run
from dash_core.checkpoint import STATE_FILE, load_checkpoint
from dash_core.config import RunConfig, digest_of
from dash_core.errors import RecordError
from dash_core.files import DiskError, replaced_when_done, write_atomically
from dash_core.records import read_records
from dash_core.result import WEIGHTS_FILE
from dash_core.trajectory import Trajectory
from tasks.store.place import Place

logger = logging.getLogger(__name__)
MOST_BYTES = 4 * 2**30  # of kept states in a store; the oldest are removed first
MACHINE_FACTS = ("device", "device_type", "threads", "torch")  # only where they are equal are bits equal
PROCESSES = "processes"  # the fact of a run that several train together: sums over them are rounded otherwise


class Beginnings:
    """The kept states of the runs that may share them with one run, in its place."""

    def __init__(self, run: RunConfig, place: Place, machine: dict[str, object]) -> None:
        """machine: facts of this machine, as results record them."""
        facts = [*MACHINE_FACTS, *([PROCESSES] if PROCESSES in machine else [])]
        here = digest_of([str(machine.get(name)) for name in facts])[:10]
        self._folder = family_folder(run, place) / here
        self._place = place
        self._run = run

    def find(self, course: Course) -> State | None:
        """Return the state that saves the run most, as one to begin with; None if there is none."""
        reaches = [(course.reach(beginning), path, beginning) for path, beginning in self._described()]
        for reach, path, beginning in sorted(reaches, key=lambda found: found[0], reverse=True):
            if reach and (state := self._load(path, beginning)) is not None:
                logger.info("run %s begins with %g experiments of %s", self._run.id, reach, beginning.source)
                return begin_with(state, beginning, reach)
        return None

    def keep(self, trajectory: Trajectory) -> None:
        """Keep the state that the trajectory has just saved with a record, if other runs may need it."""
        if len(trajectory.rank_counts) == 1 and trajectory.course.keeps(trajectory.records):
            self._write(trajectory.course.beginning(trajectory.records), trajectory.folder / STATE_FILE)

    def keep_result(self, trajectory: Trajectory) -> None:
        """Describe a complete run, which is the result too of a run that differs only in limits it did not reach."""
        if len(trajectory.rank_counts) > 1:
            return
        weights = hashlib.sha256((trajectory.folder / WEIGHTS_FILE).read_bytes()).hexdigest()
        self._write(trajectory.course.beginning(trajectory.records, weights), None)

    def _described(self) -> Iterator[tuple[Path, Beginning]]:
        for path in sorted(self._folder.glob("*.json")):
            with suppress(OSError, ValueError):  # removed meanwhile, or damaged
                yield path, Beginning.from_json(path.read_text(encoding="utf-8"))

    def _load(self, path: Path, beginning: Beginning) -> State | None:
        """Return a kept state; None if it is damaged or gone."""
        if beginning.weights is None:
            return load_checkpoint(path.with_suffix(".ckpt"))
        folder = self._place.store / "runs" / beginning.source
        with suppress(OSError, ValueError, RecordError):
            records, weights = read_records(folder), (folder / WEIGHTS_FILE).read_bytes()
            same = hashlib.sha256(weights).hexdigest() == beginning.weights
            if same and len(records) == len(beginning.ended):
                return of_complete_run(load(weights), records)
        return None

    def _write(self, beginning: Beginning, state: Path | None) -> None:
        """Write a description, after its state; a full disk costs no run its result."""
        path = self._folder / f"{beginning.key[:20]}.json"
        if path.exists():
            return
        try:
            if state is not None:
                with replaced_when_done(path.with_suffix(".ckpt"), durable=False) as unfinished:
                    _link(state, unfinished)
            write_atomically(path, beginning.to_json().encode(), durable=False)
            _remove_oldest(self._place)
        except (DiskError, OSError) as error:
            logger.warning("a state for other runs to begin with is not kept: %s", error)


def family_folder(run: RunConfig, place: Place) -> Path:
    """Return the folder of all states that the run may ever share: of one setting and seed, of any method."""
    setting = [run.dataset.identity, run.chunks, run.model.identity, run.optimizer.identity, run.seed]
    return place.beginnings / digest_of(setting)[:16]


def forget_beginnings(run: RunConfig, place: Place) -> None:
    """Remove the states that the run might begin with."""
    shutil.rmtree(family_folder(run, place), ignore_errors=True)


def _link(state: Path, name: Path) -> None:
    """Give a file a second name; copy it where the disk has no such names."""
    try:
        os.link(state, name)
    except OSError:
        shutil.copyfile(state, name)


def _remove_oldest(place: Place) -> None:
    """Remove the oldest kept states until the rest is small enough."""
    sizes = {}
    for path in place.beginnings.rglob("*.ckpt"):
        with suppress(OSError):
            status = path.stat()
            sizes[path] = status.st_mtime_ns, status.st_size
    total = sum(size for _, size in sizes.values())
    for path in sorted(sizes, key=sizes.__getitem__)[:-1]:
        if total <= MOST_BYTES:
            return
        total -= sizes[path][1]
        path.with_suffix(".json").unlink(missing_ok=True)
        path.unlink(missing_ok=True)
