"""What the page of a stream shows, read from the stream's state and the files of its evaluations."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dash_core.stream.harm import Harm, harm_of
from dash_core.stream.state import ModelEntry, StreamState


@dataclass(frozen=True)
class StreamContent:
    """The state of a stream, and what belongs to it.

    verdicts: the content of each verdict's file, by model. inspections: what was found in arrivals before they were
    trained on, by the arrival's number.
    """

    state: StreamState
    verdicts: Mapping[str, Mapping[str, Any]]
    inspections: Mapping[int, Mapping[str, Any]]

    @property
    def champion(self) -> ModelEntry | None:
        """The released model."""
        return self.state.models.get(self.state.champion) if self.state.champion else None

    @property
    def harm(self) -> Harm | None:
        """What deliveries since the last release say about the champion; None if they say nothing."""
        return harm_of(self.state)

    @property
    def newest_verdict(self) -> tuple[ModelEntry, Mapping[str, Any]] | None:
        """The model that the gate judged last, and its verdict; None before the first."""
        judged = [verdict.model for verdict in self.state.verdicts if verdict.model in self.verdicts]
        return (self.state.models[judged[-1]], self.verdicts[judged[-1]]) if judged else None

    @property
    def set_aside(self) -> dict[str, int]:
        """Number of images that were set aside, by reason, the most frequent first; decided ones are included."""
        counts: dict[str, int] = {}
        for arrival in self.state.arrivals:
            for reason, count in arrival.set_aside.items():
                counts[reason] = counts.get(reason, 0) + count
        return dict(sorted(counts.items(), key=lambda item: -item[1]))

    @property
    def undecided(self) -> int:
        """Number of images that were set aside and wait for a person."""
        return sum(self.set_aside.values()) - len(self.state.decided)

    def champions(self) -> list[tuple[ModelEntry, str | None]]:
        """Return each trained model, oldest first, with the champion after its verdict."""
        champion, found = None, []
        releases = {release.model: release.at for release in self.state.releases}
        for model in self.state.models.values():
            if model.id in releases and (champion is None or releases[model.id] >= model.at):
                champion = model.id
            found.append((model, champion))
        return found


def read_content(state: StreamState, folder: Path) -> StreamContent:
    """Read what belongs to a stream's state from its folder; a file that is missing or damaged is left out."""
    evaluations = folder / "evaluations"
    verdicts = {model: _read(evaluations / f"verdict-{model}.json") for model in state.models}
    inspections = {one.number: _read(evaluations / f"arrival-{one.number:04d}.json") for one in state.arrivals}
    return StreamContent(
        state,
        {model: content for model, content in verdicts.items() if content},
        {number: content for number, content in inspections.items() if content},
    )


def _read(file: Path) -> Mapping[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def suspects_of(inspections: Mapping[int, Mapping[str, Any]], most: int) -> Sequence[Mapping[str, Any]]:
    """Return the most suspicious labels of the newest arrival that was inspected."""
    if not inspections:
        return []
    return inspections[max(inspections)].get("suspects", {}).get("listed", [])[:most]
