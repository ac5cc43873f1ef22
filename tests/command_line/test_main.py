"""The command line: what it lists, and how it refuses bad input before anything is started or written."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dash_core.comparison import Params
from dash_core.data import DATASETS
from dash_core.diagnostics import DIAGNOSTICS
from dash_core.errors import ConfigError, DashError
from dash_core.interventions import INTERVENTIONS
from dash_core.models import MODELS
from flows.command_line import compare
from flows.command_line.main import UNWRITTEN_EXIT, app
from flows.command_line.settings import load_params
from flows.services.prefect_server import PrivateServer
from tasks.store.datasets import open_plan
from tasks.store.place import place_of
from tests import toy

COMMANDS = ["compare", "run", "ui", "params", "doctor", "methods", "diagnostics", "datasets", "models"]
STAGES = ["prepare", "split", "train", "tables", "figures", "report", "sync", "theory"]
PAPER = ["reproduce"]


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project's folder with parameters, from which nothing leaks into the environment or is started."""
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        monkeypatch.setenv(name, os.environ[name])  # whatever the command sets is undone
    monkeypatch.delenv("DASHPIPE_STORE", raising=False)
    monkeypatch.delenv("DASHPIPE_DATA", raising=False)
    monkeypatch.setattr(PrivateServer, "stand_by", lambda server: server)  # it only imports, a process each time
    (tmp_path / "params.yaml").write_text("chunks: 3\nmethods:\n  low: {intervention: dash, floor: 0.05}\n")
    return tmp_path


@pytest.fixture
def started(monkeypatch) -> list:
    """Stand in for the commands that start services; tells what they were called with."""
    calls = []
    monkeypatch.setattr(compare, "compare_and_print", lambda *arguments: calls.append(arguments))
    monkeypatch.setattr(compare, "train_here", lambda *arguments: calls.append(arguments))
    return calls


def invoke(*words: str):
    before = dict(os.environ)
    try:
        return CliRunner().invoke(app, words)
    finally:
        os.environ.clear()
        os.environ.update(before)


def test_params_are_printed_so_that_they_are_the_same_comparison_again(project):
    (project / "presets").mkdir()
    (project / "presets" / "wide.yaml").write_text("model: {name: mlp}\n")
    words = ("--preset", "wide", "--set", "compare.methods=[warm, low]")
    answer = invoke("params", *words)
    assert answer.exit_code == 0
    (project / "printed.yaml").write_text(answer.output)
    printed = load_params(project / "printed.yaml")
    assert printed == load_params(project / "params.yaml", "wide", ["compare.methods=[warm, low]", "methods.warm={}"])
    assert printed.methods["warm"] == {}  # a section for each method, on which its stage depends


def test_help_names_every_command():
    answer = invoke("--help")
    assert answer.exit_code == 0
    assert all(f"  {name} " in answer.output for name in COMMANDS + STAGES + PAPER)
    assert {command.name or command.callback.__name__ for command in app.registered_commands} == {
        *COMMANDS,
        *STAGES,
        *PAPER,
    }


@pytest.mark.parametrize("command", [c.name or c.callback.__name__ for c in app.registered_commands])
def test_every_command_explains_itself(command):
    answer = invoke(command, "--help")
    assert answer.exit_code == 0
    assert answer.output.startswith("Usage:")


@pytest.mark.parametrize(
    ("command", "names"),
    [
        (["methods"], [*INTERVENTIONS, "module:Class"]),
        (["diagnostics"], DIAGNOSTICS),
        (["datasets"], [*DATASETS, "module:function"]),
        (["models", "--size", "8"], [*MODELS, "torchvision:<name>", "module:function"]),
    ],
    ids=["methods", "diagnostics", "datasets", "models"],
)
def test_a_listing_has_a_line_for_each_registered_name(command, names):
    answer = invoke(*command)
    assert answer.exit_code == 0
    assert [line.split()[0] for line in answer.output.splitlines()[1:]] == list(names)


def test_a_model_is_listed_with_the_image_size_it_needs():
    answer = invoke("models", "--size", "8")
    (line,) = [line for line in answer.output.splitlines() if line.startswith("vgg16_bn")]
    assert "needs 32x32" in line


def test_models_are_listed_in_the_width_that_is_asked_for():
    lines = invoke("models", "--width", "16").output.splitlines()
    (narrow,) = [line for line in lines if line.startswith("resnet18 ")]
    assert all(words in narrow for words in ("701,466", "18.2", "model.width=16"))
    (own,) = [line for line in lines if line.startswith("cnn3 ")]
    assert "373,834" in own
    assert "model.width" not in own


def test_methods_are_listed_with_their_parameters():
    assert "alpha=0.3, floor=0.3, cutoff=0.0, mode=eval, micro_batch_size=None" in invoke("methods").output


BAD = {
    "unknown preset": (["--preset", "papper"], "unknown preset 'papper'"),
    "unknown method": (["--set", "compare.methods=[dahs]"], "unknown method 'dahs' (did you mean 'dash'?)"),
    "floor over 1": (
        ["--set", "methods.dash.floor=1.5"],
        "methods.dash.floor: input should be less than or equal to 1",
    ),
    "repeated seeds": (["--set", "seeds=[1, 1]"], "seeds: `seeds` repeats 1"),
    "missing file": (["--params", "nowhere.yaml"], "no file nowhere.yaml"),
    "no value": (["--set", "chunks"], "--set takes section.key=value, got 'chunks'"),
    "no yaml": (["--set", "chunks=[1"], "--set chunks: the value '[1' is not valid YAML"),
    "unknown key": (["--set", "trainig.lr=1"], "unknown key trainig (did you mean 'training'?)"),
    "unknown dataset": (["--set", "dataset.name=cifar"], "unknown dataset 'cifar'"),
    "unknown model": (["--set", "model.name=resnet"], "unknown model 'resnet'"),
    "unknown diagnostic": (["--set", "diagnostics=[unit]"], "unknown diagnostic 'unit' (did you mean 'units'?)"),
    "no such normalisation": (["--set", "model.normalisation=layer"], "model.normalisation: cnn3_small has no 'layer'"),
    "no such device": (["--set", "compare.device=cuda:99"], "compare.device: cuda:99 is not here"),
    "not a number": (["--set", "optimizer.lr=.nan"], "optimizer.lr: input should be a finite number, got nan"),
}


@pytest.mark.parametrize("case", BAD)
@pytest.mark.parametrize("command", [["compare"], ["run", "--method", "dash"]], ids=["compare", "run"])
def test_bad_input_ends_with_2_and_one_message_and_nothing_is_started_or_written(project, started, command, case):
    words, message = BAD[case]
    before = sorted(project.rglob("*"))
    answer = invoke(*command, *words, "--store", "store")
    assert answer.exit_code == 2
    assert answer.stderr.startswith("error: ")
    assert answer.stderr.count("error: ") == 1
    assert message in answer.stderr
    assert "Traceback" not in answer.output
    assert isinstance(answer.exception, SystemExit)
    assert started == []
    assert sorted(project.rglob("*")) == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["run", "--method", "dahs"], "error: unknown method 'dahs' (did you mean 'dash'?)"),
        (["run", "--method", "dash", "--seed", "2147483648"], "error: seed: input should be less than 2147483648"),
        (["run", "--method", "dash", "--seed", "-1"], "Invalid value for '--seed'"),
        (["run"], "Missing option '--method'"),
        (["ui", "--port", "70000"], "Invalid value for '--port'"),
        (["compar"], "No such command 'compar'"),
        (["compare", "--sets", "a=1"], "No such option"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_wrong_option_ends_with_2_and_says_which(project, started, words, message):
    answer = invoke(*words)
    assert answer.exit_code == 2
    assert message in answer.stderr
    assert "Traceback" not in answer.output
    assert started == []


def test_what_is_given_reaches_the_command(project, started):
    answer = invoke(
        "run", "--method", "low", "--seed", "3", "--set", "chunks=4", "--store", "store", "--data-root", "d"
    )
    assert answer.exit_code == 0
    ((settings, one, session, again),) = started
    assert (settings.chunks, one.method.label, one.method.parameters["floor"], one.seed) == (4, "low", 0.05, 3)
    assert (session.place.store, session.place.data_root, again) == (project / "store", project / "d", False)
    assert session.server.store == session.place.services


def test_without_a_store_everything_lies_beside_the_parameters(project, started, monkeypatch):
    monkeypatch.chdir("/")
    assert invoke("compare", "--params", str(project / "params.yaml")).exit_code == 0
    assert started[0][1].place.store == project


@pytest.mark.parametrize(
    ("error", "code"), [(ConfigError("wrong"), 2), (DashError("broke"), 1), (KeyboardInterrupt(), 130)]
)
def test_an_error_of_ours_is_one_line_and_a_code(project, monkeypatch, error, code):
    def fail(*arguments):
        raise error

    monkeypatch.setattr(compare, "compare_and_print", fail)
    answer = invoke("compare")
    assert answer.exit_code == code
    assert answer.stderr.strip().count("\n") == 0
    assert str(error) in answer.stderr


def test_an_error_that_is_not_ours_is_not_hidden(project, monkeypatch):
    monkeypatch.setattr(compare, "compare_and_print", lambda *arguments: 1 / 0)
    assert isinstance(invoke("compare").exception, ZeroDivisionError)


def test_more_chunks_than_images_are_refused_once_the_data_are_there_and_no_split_is_kept(tmp_path):
    params = Params(chunks=65)
    place = place_of(params, tmp_path / "store", None)
    with pytest.raises(ConfigError, match="chunks: 65 must lie between 1 and the 64 training images used"):
        open_plan(params.run("warm", 0), toy.dataset(train=64), place)
    assert not place.store.exists()


def test_the_doctor_finds_a_machine_that_runs_these_tests_well(project):
    answer = invoke("doctor")
    assert answer.exit_code == 0
    assert "missing" not in answer.output
    assert all(
        word in answer.output for word in ("params.yaml", "torch", "prefect", "mlflow", "CPU", "store", "data root")
    )
    assert sorted(path.name for path in project.iterdir()) == ["params.yaml"]


def test_the_doctor_says_what_is_wrong_with_the_parameters_and_ends_with_1(project):
    (project / "params.yaml").write_text("chunks: many")
    answer = invoke("doctor")
    assert answer.exit_code == 1
    (line,) = [line for line in answer.output.splitlines() if line.startswith("missing")]
    assert "chunks: input should be a valid integer, got 'many' → mend it" in line


def test_the_doctor_ends_with_1_if_the_configured_prefect_does_not_answer(project, monkeypatch):
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    answer = invoke("doctor")
    assert answer.exit_code == 1
    assert "no Prefect API answers at http://127.0.0.1:9/api" in answer.output


FULL = Path("/dev/full")
ENDING = """
import atexit, sys
from flows.command_line import main as cli

class Kept:
    def __del__(self):
        print("taken apart")

def app():
    atexit.register(print, "exit handler")
    real() if sys.argv[1:] else refuse()

def refuse():
    raise ZeroDivisionError("http://me:secret@host")

kept, real, cli.app = Kept(), cli.app, app
sys.argv = ["dashpipe", *{words!r}]
cli.main()
"""


@pytest.mark.parametrize(("words", "code"), [(["methods"], 0), (["methods", "--nope"], 2), ([], 1)])
def test_a_command_ends_with_its_code_and_all_it_said_but_takes_nothing_apart(words, code):
    done = subprocess.run([sys.executable, "-c", ENDING.format(words=words)], capture_output=True, text=True)
    assert done.returncode == code
    assert done.stdout.endswith("exit handler\n")
    assert "taken apart" not in done.stdout
    assert ("Shin et al. 2024" in done.stdout) == (code == 0)
    assert ("ZeroDivisionError: http://host" in done.stderr) == (code == 1)
    assert "secret" not in done.stderr


MAIN = [sys.executable, "-c", "from flows.command_line.main import main; main()"]


@pytest.mark.skipif(not FULL.exists(), reason="no device that is always full")
def test_a_command_whose_words_do_not_fit_on_the_disk_says_so_and_does_not_end_with_0():
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    with FULL.open("w") as full:
        done = subprocess.run([*MAIN, "methods"], stdout=full, stderr=subprocess.PIPE, text=True, env=buffered)
    assert done.returncode == UNWRITTEN_EXIT
    assert done.stderr.startswith("error: standard output cannot be written (No space left on device): send it to")
    assert done.stderr.count("\n") == 1


def test_a_command_without_an_output_ends_as_any_other():
    words = ["sh", "-c", '"$@" >&-', "sh", *MAIN, "methods"]
    done = subprocess.run(words, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
