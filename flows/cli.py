"""The command line: dashpipe. Heavy imports wait inside the commands, so that --help is quick."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dash_core.errors import ConfigError, DashError, DataError
from flows.environment import prepare_environment

if TYPE_CHECKING:
    from dash_core.comparison import Params
    from tasks.place import Place

app = typer.Typer(
    help="Train on growing data, chunk by chunk, with DASH, Shrink & Perturb and their baselines, and compare them.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

BAD_INPUT, FAILED, INTERRUPTED = 2, 1, 130

ParamsFile = Annotated[Path, typer.Option("--params", help="The parameters' file.", metavar="FILE")]
Preset = Annotated[str | None, typer.Option(help="A setting of the paper, laid over the parameters (see presets/).")]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", help="Override a value: section.key=value. Repeatable.", metavar="KEY=VALUE"),
]
Again = Annotated[bool, typer.Option("--again", help="Train again what is complete already.")]
Store = Annotated[
    Path | None,
    typer.Option(
        envvar="DASHPIPE_STORE", help="Folder of runs, tables and mlflow.db. Default: the parameters' folder."
    ),
]
DataRoot = Annotated[
    Path | None,
    typer.Option(envvar="DASHPIPE_DATA", help="Folder of datasets, as torchvision lays them out. Default: STORE/data."),
]


@app.callback()
def prepare() -> None:
    """Set the environment's defaults before anything heavy is imported."""
    prepare_environment()


@app.command()
def compare(
    again: Again = False,
    params: ParamsFile = Path("params.yaml"),
    preset: Preset = None,
    overrides: Set = None,
    store: Store = None,
    data_root: DataRoot = None,
) -> None:
    """Train every method and seed of a comparison, side by side, and print the paper-style table."""
    with _plain_errors():
        settings, place = _settings(params, preset, overrides, store, data_root)
        from flows import commands

        _writable(place)
        commands.compare(settings, place, (params, preset, overrides or []), _console(), again)


@app.command()
def run(
    method: Annotated[str, typer.Option(help="The method: a name in `methods` of the parameters, or an intervention.")],
    seed: Annotated[int | None, typer.Option(min=0, help="The seed. Default: the first of the parameters.")] = None,
    again: Again = False,
    params: ParamsFile = Path("params.yaml"),
    preset: Preset = None,
    overrides: Set = None,
    store: Store = None,
    data_root: DataRoot = None,
) -> None:
    """Train one method with one seed over all chunks."""
    with _plain_errors():
        settings, place = _settings(params, preset, overrides, store, data_root)
        one = settings.run(method, settings.seeds[0] if seed is None else seed)
        from flows import commands

        _writable(place)
        commands.run(settings, one, place, _console(), again)


@app.command()
def ui(
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port on 127.0.0.1; 0 takes any free one.")] = 5000,
    browser: Annotated[bool, typer.Option(help="Open the page in a browser.")] = True,
    params: ParamsFile = Path("params.yaml"),
    preset: Preset = None,
    overrides: Set = None,
    store: Store = None,
) -> None:
    """Serve MLflow's UI on 127.0.0.1, opened on the comparison of the parameters."""
    with _plain_errors():
        from flows.ui import serve_ui

        settings, place = _settings(params, preset, overrides, store, None)
        serve_ui(place.store, port, browser, settings.name)


@app.command()
def doctor(params: ParamsFile = Path("params.yaml"), store: Store = None, data_root: DataRoot = None) -> None:
    """Say what this machine offers (torch, CPU, GPUs, stores, disk) and what is missing."""
    with _plain_errors():
        from rich.console import Console

        from flows.doctor import examine
        from flows.settings import load_params

        try:
            load_params(params)
            error = None
        except ConfigError as found:
            error = str(found)
        findings = list(examine(_place(params, store, data_root), error))
        console = Console(soft_wrap=True, highlight=False)
        marks = {"ok": "[green]ok     [/]", "note": "[yellow]note   [/]", "missing": "[bold red]missing[/]"}
        for finding in findings:
            console.print(marks[finding.verdict], f"{finding.subject:14}", end="", markup=True)
            console.print(finding.words + (f" → {finding.remedy}" if finding.remedy else ""), markup=False)
        if any(finding.verdict == "missing" for finding in findings):
            raise typer.Exit(FAILED)


@app.command()
def methods() -> None:
    """List the interventions: name, what it does, source, parameters."""
    from dash_core.interventions import INTERVENTIONS

    rows = []
    for name, kind in INTERVENTIONS.items():
        defaults = ", ".join(f"{key}={field.default}" for key, field in kind.model_fields.items())
        rows.append((name, kind.summary, defaults or "–", kind.source))
    _listing(("method", "what it does", "parameters", "source"), rows)


@app.command()
def datasets() -> None:
    """List the datasets: name, size, what it is, where it comes from."""
    from dash_core.data import DATASETS

    rows = []
    for name, spec in DATASETS.items():
        sizes = f"{spec.train_size:,} + {spec.test_size:,}" if spec.train_size and spec.test_size else "–"
        rows.append((name, sizes, spec.origin, spec.summary, spec.source))
    _listing(("dataset", "train + test", "origin", "what it is", "source"), rows)


@app.command()
def models(
    size: Annotated[int, typer.Option(min=1, help="Image side in pixels, for the figures.")] = 32,
    classes: Annotated[int, typer.Option(min=2, help="Classes, for the figures.")] = 10,
) -> None:
    """List the models: name, parameters, FLOPs of a forward pass, what it is, source."""
    with _plain_errors():
        from dash_core.models import MODELS, build_model, forward_flops, parameter_count

        rows = []
        for name, spec in MODELS.items():
            if size < spec.smallest:
                figures = ("–", f"needs {spec.smallest}x{spec.smallest}")
            else:
                model = build_model(name, (3, size, size), classes, seed=0)
                figures = (f"{parameter_count(model):,}", f"{forward_flops(model, (3, size, size)) / 1e6:,.1f}")
            rows.append((name, *figures, spec.summary, spec.source))
        rows.append(("torchvision:<name>", "", "", "any classification model of torchvision", "torchvision.models"))
        _listing(("model", "parameters", f"MFLOPs, 3x{size}x{size}", "what it is", "source"), rows)


def _settings(
    params: Path, preset: str | None, overrides: list[str] | None, store: Path | None, data_root: Path | None
) -> tuple["Params", "Place"]:
    from flows.settings import load_params

    settings = load_params(params, preset, overrides or [])
    return settings, _place(params, store, data_root, settings)


def _place(params: Path, store: Path | None, data_root: Path | None, settings: "Params | None" = None) -> "Place":
    from dash_core.comparison import Params
    from dash_core.device import choose_device
    from tasks.place import place_of

    place = place_of(settings or Params(), store or params.parent, data_root)
    choose_device(place.device)
    return place


def _writable(place: "Place") -> None:
    """Make the store, or raise ConfigError that says why it cannot hold results."""
    import os

    try:
        place.services.mkdir(parents=True, exist_ok=True)
        if not os.access(place.store, os.W_OK):
            raise PermissionError(None, "no permission to write")
    except OSError as error:
        reason = error.strerror or error
        raise ConfigError(
            f"--store: {place.store} cannot hold results ({reason}); name a folder you can write"
        ) from None


def _console():
    """Return the console of long output: a terminal as wide as it is, a file or a pipe wide enough for the table."""
    from rich.console import Console

    console = Console()
    return console if console.is_terminal else Console(width=max(console.width, 140))


def _listing(headings: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    """Print a line each, in columns and never cut: it may be searched by `grep`."""
    lines = [headings, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(headings))]
    for line in lines:
        print("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip())


@contextmanager
def _plain_errors() -> Iterator[None]:
    """Show an error of ours as one message and the right exit code: 2 for bad input, 1 for a failure."""
    try:
        yield
    except DashError as error:
        print(f"error: {error}", file=sys.stderr)
        raise typer.Exit(BAD_INPUT if isinstance(error, ConfigError | DataError) else FAILED) from None
    except KeyboardInterrupt:
        print("interrupted: the same command goes on after the last finished chunk of each run", file=sys.stderr)
        raise typer.Exit(INTERRUPTED) from None
