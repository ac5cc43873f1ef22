"""The commands `stream …` with which a person looks at a stream and decides. Most imports are inside."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from dash_core.errors import ConfigError
from flows.command_line.options import SharedOptions
from flows.command_line.stream import BUDGET_HELP, Name, app, command, stream_of

if TYPE_CHECKING:
    from dash_core.stream.state import StreamState
    from tasks.store.stream.folder import StreamFolder

__all__ = ["app"]
Because = Annotated[str, typer.Option("--because", help="Why: it is recorded in the ledger.")]


@command("store")
def status(options: SharedOptions, name: Name) -> None:
    """Show champion, challenger, pending, set aside, looks left, and what the hold-out can tell."""
    from dash_core.stream.harm import harm_of
    from tasks.store.stream.judging import outlook
    from tasks.store.stream.pending import pending_deliveries
    from tasks.store.stream.quarantine import set_aside
    from tasks.store.stream.telling import told_advice, told_role, told_time

    stream = stream_of(options, name)
    _, state = stream.read()
    contract = stream.contract(state)
    print(f"stream      {name}: {len(state.arrivals)} arrivals, {len(state.chunks)} chunks, {len(state.models)} models")
    since = f", since {told_time(state.releases[-1].at)}" if state.releases else ""
    print(f"champion    {told_role(state, state.champion)}{since}")
    print(f"previous    {told_role(state, state.previous)}")
    print(f"challenger  {told_role(state, state.challenger)}")
    for verdict in state.verdicts[-1:]:
        print(f"last word   {verdict.verdict}: {stream.verdict(verdict.model)['sentences'][0]}")
    pending = pending_deliveries(stream, state)
    waiting = [f"{one.source} (waited for: {one.waiting})" for one in pending.waiting]
    print(f"pending     {', '.join([one.source for one in pending.complete] + waiting) or 'nothing'}")
    undecided = [one for one in set_aside(stream, state) if one.decision is None]
    print(f"set aside   {len(undecided)} undecided")
    print(f"looks left  {state.looks_left} of {contract.gate.looks}")
    for sentence in outlook(stream, state, contract).sentences:
        print(f"hold-out    {sentence}")
    if found := harm_of(state):
        print(f"since then  {found.sentence}")
    for line in told_advice(state, found):
        print(f"advice      {line}")


@contextmanager
def _changing(options: SharedOptions, name: str) -> Iterator[tuple]:
    """Yield a stream, its ledger and its contract, locked."""
    stream = stream_of(options, name)
    with stream.locked():
        ledger, state = stream.read()
        yield stream, ledger, stream.contract(state)


@command("store")
def rollback(
    options: SharedOptions,
    name: Name,
    because: Because = "taken back",
    to: Annotated[str | None, typer.Option("--to", help="The model. Default: the champion before this one.")] = None,
) -> None:
    """Make the previous champion the champion again, at once; nothing is trained."""
    from tasks.store.stream.releasing import roll_back

    with _changing(options, name) as (stream, ledger, contract):
        _print_release(roll_back(stream, ledger, contract, because, to))
        _show(options, stream)


@command("store")
def release(
    options: SharedOptions,
    name: Name,
    because: Because,
    model: Annotated[str | None, typer.Option(help="The model. Default: the challenger.")] = None,
) -> None:
    """Make the challenger, or another model, the champion by your own decision."""
    from tasks.store.stream.releasing import release

    with _changing(options, name) as (stream, ledger, contract):
        _print_release(release(stream, ledger, contract, because, model))
        _show(options, stream)


def _print_release(state: "StreamState") -> None:
    from tasks.store.stream.telling import told_role

    print(f"champion    {told_role(state, state.champion)}")
    print(f"previous    {told_role(state, state.previous)}")


@command("store")
def quarantine(
    options: SharedOptions,
    name: Name,
    accept: Annotated[list[str], typer.Option(help="Use this image; `all`: every undecided one. Repeatable.")] = [],  # noqa: B006
    reject: Annotated[list[str], typer.Option(help="Never use this image; or `all`. Repeatable.")] = [],  # noqa: B006
    label: Annotated[list[str], typer.Option(help="Use this image as this class: IMAGE=CLASS. Repeatable.")] = [],  # noqa: B006
) -> None:
    """Show what was set aside and why, or decide on it; what is accepted is a delivery of the next pass."""
    from tasks.store.stream.quarantine import decide, set_aside

    if not (accept or reject or label):
        stream = stream_of(options, name)
        _, state = stream.read()
        found = set_aside(stream, state)
        for one in found:
            decision = f" [{one.decision}]" if one.decision else ""
            print(f"{one.name}  {one.reason}{decision}  {one.file}")
        if not found:
            print("nothing was set aside")
        return
    labels = dict(_pair(text) for text in label)
    with _changing(options, name) as (stream, ledger, _):
        count = decide(stream, ledger, accept, reject, labels)
    if count:
        print(f"{count} accepted: the next `dashpipe stream arrive {name}` takes them")


def _pair(text: str) -> tuple[str, str]:
    image, equals, label = text.partition("=")
    if not equals or not label:
        raise ConfigError(f"--label {text!r}: write IMAGE=CLASS")
    return image, label


@command("store")
def retract(
    options: SharedOptions,
    name: Name,
    delivery: Annotated[str, typer.Argument(help="The delivery: its name, or its number.", metavar="DELIVERY")],
    because: Because,
    start: Annotated[
        str | None,
        typer.Option("--continue-from", help="A model, or scratch. Default: the last one not trained on the delivery."),
    ] = None,
) -> None:
    """Take a wrong delivery out of all later training and testing; the next pass trains without it."""
    from tasks.store.stream.retracting import retract
    from tasks.store.stream.telling import told_retraction

    with _changing(options, name) as (stream, ledger, contract):
        before = stream.state(ledger)
        state = retract(stream, ledger, contract, delivery, because, start)
        for line in told_retraction(before, state):
            print(line)
        _show(options, stream)


@command("store")
def budget(
    options: SharedOptions,
    name: Name,
    changes: Annotated[list[str], typer.Argument(help=f"{BUDGET_HELP} KEY=none removes one.", metavar="KEY=VALUE")],
    because: Because,
) -> None:
    """Set the budget of the models that are trained from now on."""
    from tasks.store.stream.creating import bounds, change_budget

    with _changing(options, name) as (stream, ledger, contract):
        changed = change_budget(stream, ledger, contract, bounds(changes), because)
    print(f"budget: {', '.join(f'{key}={value:g}' for key, value in changed.given.items()) or 'no bounds'}")


@command("store")
def add_class(
    options: SharedOptions,
    name: Name,
    label: Annotated[str, typer.Argument(help="The class's name, as its folder is called.", metavar="CLASS")],
    because: Because = "added",
) -> None:
    """Add a class: a decision of a person. Labels of other classes stay; the next model has a larger head."""
    from tasks.store.stream.creating import add_class

    with _changing(options, name) as (stream, ledger, contract):
        grown = add_class(stream, ledger, contract, label, because)
    print(f"{len(grown.classes)} classes: {', '.join(grown.classes)}")
    print(f"images of it that were set aside: dashpipe stream quarantine {name}")


@command("store")
def sync(options: SharedOptions, name: Name) -> None:
    """Bring everything that is a view up to date with the ledger: contract file, pointer, exports, registry, page."""
    from tasks.store.stream.releasing import restore

    stream = stream_of(options, name)
    with stream.locked():
        ledger, _ = stream.read()
        for line in restore(stream, ledger):
            print(line)
    _show(options, stream, always=True)


@command("store")
def report(options: SharedOptions, name: Name) -> None:
    """Write the stream's page: what arrived, is it better, what is served, how to undo it."""
    stream = stream_of(options, name)
    _, state = stream.read()
    from dash_core.views.stream_report import write_stream_report

    print(f"page: {write_stream_report(state, stream.path)}")


def _show(options: SharedOptions, stream: "StreamFolder", always: bool = False) -> None:
    """Make the page and the registry show what the ledger says."""
    from flows.stream import tell
    from tasks.store.place import Place
    from tasks.stream import publish

    store = options.store_folder.resolve()
    tell(publish.fn(stream, Place(store=store, data_root=store / "data"), always))
