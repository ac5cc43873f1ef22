"""The state of a stream, derived from the entries of its ledger by a pure function.

The ledger is the truth. An entry is a mapping with `kind`, `at` (Unix time in seconds) and the fields of its kind:

    created    name, contract (the whole of it); the first entry, and only the first
    contract   contract, reason: a person changed it, for example by adding a class
    arrival    arrival, source, outcome, counts; where it became a chunk: chunk, chain, train; where images were held
               out: held_out, held_digest
    trained    model: its weights_sha256, chunk and parent, and what it cost
    generation last, images: the held-out images of the arrivals after the generation before, up to `last`
    look       challenger, champion: written before the two are compared
    verdict    model, verdict, details; it ends an unfinished look, and releases the model if it passed
    released   model, by, reason: by a person, or taken back
    decided    a person's decisions on images that were set aside

Light to import: nothing here needs torch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dash_core.errors import RecordError

Entry = Mapping[str, Any]
ID_LENGTH = 12  # hex digits of the weights' hash that name a model


@dataclass(frozen=True)
class Arrival:
    """One delivery. outcome: "admitted", "duplicate" (nothing in it was new) or "set aside" (nothing could be used).

    chunk, chain: its number among the chunks and the digest of all chunks up to it; None if it brought no training
    image. set_aside: number of images by reason. known: images that were there already. converted: grey images.
    """

    number: int
    digest: str
    source: str
    outcome: str
    at: int
    train: int = 0
    held_out: int = 0
    held_digest: str = ""
    chunk: int | None = None
    chain: str | None = None
    known: int = 0
    set_aside: Mapping[str, int] = field(default_factory=dict)

    @property
    def images(self) -> int:
        """Number of images that it brought."""
        return self.train + self.held_out + self.known + sum(self.set_aside.values())


@dataclass(frozen=True)
class ModelEntry:
    """One trained model. id: the first 12 hex digits of weights_sha256. chunk: the last chunk that it trained on.

    experiment: its number in the run of its ancestors. accuracy: on the hold-out generation of its time.
    flops, seconds: of its intervention and training.
    """

    id: str
    weights_sha256: str
    chunk: int
    chain: str
    parent: str | None
    experiment: int
    accuracy: float
    images: int
    steps: int
    epochs: int
    converged: bool
    seconds: float
    flops: int
    code: str
    at: int


@dataclass(frozen=True)
class Generation:
    """One generation of the hold-out: the held-out images of arrivals `first` to `last`. looks: used so far."""

    number: int
    first: int
    last: int
    images: int
    at: int
    looks: int = 0


@dataclass(frozen=True)
class Look:
    """One comparison. number: in its generation, from 1. verdict: None until the comparison is finished."""

    number: int
    generation: int
    challenger: str
    champion: str
    at: int
    verdict: str | None = None


@dataclass(frozen=True)
class Verdict:
    """What the gate said of a model. details: digest of the file with its sentences and numbers."""

    model: str
    verdict: str
    details: str
    look: int | None
    generation: int | None
    at: int


@dataclass(frozen=True)
class Release:
    """One change of the champion. by: "first", "gate", "person" or "rollback"."""

    number: int
    model: str
    previous: str | None
    by: str
    reason: str
    at: int


@dataclass(frozen=True)
class StreamState:
    """Everything that the ledger says. champion, previous, challenger, anchor: ids of models, or None.

    ledger_id: hash of the first line, the stream's own identity. head: hash of the last line.
    """

    name: str
    contract: Mapping[str, Any]
    contract_digest: str
    ledger_id: str
    head: str
    arrivals: tuple[Arrival, ...] = ()
    models: Mapping[str, ModelEntry] = field(default_factory=dict)
    generations: tuple[Generation, ...] = ()
    looks: tuple[Look, ...] = ()
    verdicts: tuple[Verdict, ...] = ()
    releases: tuple[Release, ...] = ()
    decided: Mapping[str, str] = field(default_factory=dict)
    champion: str | None = None
    previous: str | None = None
    anchor: str | None = None
    rejected: frozenset[str] = frozenset()

    @property
    def chunks(self) -> list[Arrival]:
        """The arrivals that became chunks, oldest first."""
        return [arrival for arrival in self.arrivals if arrival.chunk is not None]

    @property
    def latest(self) -> ModelEntry | None:
        """The model that was trained last."""
        return next(reversed(self.models.values()), None)

    @property
    def challenger(self) -> str | None:
        """The model that was trained last, if it is neither champion nor taken back."""
        latest = self.latest
        if latest is None or latest.id == self.champion or latest.id in self.rejected:
            return None
        return latest.id

    @property
    def generation(self) -> Generation | None:
        """The current generation of the hold-out."""
        return self.generations[-1] if self.generations else None

    @property
    def looks_left(self) -> int:
        """Comparisons that the current generation still allows; all of them before the first."""
        allowed = self.contract["gate"]["looks"]
        return allowed - self.generation.looks if self.generation else allowed

    @property
    def untrained(self) -> Arrival | None:
        """The newest chunk, if no model has been trained on it."""
        chunks, latest = self.chunks, self.latest
        if not chunks or (latest is not None and latest.chunk >= chunks[-1].chunk):
            return None
        return chunks[-1]

    @property
    def unjudged(self) -> ModelEntry | None:
        """The latest model, if the gate has said nothing of it."""
        latest = self.latest
        if latest is None or any(verdict.model == latest.id for verdict in self.verdicts):
            return None
        return latest

    @property
    def unfinished_look(self) -> Look | None:
        """A comparison that was begun and has no verdict."""
        return self.looks[-1] if self.looks and self.looks[-1].verdict is None else None

    @property
    def parent(self) -> ModelEntry | None:
        """The model from which the next one continues: the latest, or the champion after a rollback or by contract."""
        latest = self.latest
        champion = self.models.get(self.champion) if self.champion else None
        if latest is None or champion is None:
            return latest
        rejected = any(model in self.rejected for model in self.lineage(latest.id))
        return champion if rejected or self.contract["parent"] == "champion" else latest

    def lineage(self, model: str | None) -> list[str]:
        """Return the ids of a model and of its ancestors, the oldest first."""
        found: list[str] = []
        while model is not None:
            found.append(model)
            model = self.models[model].parent
        return found[::-1]

    def ends(self, model: str | None) -> list[int]:
        """Return the last chunk of each experiment of a model's lineage."""
        return [self.models[ancestor].chunk for ancestor in self.lineage(model)]

    def unseen(self) -> list[Arrival]:
        """Return the arrivals whose held-out images belong to no generation yet."""
        last = self.generation.last if self.generation else 0
        return [arrival for arrival in self.arrivals if arrival.number > last and arrival.held_out]


def state_of(entries: Sequence[Entry], hashes: Sequence[str]) -> StreamState:
    """Return the state after the given entries; hashes: of their lines. RecordError for an impossible history."""
    if not entries or entries[0]["kind"] != "created":
        raise RecordError("a ledger begins with the entry `created`")
    first = entries[0]
    history = _History(first["contract"])
    for number, entry in enumerate(entries[1:], start=2):
        try:
            getattr(history, f"add_{entry['kind']}")(entry)
        except (AttributeError, KeyError, TypeError, IndexError, StopIteration) as error:
            raise RecordError(f"line {number}: no valid entry of a ledger ({error!r})") from None
    return StreamState(
        name=first["name"],
        contract=history.contract,
        contract_digest=history.contract_digest or first["contract_digest"],
        ledger_id=hashes[0],
        head=hashes[-1],
        arrivals=tuple(history.arrivals),
        models=history.models,
        generations=tuple(history.generations),
        looks=tuple(history.looks),
        verdicts=tuple(history.verdicts),
        releases=tuple(history.releases),
        decided=history.decided,
        champion=history.releases[-1].model if history.releases else None,
        previous=history.releases[-1].previous if history.releases else None,
        anchor=history.anchor,
        rejected=frozenset(history.rejected),
    )


class _History:
    """What has happened, entry by entry."""

    def __init__(self, contract: Mapping[str, Any]) -> None:
        self.contract = contract
        self.contract_digest: str | None = None
        self.arrivals: list[Arrival] = []
        self.models: dict[str, ModelEntry] = {}
        self.generations: list[Generation] = []
        self.looks: list[Look] = []
        self.verdicts: list[Verdict] = []
        self.releases: list[Release] = []
        self.decided: dict[str, str] = {}
        self.anchor: str | None = None
        self.rejected: set[str] = set()

    def add_contract(self, entry: Entry) -> None:
        self.contract, self.contract_digest = entry["contract"], entry["contract_digest"]

    def add_arrival(self, entry: Entry) -> None:
        self.arrivals.append(Arrival(number=len(self.arrivals) + 1, at=entry["at"], **entry["arrival"]))

    def add_trained(self, entry: Entry) -> None:
        about = entry["model"]
        chunk = next(arrival for arrival in reversed(self.arrivals) if arrival.chunk == about["chunk"])
        model = ModelEntry(id=about["weights_sha256"][:ID_LENGTH], chain=chunk.chain, at=entry["at"], **about)
        self.models[model.id] = model

    def add_generation(self, entry: Entry) -> None:
        first = self.generations[-1].last + 1 if self.generations else 1
        number = len(self.generations) + 1
        self.generations.append(Generation(number, first, entry["last"], entry["images"], entry["at"]))

    def add_look(self, entry: Entry) -> None:
        current = self.generations[-1]
        number = current.looks + 1
        self.generations[-1] = Generation(**{**vars(current), "looks": number})
        self.looks.append(Look(number, current.number, entry["challenger"], entry["champion"], entry["at"]))

    def add_verdict(self, entry: Entry) -> None:
        look = self.looks[-1] if self.looks and self.looks[-1].verdict is None else None
        if look:
            self.looks[-1] = Look(**{**vars(look), "verdict": entry["verdict"]})
        numbers = (look.number, look.generation) if look else (None, None)
        verdict = Verdict(entry["model"], entry["verdict"], entry["details"], *numbers, entry["at"])
        self.verdicts.append(verdict)
        if entry["verdict"] == "pass":
            by = "gate" if self.releases else "first"
            self._release(entry["model"], by, entry.get("reason", ""), entry["at"])
            if entry.get("anchor"):
                self.anchor = entry["model"]

    def add_released(self, entry: Entry) -> None:
        if entry["by"] == "rollback":
            self.rejected.add(self.releases[-1].model)
        else:
            self.anchor = entry["model"]
        self.rejected.discard(entry["model"])
        self._release(entry["model"], entry["by"], entry["reason"], entry["at"])

    def add_decided(self, entry: Entry) -> None:
        self.decided.update(entry["images"])

    def _release(self, model: str, by: str, reason: str, at: int) -> None:
        if model not in self.models:
            raise KeyError(model)
        previous = self.releases[-1].model if self.releases else None
        self.releases.append(Release(len(self.releases) + 1, model, previous, by, reason, at))
