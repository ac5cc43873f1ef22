"""The folder of a stream: where its files are, its contract and settings, its state, its lock.

    stream.yaml         the contract, frozen, and settings that may be changed
    ledger.jsonl        everything that happened: the truth
    chunks/             one file for each chunk: the training images of one arrival
    holdout/            one file for each arrival's held-out images
    quarantine/         what was set aside, with its reasons
    models/             one folder for each trained model
    evaluations/        what models said about the hold-out, and verdicts
    champion.json       the released model, for servers
    retracted.json      numbers of the chunks and hold-outs that a person took out; absent if there are none
    report/             the page

Light to import: nothing here needs torch until a contract is parsed.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from dash_core.errors import ConfigError, RecordError
from dash_core.files import write_atomically
from dash_core.stream.chain import CHUNKS, HELD_OUT, RETRACTED_FILE
from dash_core.stream.history import state_of
from dash_core.stream.state import StreamState
from tasks.store.stream.ledger import LEDGER_FILE, Ledger

if TYPE_CHECKING:
    from dash_core.stream.contract import Contract

STREAMS, CONTRACT_FILE, POINTER_FILE = "streams", "stream.yaml", "champion.json"
SETTLE_SECONDS = 5.0
SETTINGS: dict[str, Any] = {  # of stream.yaml, which a person may change at any time
    "inbox": None,  # folder of deliveries
    "settle_seconds": SETTLE_SECONDS,  # a delivery without manifest or marker is complete after so long a rest
    "drift": "report",  # or "hold": a delivery unlike earlier ones waits for a person
    "dvc": False,  # add chunks, hold-out and models to DVC after each pass
}


@dataclass(frozen=True)
class StreamFolder:
    """The folder of one stream."""

    path: Path

    @classmethod
    def of(cls, store: Path, name: str) -> "StreamFolder":
        """Return the folder of a stream in a store; ConfigError if there is none."""
        folder = cls(store / STREAMS / name)
        if not folder.ledger_file.exists():
            known = sorted(path.parent.name for path in (store / STREAMS).glob(f"*/{LEDGER_FILE}"))
            listing = f"known: {', '.join(known)}" if known else "none was created here"
            raise ConfigError(
                f"no stream {name!r} in {store / STREAMS} ({listing}): `dashpipe stream create` makes one"
            )
        return folder

    @property
    def name(self) -> str:
        """The stream's name."""
        return self.path.name

    @property
    def ledger_file(self) -> Path:
        """The ledger."""
        return self.path / LEDGER_FILE

    @property
    def models(self) -> Path:
        """Folder of the trained models."""
        return self.path / "models"

    @property
    def evaluations(self) -> Path:
        """Folder of outcomes and verdicts."""
        return self.path / "evaluations"

    @property
    def quarantine(self) -> Path:
        """Folder of what was set aside."""
        return self.path / "quarantine"

    @property
    def accepted(self) -> Path:
        """Folder of deliveries that a person made of what was set aside."""
        return self.path / "accepted"

    @property
    def training(self) -> Path:
        """Folder of the training under way."""
        return self.path / "training"

    @property
    def cache(self) -> Path:
        """Folder of what can be made again."""
        return self.path / ".cache"

    @property
    def lock_file(self) -> Path:
        """The lock that one pass, rollback or decision at a time holds."""
        return self.cache / "stream.lock"

    def numbered(self, kind: str, number: int, digest: str) -> Path:
        """Return the file of a chunk or of an arrival's hold-out. kind: `chunks` or `holdout`."""
        return self.path / kind / f"{number:04d}-{digest[:12]}.safetensors"

    def model(self, model: str) -> Path:
        """Return the folder of a model."""
        return self.models / model

    @cached_property
    def _content(self) -> dict[str, Any]:
        path = self.path / CONTRACT_FILE
        try:
            content = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (OSError, yaml.YAMLError) as error:
            raise RecordError(f"{path} cannot be read ({error}); bring it back") from None
        if not isinstance(content, dict) or not {"contract", "settings"} <= content.keys():
            raise RecordError(f"{path}: it needs `contract` and `settings`; bring it back")
        return content

    @property
    def settings(self) -> dict[str, Any]:
        """The settings that may be changed; ConfigError for an unknown one."""
        try:
            given = self._content["settings"] or {}
        except RecordError:
            if (self.path / CONTRACT_FILE).exists():
                raise
            given = {}  # the file is missing: `sync` writes it anew, with the defaults
        if unknown := sorted(given.keys() - SETTINGS.keys()):
            known = ", ".join(SETTINGS)
            raise ConfigError(f"{self.path / CONTRACT_FILE}: unknown setting {unknown[0]!r}; known: {known}")
        return SETTINGS | given

    def contract(self, state: StreamState) -> "Contract":
        """Return the contract of the ledger; RecordError if stream.yaml says something else."""
        from dash_core.config import parse
        from dash_core.stream.contract import Contract

        contract = parse(Contract, state.contract, "contract")
        written = parse(Contract, self._content["contract"], "contract")
        if contract.digest != state.contract_digest or written != contract:
            raise RecordError(
                f"{self.path / CONTRACT_FILE}: the contract was changed, and it is frozen; bring the file back "
                "(`dashpipe stream sync` writes it anew), use `stream add-class`, or create another stream"
            )
        return contract

    def says(self, contract: "Contract") -> bool:
        """Tell whether stream.yaml contains this contract."""
        from dash_core.config import parse
        from dash_core.errors import DashError
        from dash_core.stream.contract import Contract

        try:
            return parse(Contract, self._content["contract"], "contract") == contract
        except DashError:
            return False

    def write_contract(self, contract: "Contract", settings: dict[str, Any]) -> None:
        """Write stream.yaml."""
        content = {"contract": contract.model_dump(mode="json"), "settings": settings}
        text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
        write_atomically(self.path / CONTRACT_FILE, text.encode())

    def read(self) -> tuple[Ledger, StreamState]:
        """Return the ledger and the state that it says."""
        ledger = Ledger(self.ledger_file)
        return ledger, self.state(ledger)

    def state(self, ledger: Ledger) -> StreamState:
        """Return the state that a ledger says."""
        try:
            return state_of(ledger.entries, ledger.hashes)
        except RecordError as error:
            raise RecordError(f"{self.ledger_file}: {error}") from None

    def point(self, state: StreamState) -> None:
        """Make champion.json and retracted.json say what the ledger says."""
        self._list_retracted(state)
        if not state.releases:
            return
        release = state.releases[-1]
        model = state.models[release.model]
        content = {
            "stream": self.name,
            "model": model.id,
            "weights_sha256": model.weights_sha256,
            "release": release.number,
        }
        text = (json.dumps(content, indent=2) + "\n").encode()
        path = self.path / POINTER_FILE
        if not path.exists() or path.read_bytes() != text:
            write_atomically(path, text)

    def _list_retracted(self, state: StreamState) -> None:
        """Write which chunks and hold-outs the dataset `stream` leaves out."""
        gone = [arrival for arrival in state.arrivals if arrival.retracted is not None]
        path = self.path / RETRACTED_FILE
        if not gone:
            path.unlink(missing_ok=True)
            return
        chunks = [arrival.chunk for arrival in gone if arrival.chunk is not None]
        text = json.dumps({CHUNKS: chunks, HELD_OUT: [arrival.number for arrival in gone]}).encode() + b"\n"
        if not path.exists() or path.read_bytes() != text:
            write_atomically(path, text)

    def mark_published(self, state: StreamState) -> None:
        """Remember that every view shows this state."""
        write_atomically(self.cache / "published", state.head.encode(), durable=False)

    def is_published(self, state: StreamState) -> bool:
        """Tell whether every view shows this state."""
        file = self.cache / "published"
        return file.exists() and file.read_text() == state.head

    def verdict(self, model: str) -> dict[str, Any]:
        """Return the sentences and numbers of a model's verdict."""
        return json.loads((self.evaluations / f"verdict-{model}.json").read_text(encoding="utf-8"))

    @contextmanager
    def locked(self, *, wait: bool = True) -> Iterator[None]:
        """Hold the stream for this process alone within the block."""
        from tasks.store.locks import locked

        with locked(self.lock_file, f"stream {self.name}", wait=wait):
            yield
