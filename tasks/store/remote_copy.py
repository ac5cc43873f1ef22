"""A copy of each run's folder in an object store, or wherever fsspec reaches: it outlives the machine's own disk.

A run trains in its folder on the machine. After each save the copy gets the state, after each record the records, and
at the end the result. A run that begins takes up the copy where that is ahead of its folder. `copy.json` says how far a
copy is, and is written last. A copy that cannot be written costs a warning, and the next save tries again.
"""

import json
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from dash_core.checkpoint import STATE_FILE
from dash_core.errors import ConfigError, public_address
from dash_core.files import write_atomically
from dash_core.records import RECORDS_FILE
from dash_core.result import RESULT_FILE, WEIGHTS_FILE
from tasks.store.attempts import saved_steps, steps_of

logger = logging.getLogger("dash_core.remote_copy")  # the science's warnings are printed
NOTE_FILE = "copy.json"
KEPT_WEIGHTS = "weights-*.safetensors"
COMPLETE_FILES = ("config.yaml", RECORDS_FILE, WEIGHTS_FILE, RESULT_FILE)  # in the order in which they are written


class RemoteCopy:
    """The copy of one run's folder below an address, such as s3://bucket/project."""

    def __init__(self, address: str, folder: Path) -> None:
        """ConfigError if fsspec has no client for such an address."""
        import fsspec

        self._folder, self._address = folder, address
        self._state: str | None = None  # file of the copy's state
        try:
            self._files, root = fsspec.core.url_to_fs(address)
        except (ImportError, ValueError) as error:
            raise ConfigError(
                f"compare.mirror: {public_address(address)} cannot be used ({error}); s3:// needs s3fs, gs:// gcsfs, "
                "az:// adlfs: install it on every machine (`uv pip install s3fs`)"
            ) from None
        self._root = f"{root.rstrip('/')}/runs/{folder.name}"

    def take_up(self) -> str | None:
        """Bring the copy to the folder if it is ahead of it; return what was brought, None if nothing.

        ConfigError if the copy cannot be read or is damaged: training would begin anew, and write over it.
        """
        if (self._folder / RESULT_FILE).exists():
            return None
        with self._readable():
            note = self._note()
            if note.get("complete"):
                for name in note["files"]:
                    write_atomically(self._folder / Path(name).name, self._files.cat_file(self._path(name)))
                return "its result"
            if note.get("steps", 0) > saved_steps(self._folder):
                write_atomically(self._folder / STATE_FILE, self._files.cat_file(self._path(note["state"])))
                return f"its state after {note['steps']} steps"
        return None

    def put_state(self, state: Mapping[str, Any]) -> None:
        """Copy the state that was just saved to the folder's file, beside the earlier one until it is whole."""
        with self._warned():
            steps, earlier = steps_of(state), self._state
            name = f"state-{steps}.ckpt"
            self._put(STATE_FILE, name)
            self._write_note({"steps": steps, "state": name, "complete": False})
            self._state = name
            if earlier not in (None, name):
                self._remove_file(earlier)

    def put_records(self) -> None:
        """Copy the records, and the configuration beside them, for readers of the copy: the state contains them."""
        with self._warned():
            self._put(RECORDS_FILE)
            self._put("config.yaml")

    def put_result(self) -> None:
        """Copy a complete run, and remove its state."""
        with self._warned():
            with suppress(ValueError):  # a damaged note is written anew
                if self._note().get("complete"):
                    return
            kept = [path.name for path in sorted(self._folder.glob(KEPT_WEIGHTS))]
            for name in (names := [*kept, *COMPLETE_FILES]):
                self._put(name)
            self._write_note({"complete": True, "files": names})
            if self._state:
                self._remove_file(self._state)

    def remove(self) -> None:
        """Remove the copy: its run is trained from its first step."""
        with self._readable(), suppress(FileNotFoundError):
            self._files.rm(self._root, recursive=True)

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    def _put(self, name: str, as_name: str | None = None) -> None:
        self._files.makedirs(self._root, exist_ok=True)
        self._files.pipe_file(self._path(as_name or name), (self._folder / name).read_bytes())

    def _remove_file(self, name: str) -> None:
        with suppress(FileNotFoundError):
            self._files.rm_file(self._path(name))

    def _note(self) -> dict[str, Any]:
        """Return what the copy says of itself, empty if there is none; ValueError if that is damaged."""
        try:
            note = json.loads(self._files.cat_file(self._path(NOTE_FILE)))
        except FileNotFoundError:
            return {}
        if not isinstance(note, dict):
            raise ValueError(f"{NOTE_FILE} is damaged")
        self._state = note.get("state")
        return note

    def _write_note(self, note: Mapping[str, Any]) -> None:
        self._files.pipe_file(self._path(NOTE_FILE), json.dumps(note).encode())

    @contextmanager
    def _readable(self) -> Iterator[None]:
        try:
            yield
        except ConfigError:
            raise
        except Exception as error:  # each client has errors of its own
            raise ConfigError(
                f"compare.mirror: {public_address(self._address)} cannot be read ({type(error).__name__}: {error}); "
                "mend that, or leave the mirror out with compare.mirror=null"
            ) from None

    @contextmanager
    def _warned(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            logger.warning(
                "%s is not copied to %s (%s: %s); the next save tries again",
                self._folder.name,
                public_address(self._address),
                type(error).__name__,
                error,
            )


def remote_copy(address: str | None, folder: Path) -> RemoteCopy | None:
    """Return the copy of a run's folder; None without an address."""
    return RemoteCopy(address, folder) if address else None


def after_state(copy: RemoteCopy | None) -> Callable[[Mapping[str, Any]], None]:
    """Return what is done with a state that was saved: it is copied, if there is a copy."""
    return copy.put_state if copy else lambda state: None
