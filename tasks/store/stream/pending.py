"""What a stream has to do next, from its ledger and its inbox alone. Light to import: an idle pass is quick."""

from dataclasses import dataclass
from pathlib import Path

from dash_core.stream.state import StreamState
from tasks.store.stream.folder import StreamFolder
from tasks.store.stream.inbox import Delivery, Seen, deliveries, delivery


@dataclass(frozen=True)
class Pending:
    """Deliveries that are complete and not in the ledger, and those that are waited for."""

    complete: tuple[Delivery, ...] = ()
    waiting: tuple[Delivery, ...] = ()

    @property
    def seconds(self) -> float | None:
        """Seconds until the next delivery is complete if nothing changes; None if time alone completes none."""
        return min((one.seconds for one in self.waiting if one.seconds != float("inf")), default=None)


def pending_deliveries(stream: StreamFolder, state: StreamState, only: Path | None = None) -> Pending:
    """Return what is pending in the inbox and among what a person accepted. only: this folder, wherever it is."""
    settings, seen = stream.settings, Seen(stream.cache)
    classes, settle = state.contract["classes"], float(settings["settle_seconds"])
    found: list[Delivery] = []
    if stream.accepted.is_dir():
        found += deliveries(stream.accepted, (), 0.0, accepted=True)
    if only is not None:
        found.append(delivery(only.resolve(), (), settle))
    elif settings["inbox"]:
        found += deliveries(Path(settings["inbox"]), classes, settle)
    new = [one for one in found if one not in seen]
    complete = (one for one in new if not one.waiting)
    return Pending(tuple(complete), tuple(one for one in new if one.waiting))


def next_step(state: StreamState, pending: Pending) -> str | None:
    """Return what a pass does next: train, receive, judge, or nothing.

    A comparison that was begun is finished first. Chunks are trained in their order. Only the model after the last
    pending delivery is compared with the champion: one that the next would replace at once is not worth a look.
    """
    if state.unfinished_look:
        return "judge"
    if state.untrained:
        return "train"
    if pending.complete:
        return "receive"
    if state.unjudged:
        return "judge"
    return None
