"""The state of a stream: everything that its ledger says. `dash_core.stream.history` derives it from the entries.

The ledger is the truth. An entry is a mapping with `kind`, `at` (Unix time in seconds) and the fields of its kind:

    created    name, contract (the whole of it); the first entry, and only the first
    contract   contract, reason: a person changed it, for example by adding a class
    arrival    arrival, source, outcome, counts; where it became a chunk: chunk, chain, train; where images were held
               out: held_out, held_digest
    observed   arrival, champion, previous, images, won, lost: what both answered on a chunk before it was trained on;
               won: only the champion was right, lost: only the previous model was
    trained    model: its weights_sha256, chunk and parent, and what it cost
    generation last, images: the held-out images of the arrivals after the generation before, up to `last`
    look       challenger, champion: written before the two are compared
    verdict    model, verdict, details; it ends an unfinished look, and releases the model if it passed
    released   model, by, reason: by a person, or taken back
    decided    a person's decisions on images that were set aside
    retracted  arrival, reason: a person takes a delivery out of everything that follows; start: where the next model
               begins; champion: the earlier release that is served from now on

Light to import: nothing here needs torch.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from dash_core.stream.chain import chained_without

ID_LENGTH = 12  # hex digits of the weights' hash that name a model
SCRATCH = "scratch"  # where a model begins that continues from none


@dataclass(frozen=True)
class Arrival:
    """One delivery. outcome: "admitted", "duplicate" (nothing in it was new) or "set aside" (nothing could be used).

    chunk, chain: its number among the chunks and the digest of all chunks up to it; None if it brought no training
    image. set_aside: number of images by reason. known: images that were there already. retracted: why a person took
    it out of everything that follows; None: it is in use.
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
    retracted: str | None = None

    @property
    def images(self) -> int:
        """Number of images that it brought."""
        return self.train + self.held_out + self.known + sum(self.set_aside.values())


@dataclass(frozen=True)
class ModelEntry:
    """One trained model. id: the first 12 hex digits of weights_sha256. chunk: the last chunk that it trained on.

    chain: digest of all its data. without: earlier chunks that had been retracted. experiment: its number in the run of
    its ancestors. accuracy: on the hold-out generation of its time. flops, seconds: of its intervention and training.
    stopped: the bound of the budget that ended its training; None: it ended by itself.
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
    stopped: str | None = None
    without: tuple[int, ...] = ()


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
class VerdictEntry:
    """What the gate said of a model. details: digest of the file with its sentences and numbers."""

    model: str
    verdict: str
    details: str
    look: int | None
    generation: int | None
    at: int


@dataclass(frozen=True)
class Release:
    """One change of the champion. by: "first", "gate", "person", "rollback", "harm" or "retract"."""

    number: int
    model: str
    previous: str | None
    by: str
    reason: str
    at: int


@dataclass(frozen=True)
class Observation:
    """What champion and previous answered on a delivery before it was trained on; release: the champion's.

    won: only the champion was right. lost: only the previous model was.
    """

    arrival: int
    release: int
    images: int
    won: int
    lost: int


@dataclass(frozen=True)
class StreamState:
    """Everything that the ledger says. champion, previous, challenger, anchor: ids of models, or None.

    ledger_id: hash of the first line, the stream's own identity. head: hash of the last line. rejected: models that
    were taken back. tainted: models that were trained on a delivery that was retracted later. start: the model, or
    SCRATCH, that a person chose for the next model to begin with.
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
    verdicts: tuple[VerdictEntry, ...] = ()
    releases: tuple[Release, ...] = ()
    decided: Mapping[str, str] = field(default_factory=dict)
    champion: str | None = None
    previous: str | None = None
    anchor: str | None = None
    rejected: frozenset[str] = frozenset()
    tainted: frozenset[str] = frozenset()
    observations: tuple[Observation, ...] = ()
    start: str | None = None

    @property
    def chunks(self) -> list[Arrival]:
        """The arrivals that became chunks, oldest first, with those that were retracted."""
        return [arrival for arrival in self.arrivals if arrival.chunk is not None]

    @property
    def used_chunks(self) -> list[Arrival]:
        """The chunks that the next model trains on, oldest first."""
        return [arrival for arrival in self.chunks if arrival.retracted is None]

    @property
    def data_digest(self) -> str | None:
        """The digest of all that the next model trains on; None if there is no chunk in use."""
        used = self.used_chunks
        if not used:
            return None
        return chained_without(
            used[-1].chain, [one.chain for one in self.chunks if one.retracted and one.chunk < used[-1].chunk]
        )

    @property
    def latest(self) -> ModelEntry | None:
        """The model that was trained last, of those whose data are all in use."""
        return next((model for model in reversed(self.models.values()) if model.id not in self.tainted), None)

    @property
    def challenger(self) -> str | None:
        """The latest model, if it is neither champion nor taken back."""
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
        """The newest chunk, if no model has been trained on all chunks in use, or if a person chose a new beginning."""
        chunks, latest = self.used_chunks, self.latest
        if not chunks or (self.start is None and latest is not None and latest.chunk >= chunks[-1].chunk):
            return None
        return chunks[-1]

    @property
    def unjudged(self) -> ModelEntry | None:
        """The latest model, if the gate has said nothing of it and nobody released it."""
        latest = self.latest
        if latest is None or latest.id == self.champion or any(verdict.model == latest.id for verdict in self.verdicts):
            return None
        return latest

    @property
    def unfinished_look(self) -> Look | None:
        """A comparison that was begun and has no verdict."""
        return self.looks[-1] if self.looks and self.looks[-1].verdict is None else None

    @property
    def parent(self) -> ModelEntry | None:
        """The model from which the next one continues, or None.

        It is what a person chose at the last retraction, or else the latest model, or the champion after a rollback or
        by contract. A model that was trained on retracted data is never continued.
        """
        if self.start is not None:
            return self.models.get(self.start)
        latest, champion = self.latest, None
        if self.champion and self.champion not in self.tainted:
            champion = self.models[self.champion]
        if latest is None:
            return None
        if champion is not None and (self.contract["parent"] == "champion" or not self._is_sound(latest)):
            return champion
        return next((model for model in reversed(self.models.values()) if self._is_sound(model)), None)

    def _is_sound(self, model: ModelEntry) -> bool:
        """Tell whether neither a model nor an ancestor was taken back or trained on retracted data."""
        return not (self.rejected | self.tainted).intersection(self.lineage(model.id))

    @property
    def returnable(self) -> list[str]:
        """The models that a rollback may return to, the last of them first by default: released, and not taken back."""
        released = dict.fromkeys(release.model for release in self.releases)
        return [model for model in released if model != self.champion and model not in self.rejected | self.tainted]

    @property
    def observed(self) -> list[Observation]:
        """What the champion and the model before it answered on deliveries since the last release.

        Empty where the model before it is no measure: there is none, or it was itself taken back.
        """
        if self.previous is None or self.previous in self.rejected | self.tainted:
            return []
        gone = {arrival.number for arrival in self.arrivals if arrival.retracted is not None}
        return [one for one in self.observations if one.release == len(self.releases) and one.arrival not in gone]

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
        return [one for one in self.arrivals if one.number > last and one.held_out and one.retracted is None]
