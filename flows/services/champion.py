"""The model that a stream serves follows the stream's champion; a model that fails its checks never replaces it."""

import json
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from dash_core.errors import DashError
from dash_core.exporting import ExportedModel, open_export

POINTER_FILE = "champion.json"
POLL_SECONDS = 0.5
_MODEL = re.compile(r"[0-9a-f]{6,64}")


class NoChampion(DashError):
    """The stream has no champion that can be served."""


@dataclass(frozen=True)
class Pointer:
    """What a stream's `champion.json` says. release: number of the release that made the model the champion."""

    stream: str
    model: str
    weights_sha256: str
    release: int


@dataclass(frozen=True)
class ServedModel:
    """A model that answers requests. since: when it began to, in seconds of Unix time."""

    pointer: Pointer
    exported: ExportedModel
    since: float


def read_pointer(folder: Path) -> Pointer:
    """Return the pointer of a stream's folder; NoChampion says what is wrong with it."""
    path = folder / POINTER_FILE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        pointer = Pointer(content["stream"], content["model"], content["weights_sha256"], int(content["release"]))
        if not _MODEL.fullmatch(pointer.model):
            raise ValueError(f"{pointer.model!r} is no model")
    except FileNotFoundError:
        raise NoChampion(f"{folder} has no champion yet ({POINTER_FILE} is missing)") from None
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise NoChampion(f"{path} is damaged ({error})") from None
    return pointer


def open_champion(folder: Path, pointer: Pointer) -> ExportedModel:
    """Open the model that a pointer names; it must answer its golden images and have the pointer's weights."""
    exported = open_export(folder / "models" / pointer.model / "export")
    weights = exported.card.facts.get("weights_sha256")
    if weights != pointer.weights_sha256:
        raise DashError(f"model {pointer.model}: the export is of other weights than {POINTER_FILE} names")
    return exported


class Champion:
    """The champion of a stream, opened; `follow` swaps it when the pointer names another model.

    A swap replaces one reference, so a request that was begun with a model ends with the same model. The model before
    stays open, so that a rollback takes no time. A model that fails its checks is refused: the one before answers on,
    and `refusal` says why.
    """

    def __init__(self, folder: Path, say: Callable[[str], None] = print) -> None:
        """Open the champion of a stream's folder. DashError if there is none, or if it fails its checks."""
        self._folder, self._say = folder, say
        pointer = read_pointer(folder)
        self.current = ServedModel(pointer, open_champion(folder, pointer), time.time())
        self.previous: ServedModel | None = None
        self.refusal: str | None = None
        self._refused: tuple[object, ...] | None = None
        self._stopped = threading.Event()

    def look(self) -> bool:
        """Read the pointer once, and swap the model if it names another; return whether it was swapped."""
        try:
            pointer = read_pointer(self._folder)
        except NoChampion as error:
            self._refuse(str(error), ("pointer", str(error)))
            return False
        if pointer == self.current.pointer:
            self.refusal = self._refused = None
            return False
        try:
            exported = self._opened(pointer)
        except DashError as error:
            self._refuse(f"model {pointer.model} is refused: {error}", (pointer, self._stamp(pointer)))
            return False
        if exported is None:
            return False
        self.previous, self.current = self.current, ServedModel(pointer, exported, time.time())
        self.refusal = self._refused = None
        self._say(f"serving model {pointer.model} (release {pointer.release})")
        return True

    def follow(self) -> threading.Thread:
        """Look at the pointer again and again, in a thread, until `stop`."""
        thread = threading.Thread(target=self._follow, name="champion", daemon=True)
        thread.start()
        return thread

    def stop(self) -> None:
        """End the thread."""
        self._stopped.set()

    def _follow(self) -> None:
        while not self._stopped.wait(POLL_SECONDS):
            try:
                self.look()
            except Exception as error:  # whatever it is, the model that is served must answer on
                self._refuse(f"the champion cannot be followed: {error}", (repr(error),))

    def _opened(self, pointer: Pointer) -> ExportedModel | None:
        """Return the model, opened or open already; None if the same files were refused before."""
        for served in (self.current, self.previous):
            if served is not None and served.pointer.model == pointer.model:
                return served.exported
        return None if self._refused == (pointer, self._stamp(pointer)) else open_champion(self._folder, pointer)

    def _stamp(self, pointer: Pointer) -> object:
        """Return what changes when a model's files are written again."""
        try:
            return (self._folder / "models" / pointer.model / "export" / "model.json").stat().st_mtime_ns
        except OSError:
            return None

    def _refuse(self, reason: str, cause: tuple[object, ...]) -> None:
        if cause != self._refused:
            self._say(f"{reason}; model {self.current.pointer.model} answers on")
        self.refusal, self._refused = reason, cause
