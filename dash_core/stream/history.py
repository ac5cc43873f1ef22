"""Derive the state of a stream from the entries of its ledger: a pure function. Light to import: no torch."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from dash_core.errors import RecordError
from dash_core.stream.chain import chained_without
from dash_core.stream.state import (
    ID_LENGTH,
    Arrival,
    Generation,
    Look,
    ModelEntry,
    Observation,
    Release,
    StreamState,
    VerdictEntry,
)

Entry = Mapping[str, Any]
TAKEN_BACK = ("rollback", "harm")  # releases that reject the champion before them
VOID = "void"  # verdict of a comparison whose challenger was retracted before it was finished


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
        tainted=frozenset(history.tainted),
        observations=tuple(history.observations),
        start=history.start,
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
        self.verdicts: list[VerdictEntry] = []
        self.releases: list[Release] = []
        self.decided: dict[str, str] = {}
        self.anchor: str | None = None
        self.rejected: set[str] = set()
        self.tainted: set[str] = set()
        self.observations: list[Observation] = []
        self.start: str | None = None

    def add_contract(self, entry: Entry) -> None:
        self.contract, self.contract_digest = entry["contract"], entry["contract_digest"]

    def add_arrival(self, entry: Entry) -> None:
        self.arrivals.append(Arrival(number=len(self.arrivals) + 1, at=entry["at"], **entry["arrival"]))

    def add_trained(self, entry: Entry) -> None:
        about, last = entry["model"], entry["model"]["chunk"]
        chunk = next(arrival for arrival in reversed(self.arrivals) if arrival.chunk == last)
        gone = [one for one in self.arrivals if one.chunk is not None and one.retracted and one.chunk < last]
        chain = chained_without(chunk.chain, [one.chain for one in gone])
        without = tuple(one.chunk for one in gone)
        name = about["weights_sha256"][:ID_LENGTH]
        self.models.pop(name, None)  # the same data from the same beginning: it becomes the latest again
        self.models[name] = ModelEntry(id=name, chain=chain, at=entry["at"], without=without, **about)
        self.start = None

    def add_observed(self, entry: Entry) -> None:
        numbers = {key: entry[key] for key in ("arrival", "images", "won", "lost")}
        self.observations.append(Observation(release=len(self.releases), **numbers))

    def add_generation(self, entry: Entry) -> None:
        first = self.generations[-1].last + 1 if self.generations else 1
        number = len(self.generations) + 1
        self.generations.append(Generation(number, first, entry["last"], entry["images"], entry["at"]))

    def add_look(self, entry: Entry) -> None:
        current = self.generations[-1]
        number = current.looks + 1
        self.generations[-1] = replace(current, looks=number)
        self.looks.append(Look(number, current.number, entry["challenger"], entry["champion"], entry["at"]))

    def add_verdict(self, entry: Entry) -> None:
        look = self.looks[-1] if self.looks and self.looks[-1].verdict is None else None
        if look:
            self.looks[-1] = replace(look, verdict=entry["verdict"])
        numbers = (look.number, look.generation) if look else (None, None)
        verdict = VerdictEntry(entry["model"], entry["verdict"], entry["details"], *numbers, entry["at"])
        self.verdicts.append(verdict)
        if entry["verdict"] == "pass":
            by = "gate" if self.releases else "first"
            self._release(entry["model"], by, entry.get("reason", ""), entry["at"])
            if entry.get("anchor"):
                self.anchor = entry["model"]

    def add_released(self, entry: Entry) -> None:
        if entry["by"] in TAKEN_BACK:
            self.rejected.add(self.releases[-1].model)
        else:
            self.anchor = entry["model"]
        self.rejected.discard(entry["model"])
        self._release(entry["model"], entry["by"], entry["reason"], entry["at"])

    def add_decided(self, entry: Entry) -> None:
        self.decided.update(entry["images"])

    def add_retracted(self, entry: Entry) -> None:
        index = entry["arrival"] - 1
        gone = self.arrivals[index] = replace(self.arrivals[index], retracted=entry["reason"])
        if gone.chunk is not None:
            self.tainted |= {
                model.id
                for model in self.models.values()
                if model.chunk >= gone.chunk and gone.chunk not in model.without
            }
        if self.generations and self.generations[-1].first <= gone.number <= self.generations[-1].last:
            current = self.generations[-1]
            self.generations[-1] = replace(current, images=current.images - gone.held_out)
        if self.looks and self.looks[-1].verdict is None and self.looks[-1].challenger in self.tainted:
            self.looks[-1] = replace(self.looks[-1], verdict=VOID)
        if self.anchor in self.tainted:
            self.anchor = None
        self.start = entry.get("start")
        if "champion" in entry:
            self._release(entry["champion"], "retract", entry["reason"], entry["at"])

    def _release(self, model: str, by: str, reason: str, at: int) -> None:
        if model not in self.models:
            raise KeyError(model)
        previous = self.releases[-1].model if self.releases else None
        self.releases.append(Release(len(self.releases) + 1, model, previous, by, reason, at))
