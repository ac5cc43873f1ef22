"""The command line: dashpipe. Heavy imports wait inside the commands, so that --help is quick."""

import atexit
import contextlib
import logging
import os
import signal
import sys
import traceback
from typing import TextIO

import typer

from dash_core.errors import without_password
from flows.command_line import compare, doctor, listings, mlflow_ui, pipeline, reproduce, stream_decisions
from flows.command_line.errors import UNWRITTEN_EXIT
from flows.command_line.output import UnwrittenOutput, prepare_output
from flows.services.environment import prepare_environment

COMMANDS = (  # in the order of --help
    compare.compare,
    compare.run,
    mlflow_ui.ui,
    listings.params,
    doctor.doctor,
    listings.methods,
    listings.diagnostics,
    listings.datasets,
    listings.models,
    pipeline.prepare,
    pipeline.split,
    pipeline.train,
    pipeline.tables,
    pipeline.figures,
    pipeline.report,
    pipeline.sync,
    pipeline.theory,
    reproduce.reproduce,
)
app = typer.Typer(
    help="Train on growing data, chunk by chunk, with DASH, Shrink & Perturb and their baselines, and compare them.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def main() -> None:
    """Run the command line, and exit as Python does, but without tearing modules down, which takes a second."""
    code = 0

    def leave() -> None:
        nonlocal code
        try:
            logging.shutdown()  # Python would call it after this
            if not all([_flushed(stream) for stream in (sys.stdout, sys.stderr)]):
                code = code or UNWRITTEN_EXIT
        finally:
            os._exit(code)

    atexit.register(leave)  # registered first, called last
    prepare_output()
    try:
        app()
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
        raise
    except KeyboardInterrupt:
        code = 128 + signal.SIGINT
        raise
    except BaseException:  # a fault of ours: its traceback may quote an address with a password
        code = 1
        with contextlib.suppress(OSError):
            print(without_password(traceback.format_exc()), file=sys.stderr, end="", flush=True)
        raise SystemExit(code) from None


def _flushed(stream: TextIO | None) -> bool:
    """Flush a stream, and return whether all was written; a pipe that nobody reads any more counts as written."""
    if stream is None or stream.closed:
        return True
    try:
        stream.flush()
    except BrokenPipeError:
        return True
    except UnwrittenOutput as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return False
    except OSError as error:
        with contextlib.suppress(OSError):
            print(f"the end of the output could not be written: {error}", file=sys.stderr, flush=True)
        return False
    return True


@app.callback()
def prepare() -> None:
    """Set the environment's defaults before anything heavy is imported."""
    prepare_environment()


for command in COMMANDS:
    app.command()(command)
app.add_typer(stream_decisions.app, name="stream")  # with the commands of flows/command_line/stream.py
