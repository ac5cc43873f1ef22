"""Output on terminals, files and pipes that lack characters: nothing fails, and what can be read is there."""

import errno
import io
import os
import subprocess
import sys

import pytest
import typer

from dash_core.views.tables import Cell, Table
from flows.command_line.errors import UNWRITTEN_EXIT, plain_errors
from flows.command_line.live import print_table
from flows.command_line.output import output_console, prepare_output, say
from tests.system.shell import ROOT

ENCODINGS = {
    "ascii": {"PYTHONIOENCODING": "ascii"},
    "strict latin": {"PYTHONIOENCODING": "latin-1:strict"},
    "C": {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
}
COMMANDS = r"""
import sys
from flows.command_line import main as cli

real = cli.app

def app():
    wrong = "run --method d\u00e6sh\u00b7\u2013"
    for words in ("methods", "datasets", "diagnostics", "models --size 8", "doctor", wrong):
        sys.argv = ["dashpipe", *words.split()]
        try:
            real()
        except SystemExit as ended:
            print("ended", ended.code)
    from rich.console import Console
    from dash_core.views.tables import Cell, Table
    from flows.command_line.live import print_table
    rows = ((Cell("\u03bb\u2013\u2020"), Cell("94.2 \u00b1 0.3", True)),)
    print_table(Table("digits \u00b7 3 chunks", ("method", "accuracy"), rows, ("\u2026",)), Console(width=80))

cli.app = app
cli.main()
"""


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_every_output_is_printed_whole_in_any_encoding(encoding, tmp_path):
    left_out = ("LC_ALL", "LANG", "PYTHONUTF8", "DASHPIPE_DATA", "PREFECT_API_URL", "MLFLOW_TRACKING_URI")
    environ = {name: value for name, value in os.environ.items() if name not in left_out}
    environ |= ENCODINGS[encoding] | {"DASHPIPE_STORE": str(tmp_path / "magasin·–\udcff")}
    done = subprocess.run([sys.executable, "-c", COMMANDS], cwd=ROOT, capture_output=True, env=environ, timeout=300)
    lines = done.stdout.decode("latin-1").splitlines()
    assert done.returncode == 0, done.stderr
    assert [line for line in lines if line.startswith("ended")] == [f"ended {code}" for code in (0, 0, 0, 0, 0, 2)]
    assert done.stderr.startswith(b"error: unknown method")
    assert done.stderr.count(b"\n") == 1
    assert any("Shin et al. 2024, tables 3-6" in line for line in lines)
    assert any("94.2" in line for line in lines)


def test_names_that_look_like_markup_or_emoji_are_printed_as_they_are(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "140")
    name = "[/x] [red]a[/red] :smile:"
    console = output_console()
    say(console, name)
    console.print(f"{name}: 2 runs")
    print_table(Table(name, ("method", name), ((Cell(name), Cell("1", True)),), (name,)), console)
    assert capsys.readouterr().out.count(name) == 6


def test_an_output_that_cannot_be_written_is_named(monkeypatch):
    class Full(io.StringIO):
        def write(self, text):
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(sys, "stdout", Full())
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    prepare_output()
    with pytest.raises(typer.Exit) as ended, plain_errors():
        output_console().print("a table")
    assert ended.value.exit_code == UNWRITTEN_EXIT
    assert sys.stderr.getvalue().startswith(
        "error: standard output cannot be written (No space left on device): send it"
    )
