"""The command line: dashpipe. Heavy imports wait inside the commands, so that --help is quick."""

import atexit
import contextlib
import logging
import os
import signal
import sys
from typing import Annotated, TextIO

import typer

from dash_core.errors import ConfigError
from flows.command_line import reproduce_cli, stages_cli
from flows.command_line.options import (
    FAILED,
    PARAMS,
    Again,
    DataRoot,
    ParamsFile,
    Preset,
    Set,
    Store,
    make_writable,
    open_place,
    open_settings,
    output_console,
    plain_errors,
    standing_by,
)
from flows.services.environment import prepare_environment

UNWRITTEN = 120  # exit status, Python's too: the end of what was said could not be written, as on a full disk

app = typer.Typer(
    help="Train on growing data, chunk by chunk, with DASH, Shrink & Perturb and their baselines, and compare them.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def main() -> None:
    """Run the command line, and end as Python does but for taking apart what was imported, which takes a second."""
    code = 0

    def leave() -> None:
        nonlocal code
        try:
            logging.shutdown()  # its turn would have come after this
            if not all([_flushed(stream) for stream in (sys.stdout, sys.stderr)]):
                code = code or UNWRITTEN
        finally:
            os._exit(code)

    atexit.register(leave)  # registered first, called last
    try:
        app()
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
        raise
    except KeyboardInterrupt:
        code = 128 + signal.SIGINT
        raise
    except BaseException:
        code = 1
        raise


def _flushed(stream: TextIO | None) -> bool:
    """Write out what a stream holds, and tell whether that went well; where nobody reads it any more it does."""
    if stream is None or stream.closed:
        return True
    try:
        stream.flush()
    except BrokenPipeError:
        return True
    except OSError as error:
        with contextlib.suppress(OSError):
            print(f"the end of the output could not be written: {error}", file=sys.stderr, flush=True)
        return False
    return True


@app.callback()
def prepare() -> None:
    """Set the environment's defaults before anything heavy is imported."""
    prepare_environment()


@app.command()
def compare(
    again: Again = False,
    params: ParamsFile = PARAMS,
    preset: Preset = None,
    overrides: Set = None,
    store: Store = None,
    data_root: DataRoot = None,
) -> None:
    """Train every method and seed of a comparison, side by side, and print the paper-style table."""
    with plain_errors(), standing_by(store or params.parent) as server:
        settings, place = open_settings(params, preset, overrides, store, data_root)
        from flows.command_line import commands

        make_writable(place)
        at = commands.Workplace(place, output_console(), server)
        commands.compare(settings, (params, preset, overrides or []), at, again)


@app.command()
def run(
    method: Annotated[str, typer.Option(help="The method: a name in `methods` of the parameters, or an intervention.")],
    seed: Annotated[int | None, typer.Option(min=0, help="The seed. Default: the first of the parameters.")] = None,
    again: Again = False,
    params: ParamsFile = PARAMS,
    preset: Preset = None,
    overrides: Set = None,
    store: Store = None,
    data_root: DataRoot = None,
) -> None:
    """Train one method with one seed over all chunks."""
    with plain_errors(), standing_by(store or params.parent) as server:
        settings, place = open_settings(params, preset, overrides, store, data_root)
        one = settings.run(method, settings.seeds[0] if seed is None else seed)
        from flows.command_line import commands

        make_writable(place)
        commands.run(settings, one, commands.Workplace(place, output_console(), server), again)


@app.command()
def ui(
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port on 127.0.0.1; 0 takes any free one.")] = 5000,
    browser: Annotated[bool, typer.Option(help="Open the page in a browser.")] = True,
    params: ParamsFile = PARAMS,
    preset: Preset = None,
    overrides: Set = None,
    store: Store = None,
) -> None:
    """Serve MLflow's UI on 127.0.0.1, opened on the comparison of the parameters."""
    with plain_errors():
        from flows.services.mlflow_pages import serve_ui

        settings, place = open_settings(params, preset, overrides, store, None)
        serve_ui(place.store, port, browser, settings.name)


@app.command("params")
def show_params(params: ParamsFile = PARAMS, preset: Preset = None, overrides: Set = None) -> None:
    """Print the parameters as YAML, a preset and overrides laid over them, every default written out."""
    with plain_errors():
        from flows.command_line.settings import complete, load_params
        from tasks.store.runs import to_yaml

        print(to_yaml(complete(load_params(params, preset, overrides or []))).decode(), end="")


@app.command()
def doctor(params: ParamsFile = PARAMS, store: Store = None, data_root: DataRoot = None) -> None:
    """Say what this machine offers (torch, CPU, GPUs, stores, disk) and what is missing."""
    with plain_errors():
        from rich.console import Console

        from flows.command_line.doctor import examine
        from flows.command_line.settings import load_params

        try:
            load_params(params)
            error = None
        except ConfigError as found:
            error = str(found)
        findings = list(examine(open_place(params, store, data_root), error))
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
def diagnostics() -> None:
    """List the diagnostics: name, what it measures, source."""
    from dash_core.diagnostics import DIAGNOSTICS

    _listing(
        ("diagnostic", "what it measures", "source"),
        [(one.name, one.summary, one.source) for one in DIAGNOSTICS.values()],
    )


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
    with plain_errors():
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


def _listing(headings: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    """Print a line each, in columns and never cut: it may be searched by `grep`."""
    lines = [headings, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(headings))]
    for line in lines:
        print("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip())


stages_cli.register(app)
reproduce_cli.register(app)
