"""The commands `stream …`: retrain on arrival. Most imports are inside: a pass over nothing new is quick."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dash_core.errors import ConfigError
from flows.command_line.options import SharedOptions, shared_options

if TYPE_CHECKING:
    from dash_core.stream.state import StreamState
    from tasks.store.place import Place
    from tasks.store.stream.folder import StreamFolder

app = typer.Typer(
    help="Retrain on arrival: deliveries in an inbox, a champion, a gate, a way back.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
Name = Annotated[str, typer.Argument(help="The stream's name.", metavar="NAME")]
Because = Annotated[str, typer.Option("--because", help="Why: it is recorded in the ledger.")]
FIRST_SHARE = 0.5  # of a dataset's images, with which a stream made from it begins
POLL_SECONDS = 60.0
CUTOFF = 0.001  # share of DASH's weight below which old chunks are left out: 20 chunks with alpha 0.3


def command(*options: str) -> Any:
    """Return a decorator that makes a function a command of `stream` with the given shared options."""

    def decorate(function: Any) -> Any:
        app.command(name=function.__name__.replace("_", "-").rstrip("-"))(shared_options(*options)(function))
        return function

    return decorate


@command("params", "preset", "overrides", "store", "data_root")
def create(
    options: SharedOptions,
    name: Name,
    source: Annotated[
        str, typer.Option("--from", help="A folder with a folder of images a class, or a dataset's name.")
    ],
    inbox: Annotated[Path | None, typer.Option(help="Folder in which deliveries will land.")] = None,
    method: Annotated[str, typer.Option(help="The method: a name in `methods` of the parameters.")] = "dash",
    share: Annotated[float, typer.Option(min=0.001, max=0.999, help="Share of all images that is held out.")] = 0.2,
    salt: Annotated[str | None, typer.Option(help="Text that decides the sides. Default: random.")] = None,
    group: Annotated[str | None, typer.Option(help="Regular expression: files with one match are on one side.")] = None,
    image_size: Annotated[int | None, typer.Option(min=4, help="Pixels a side to which images are resized.")] = None,
    margin: Annotated[float, typer.Option(help="Accuracy that a new model may lose, e.g. 0.02.")] = 0.02,
    looks: Annotated[int, typer.Option(min=1, help="Comparisons that one generation of the hold-out allows.")] = 10,
    policy: Annotated[str, typer.Option(help="not_worse, or improved.")] = "not_worse",
    floor: Annotated[float | None, typer.Option(help="Accuracy that the first model must reach.")] = None,
    parent: Annotated[str, typer.Option(help="A new model continues from: latest, or champion.")] = "latest",
    from_weights: Annotated[
        Path | None, typer.Option(help="File of weights to start from: a state dict, or a torchvision checkpoint.")
    ] = None,
    deliveries: Annotated[int, typer.Option(min=1, help="Of a dataset: deliveries made of its rest.")] = 9,
) -> None:
    """Freeze the contract, take the first images as chunk 1 with its hold-out, and train the first champion."""
    from flows.command_line.session import make_writable, standing_by

    if image_size:
        options = _with(options, f"dataset.image_size={image_size}", "dataset.name=image_folder", "dataset.folder=.")
    if from_weights:
        options = _with(options, f"model.weights={from_weights}")
    if method == "dash":  # or the cost of an arrival grows with all that came before; --set overrides it
        options = _with(options, f"methods.dash.cutoff={CUTOFF}")
    with standing_by(options.services_folder) as server:
        place, settings = options.place, options.settings
        make_writable(place)
        from tasks.store.stream.creating import begin, contract_for, first_delivery
        from tasks.store.stream.folder import STREAMS
        from tasks.store.stream.ledger import LEDGER_FILE, Ledger

        ledger_file = place.store / STREAMS / name / LEDGER_FILE
        entries = Ledger(ledger_file).entries
        if len(entries) > 1:
            raise ConfigError(f"the stream {name!r} exists: `dashpipe stream arrive {name}` continues it")
        folder = _first_folder(source, name, place, deliveries)
        inbox = (inbox or place.store / f"{name}-inbox").resolve()
        inbox.mkdir(parents=True, exist_ok=True)
        hold_out = {"share": share, "group": group} | ({"salt": salt} if salt else {})
        gate = {"margin": margin, "looks": looks, "policy": policy, "floor": floor}
        contract = contract_for(first_delivery(folder), settings, method, hold_out, gate, parent, None)
        stream, _ = begin(place.store, name, contract, {"inbox": str(inbox)}, settings.model.weights)
        _print_contract(contract)
        _pass(stream, place, server, folder)
        print(f"inbox: {inbox}")


def _with(options: SharedOptions, *overrides: str) -> SharedOptions:
    import dataclasses

    return dataclasses.replace(options, overrides=[*overrides, *options.overrides])


def _first_folder(source: str, name: str, place: "Place", deliveries: int) -> Path:
    """Return the folder of the first images; a dataset is written as image files first."""
    from dash_core.data import DATASETS

    if Path(source).is_dir() or source not in DATASETS:
        return Path(source).resolve()
    from dash_core.config import DatasetConfig
    from tasks.store.datasets import open_dataset
    from tasks.store.stream.creating import write_deliveries

    target = place.store / f"{name}-deliveries"
    dataset = open_dataset(DatasetConfig(name=source), place)
    first, *rest = write_deliveries(dataset, target, FIRST_SHARE, deliveries)
    print(f"{source}: {first.name}/ and {len(rest)} deliveries in {target}")
    return first


def _print_contract(contract: Any) -> None:
    size = f"{contract.image_size}x{contract.image_size}"
    print(
        f"contract: {len(contract.classes)} classes, {size} pixels, {contract.channels} channel(s), "
        f"{contract.model.name}, {contract.method.label}, {100 * contract.hold_out.share:.4g} % held out for ever"
    )


@command("store", "params", "overrides", "data_root")
def arrive(
    options: SharedOptions,
    name: Name,
    path: Annotated[Path | None, typer.Argument(help="One delivery's folder, in place of the inbox.")] = None,
    wait: Annotated[bool, typer.Option(help="Wait for another pass, and for deliveries that are being copied.")] = True,
) -> None:
    """Do one pass over all that is pending: receive, train, compare, release."""
    stream = _stream(options, name)
    if _idle(stream, path, wait):
        print(f"nothing new for {name}")
        return
    _full_pass(options, stream, path, wait)


def _full_pass(options: SharedOptions, stream: "StreamFolder", path: Path | None, wait: bool) -> None:
    from flows.command_line.session import standing_by

    with standing_by(options.services_folder) as server:
        _pass(stream, options.place, server, path, wait)


def _pass(stream: "StreamFolder", place: "Place", server: Any, path: Path | None = None, wait: bool = True) -> None:
    """Run the flow `arrive` in this process."""
    if server:
        server.start()
    from flows.services.environment import imports_done
    from flows.services.prefect_health import explain_lost_server
    from flows.services.prefect_server import prefect_api
    from flows.stream import arrive

    imports_done()
    with prefect_api(place.services, server), explain_lost_server():
        arrive(stream, place, path, wait)


def _stream(options: SharedOptions, name: str) -> "StreamFolder":
    from tasks.store.stream.folder import StreamFolder

    return StreamFolder.of(options.store_folder.resolve(), name)


def _idle(stream: "StreamFolder", path: Path | None, wait: bool) -> bool:
    """Tell whether a pass would do nothing, without torch; wait for deliveries that time alone completes."""
    from tasks.store.stream.pending import next_step, pending_deliveries

    while True:
        _, state = stream.read()
        pending = pending_deliveries(stream, state, path)
        if next_step(state, pending) is not None or not stream.is_published(state):
            return False
        if not wait or pending.seconds is None:
            for one in pending.waiting:
                print(f"{one.source}: waited for: {one.waiting}")
            return True
        time.sleep(pending.seconds + 0.05)


@command("store")
def status(options: SharedOptions, name: Name) -> None:
    """Show champion, challenger, pending, set aside, looks left, and what the hold-out can tell."""
    from tasks.store.stream.judging import outlook
    from tasks.store.stream.pending import pending_deliveries
    from tasks.store.stream.quarantine import set_aside
    from tasks.store.stream.telling import told_role, told_time

    stream = _stream(options, name)
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


@contextmanager
def _changing(options: SharedOptions, name: str) -> Iterator[tuple]:
    """Yield a stream, its ledger and its contract, locked."""
    stream = _stream(options, name)
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
        stream = _stream(options, name)
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


@command("store", "params", "overrides", "data_root")
def watch(
    options: SharedOptions,
    name: Name,
    every: Annotated[float, typer.Option(min=1, help="Seconds between two looks at the inbox.")] = POLL_SECONDS,
) -> None:
    """Do a pass whenever something has arrived, until Ctrl-C; no server is needed."""
    stream = _stream(options, name)
    print(f"watching {stream.settings['inbox']} every {every:g} s; Ctrl-C ends it", flush=True)
    while True:
        if not _idle_quietly(stream):
            _full_pass(options, stream, None, wait=True)
        time.sleep(every)


def _idle_quietly(stream: "StreamFolder") -> bool:
    from tasks.store.stream.pending import next_step, pending_deliveries

    _, state = stream.read()
    return next_step(state, pending_deliveries(stream, state)) is None and stream.is_published(state)


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
def serve(
    options: SharedOptions,
    name: Name,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes any free one.")] = 8000,
) -> None:
    """Serve the champion on this machine: POST an image, get its class. A new champion is followed."""
    from flows.services.model_server import serve

    serve(_stream(options, name).path, port, lambda line: print(line, flush=True))


@command("params", "preset", "overrides", "store", "data_root")
def replay(
    options: SharedOptions,
    name: Name,
    methods: Annotated[str, typer.Option(help="Methods to compare, with commas.")] = "cold,warm,shrink_perturb,dash",
) -> None:
    """Train methods over this stream's own past, side by side: which would have served it best?"""
    from flows.command_line.compare import compare_and_print
    from flows.command_line.output import output_console
    from flows.command_line.session import Session, make_writable, standing_by

    stream = _stream(options, name)
    _, state = stream.read()
    options = _with(options, *_as_overrides(stream, state, methods.split(",")))
    with standing_by(options.services_folder) as server:
        place = options.place
        make_writable(place)
        compare_and_print(options, Session(place, output_console(), server), again=False)


def _as_overrides(stream: "StreamFolder", state: "StreamState", methods: list[str]) -> list[str]:
    """Return the settings of the bench over a stream's past."""
    import json

    contract = stream.contract(state)
    method = contract.method
    parts = {part: getattr(contract, part).model_dump(mode="json") for part in ("model", "optimizer", "training")}
    if contract.model.weights:  # the contract names the stream's own copy
        parts["model"]["weights"] = str(stream.path / contract.model.weights)
    values = {
        "dataset.name": "stream",
        "dataset.folder": str(stream.path),
        "chunks": len(state.chunks),
        **{f"{part}.{key}": value for part, content in parts.items() for key, value in content.items()},
        f"methods.{method.label}": {"intervention": method.intervention, **method.parameters},
        "seeds": [contract.seed],
        "compare.methods": methods,
    }
    return [f"{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in values.items()]


@command("store")
def sync(options: SharedOptions, name: Name) -> None:
    """Bring everything that is a view up to date with the ledger: contract file, pointer, exports, registry, page."""
    from tasks.store.stream.releasing import restore

    stream = _stream(options, name)
    with stream.locked():
        ledger, _ = stream.read()
        for line in restore(stream, ledger):
            print(line)
    _show(options, stream, always=True)


@command("store")
def report(options: SharedOptions, name: Name) -> None:
    """Write the stream's page: what arrived, is it better, what is served, how to undo it."""
    stream = _stream(options, name)
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


@command("store", "params", "overrides", "data_root")
def deploy(
    options: SharedOptions,
    name: Name,
    cron: Annotated[str, typer.Option(help="Schedule, the backstop of the event.")] = "*/15 * * * *",
    pool: Annotated[str, typer.Option(help="Work pool of type process.")] = "local",
) -> None:
    """Make the stream a deployment of your own Prefect server: on a schedule, and at the event of a delivery."""
    stream = _stream(options, name)
    from flows.services.prefect_server import configured_url

    if configured_url() is None:
        raise ConfigError(
            "PREFECT_API_URL: a deployment needs a Prefect server of your own: run `prefect server start`, and set "
            f"PREFECT_API_URL=http://127.0.0.1:4200/api; without one, `dashpipe stream watch {name}` does the same"
        )
    from flows.services.deployments import deploy_stream

    store, params = options.store_folder.resolve(), options.params.resolve()
    print(f"deployment: {deploy_stream(stream.name, store, params, cron, pool)}")
    print(f"a worker takes its runs: prefect worker start --pool {pool}")
    print("a delivery is announced by POST /api/events; without it, the schedule finds it")
