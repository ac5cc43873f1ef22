"""The options that commands share: one object, given to each command that names them."""

from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from dash_core.errors import ConfigError
from flows.command_line import settings
from flows.command_line.options import SharedOptions, shared_options


def invoke(command, *words: str):
    app = typer.Typer()
    app.command()(command)
    return CliRunner().invoke(app, words, env={"DASHPIPE_STORE": "", "DASHPIPE_DATA": ""})


def test_a_command_gets_the_options_it_names_as_one_object_and_its_own_beside_it():
    calls = []

    @shared_options("preset", "overrides")
    def command(options: SharedOptions, count: int, again: bool = False) -> None:
        """Count."""
        calls.append((options, count, again))

    answer = invoke(command, "3", "--set", "a=1", "--set", "b=2", "--again", "--preset", "paper")
    assert answer.exit_code == 0
    assert calls == [(SharedOptions(preset="paper", overrides=["a=1", "b=2"]), 3, True)]
    assert invoke(command, "3", "--store", "here").exit_code == 2


def test_a_commands_own_options_come_before_the_shared_ones():
    @shared_options("params", "store")
    def command(options: SharedOptions, again: bool = False) -> None:
        """Say so."""

    text = invoke(command, "--help").output
    assert "Say so." in text
    assert text.index("--again") < text.index("--params") < text.index("--store")
    assert "--preset" not in text


def test_only_options_that_there_are_can_be_named():
    with pytest.raises(TypeError, match="no shared option stores; known: params, preset"):
        shared_options("stores")


def test_the_parameters_are_read_once_however_often_they_are_asked_for(tmp_path, monkeypatch):
    files, read = [], settings.read_yaml
    monkeypatch.setattr(settings, "read_yaml", lambda path: files.append(path) or read(path))
    (tmp_path / "params.yaml").write_text("chunks: 3\n")
    options = SharedOptions(tmp_path / "params.yaml")
    assert options.settings is options.settings
    assert options.place.store == tmp_path
    (tmp_path / "params.yaml").write_text("chunks: 4\n")
    assert options.settings.chunks == 3  # an edit after the check trains nothing unchecked
    assert files == [tmp_path / "params.yaml"]


def test_a_store_whose_path_sqlite_cannot_open_is_refused_by_name(tmp_path):
    (tmp_path / "params.yaml").write_text("chunks: 3\n")
    with pytest.raises(ConfigError, match=r"--store: /.* has \d+ bytes; SQLite, .* takes at most 470: name a folder"):
        _ = SharedOptions(tmp_path / "params.yaml", store=Path("/" + "/".join(["x" * 100] * 5))).place


def test_the_command_that_trains_what_is_missing_names_the_store_and_the_data(tmp_path):
    (tmp_path / "params.yaml").write_text("chunks: 3\n")
    options = SharedOptions(tmp_path / "params.yaml", store=tmp_path / "a b", data_root=tmp_path / "data")
    assert options.compare_here_command.startswith(
        f"uv run dashpipe compare --store '{tmp_path}/a b' --data-root {tmp_path}/data --params "
    )
