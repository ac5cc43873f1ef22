"""The commands `stream …` that create, train and serve. Most imports are inside: a pass over nothing new is quick.

`stream_decisions` has those with which a person looks and decides.
"""

import signal
import sys
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
FIRST_SHARE = 0.5  # of a dataset's images, with which a stream made from it begins
POLL_SECONDS = 60.0
BUSY_EXIT = 3  # exit code of a pass that did not wait for another one
BUDGET_HELP = "A bound, KEY=VALUE: training_steps, training_flops, training_seconds, parameters, …"
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
    rollback: Annotated[str, typer.Option(help="If a release is shown to do harm: advise, or automatic.")] = "advise",
    budget: Annotated[list[str], typer.Option(help=f"{BUDGET_HELP} Repeatable.")] = [],  # noqa: B006
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
        from tasks.store.stream.creating import begin, bounds, contract_for, first_delivery
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
        rules = {"gate": gate, "parent": parent, "rollback": rollback, "budget": bounds(budget)}
        contract = contract_for(first_delivery(folder), settings, method, hold_out, rules)
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
    stream = stream_of(options, name)
    if _idle(stream, path, wait):
        print(f"nothing new for {name}")
        return
    _full_pass(options, stream, path, wait)


def _full_pass(options: SharedOptions, stream: "StreamFolder", path: Path | None, wait: bool) -> None:
    from flows.command_line.session import standing_by

    if not wait:
        with _no_other_pass(), stream.locked(wait=False):
            pass  # or all services would start before the answer
    with standing_by(options.services_folder) as server:
        _pass(stream, options.place, server, path, wait)


@contextmanager
def _no_other_pass() -> Iterator[None]:
    """Exit with 3 if another process holds the stream within the block, and say which."""
    from tasks.store.locks import Busy

    try:
        yield
    except Busy as busy:
        print(f"busy: {busy}", file=sys.stderr, flush=True)
        raise typer.Exit(BUSY_EXIT) from None


def _pass(stream: "StreamFolder", place: "Place", server: Any, path: Path | None = None, wait: bool = True) -> None:
    """Run the flow `arrive` in this process."""
    if server:
        server.start()
    from flows.services.environment import imports_done
    from flows.services.prefect_health import explain_lost_server
    from flows.services.prefect_server import prefect_api
    from flows.stream import arrive

    imports_done()
    with prefect_api(place.services, server), explain_lost_server(), _no_other_pass():
        arrive(stream, place, path, wait)


def stream_of(options: SharedOptions, name: str) -> "StreamFolder":
    """Return the folder of a stream of the store; ConfigError if there is none."""
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


@command("store", "params", "overrides", "data_root")
def watch(
    options: SharedOptions,
    name: Name,
    every: Annotated[float, typer.Option(min=1, help="Seconds between two looks at the inbox.")] = POLL_SECONDS,
) -> None:
    """Do a pass whenever something has arrived, until Ctrl-C; no server is needed."""
    stream = stream_of(options, name)
    print(f"watching {stream.settings['inbox']} every {every:g} s; Ctrl-C ends it", flush=True)
    try:
        while True:
            if not _idle_quietly(stream):
                _full_pass(options, stream, None, wait=True)
            time.sleep(every)
    except KeyboardInterrupt as interrupt:
        print(f"stopped watching {name}: the next pass continues whatever was begun", flush=True)
        raise typer.Exit(128 + getattr(interrupt, "number", signal.SIGINT)) from None


def _idle_quietly(stream: "StreamFolder") -> bool:
    from tasks.store.stream.pending import next_step, pending_deliveries

    _, state = stream.read()
    return next_step(state, pending_deliveries(stream, state)) is None and stream.is_published(state)


@command("store")
def serve(
    options: SharedOptions,
    name: Name,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes any free one.")] = 8000,
) -> None:
    """Serve the champion on this machine: POST an image, get its class. A new champion is followed."""
    from flows.services.model_server import serve

    serve(stream_of(options, name).path, port, lambda line: print(line, flush=True))


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

    stream = stream_of(options, name)
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
        "chunks": len(state.used_chunks),
        **{f"{part}.{key}": value for part, content in parts.items() for key, value in content.items()},
        f"methods.{method.label}": {"intervention": method.intervention, **method.parameters},
        "seeds": [contract.seed],
        "compare.methods": methods,
    }
    return [f"{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in values.items()]


@command("store", "params", "overrides", "data_root")
def deploy(
    options: SharedOptions,
    name: Name,
    cron: Annotated[str, typer.Option(help="Schedule, the backstop of the event.")] = "*/15 * * * *",
    pool: Annotated[str, typer.Option(help="Work pool of type process.")] = "local",
) -> None:
    """Make the stream a deployment of your own Prefect server: on a schedule, and at the event of a delivery."""
    stream = stream_of(options, name)
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
