"""Security: what the source never does, and what a running program never tells anybody."""

import ast
import contextlib
import functools
import json
import re

import psutil
import pytest

from dash_core.config import MethodConfig, parse
from dash_core.data.catalog import DATASETS
from dash_core.errors import ConfigError
from flows.command_line.settings import load_params
from tasks.store.datasets import plan_path
from tasks.store.place import place_of
from tasks.store.results import Results
from tests import toy
from tests.system.shell import ROOT, start

SOURCES = sorted(path for floor in ("dash_core", "tasks", "flows") for path in (ROOT / floor).rglob("*.py"))
# the context of a flow goes from a process to its own workers, through a pipe that no other process holds
# or through Ray's or Slurm's own channel, which pickles what it is given anyhow
PICKLES = {
    "flows/compare.py": {"cloudpickle.dumps"},
    "flows/experiment.py": {"cloudpickle.dumps", "cloudpickle.loads", "pickle.dumps"},
    "flows/rank.py": {"pickle.loads"},  # what its parent left in a folder that is theirs alone
    "flows/services/ranks.py": {"pickle.dumps", "pickle.loads"},
    "flows/services/clusters/remote.py": {"cloudpickle.dumps", "cloudpickle.loads"},
}
EXECUTING = {"eval", "exec", "compile", "__import__", "os.system", "os.popen", "subprocess.getoutput"}
UNPICKLING = {"load", "loads", "Unpickler", "dumps", "dump"}


@functools.cache
def calls(path) -> list[tuple[str, ast.Call]]:
    """Return every call in a source file with the dotted name of what is called."""
    return [(ast.unparse(node.func), node) for node in ast.walk(tree(path)) if isinstance(node, ast.Call)]


@functools.cache
def tree(path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def keywords(call: ast.Call) -> dict[str, str]:
    return {word.arg: ast.unparse(word.value) for word in call.keywords if word.arg}


def test_nothing_is_evaluated_and_no_shell_is_asked():
    for source in SOURCES:
        for name, call in calls(source):
            assert name not in EXECUTING
            assert not name.startswith(("os.spawn", "os.exec", "pty."))
            assert "shell" not in keywords(call)


def test_yaml_is_read_by_a_safe_loader_only():
    for source in SOURCES:
        for name, call in calls(source):
            if name.startswith("yaml."):
                assert name != "yaml.load" or keywords(call).get("Loader") == "_Loader"
                assert not name.endswith(("unsafe_load", "full_load", "load_all"))
        for node in ast.walk(tree(source)):
            if isinstance(node, ast.ClassDef) and node.name == "_Loader":
                assert [ast.unparse(base) for base in node.bases] == ["yaml.SafeLoader"]


def test_nothing_is_unpickled_but_what_a_flow_hands_to_its_own_workers():
    for source in SOURCES:
        allowed = PICKLES.get(str(source.relative_to(ROOT)), set())
        for name, call in calls(source):
            module, _, function = name.rpartition(".")
            if module in ("pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve") and function in UNPICKLING:
                assert name in allowed
            if name == "torch.load":
                assert keywords(call)["weights_only"] == "True"
            if name in ("np.load", "numpy.load"):
                assert "allow_pickle" not in keywords(call)


def test_archives_are_never_unpacked_by_their_own_word():
    for source in SOURCES:
        for name, _ in calls(source):
            assert not name.endswith((".extractall", ".extract", "unpack_archive"))


def test_every_socket_of_ours_is_bound_to_loopback():
    for source in SOURCES:
        text = source.read_text(encoding="utf-8")
        assert "0.0.0.0" not in text
        for name, call in calls(source):
            if name.endswith(".bind") and not name.startswith("inspect.signature("):
                host = ast.unparse(call.args[0].elts[0])
                assert host == "'127.0.0.1'" or f'{host} = "127.0.0.1"' in text


ESCAPES = [
    "..",
    ".",
    "../x",
    "/etc",
    "a/b",
    "a\\b",
    "a\0b",
    ".hidden",
    "-rf",
    "",
    "a\n",
    "x" * 65,
    "ä",
    "a b",
    "~",
    "$(id)",
]


@pytest.mark.parametrize("label", ESCAPES)
def test_a_label_that_is_no_plain_file_name_is_refused(tmp_path, label):
    (tmp_path / "params.yaml").write_text(f"methods: {{{json.dumps(label)}: {{intervention: warm}}}}")
    with pytest.raises(ConfigError, match="methods"):
        load_params(tmp_path / "params.yaml")
    with pytest.raises(ConfigError, match="label"):
        parse(MethodConfig, {"label": label, "intervention": "warm"})


@pytest.mark.parametrize("label", ["a", "0", "A-_", "x" * 64, "CON", "seed-0"])
def test_whatever_else_a_label_is_its_folders_lie_in_the_store_and_in_the_results(tmp_path, label):
    params = toy.params(methods={label: {"intervention": "warm"}}, compare={"methods": [label]})
    place, run, results = place_of(params, tmp_path, None), params.run(label, 0), Results(folder=tmp_path / "results")
    for path, parent in (
        (place.run_folder(run), tmp_path / "runs"),
        (place.comparison_folder(params), tmp_path / "comparisons"),
        (results.method_folder(label), tmp_path / "results" / "runs"),
        (plan_path(place.splits, run, 0, "digest"), tmp_path / "splits"),
    ):
        assert path.resolve().parent == parent


@pytest.mark.parametrize("name", ESCAPES)
def test_a_dataset_or_model_of_such_a_name_is_refused_and_cannot_name_a_file(tmp_path, name):
    for section in ("dataset", "model"):
        (tmp_path / "params.yaml").write_text(f"{section}: {{name: {json.dumps(name)}}}")
        with pytest.raises(ConfigError, match="unknown"):
            load_params(tmp_path / "params.yaml")
    params = toy.params(model={"name": name})
    place = place_of(params, tmp_path, None)
    assert place.run_folder(params.run("warm", 0)).resolve().parent == tmp_path / "runs"
    assert place.comparison_folder(params).resolve().parent == tmp_path / "comparisons"


def test_datasets_have_plain_names():
    assert all(re.fullmatch(r"[a-z0-9_]+", name) for name in DATASETS)


SPY = """
import os, sys

def spy(event, arguments):
    if event in ("socket.connect", "socket.sendto", "socket.sendmsg", "socket.bind"):
        tell(event, arguments[1])
    elif event in ("socket.getaddrinfo", "socket.gethostbyname"):
        tell(event, arguments[0])

def tell(event, address):
    with open({file!r}, "a") as file:
        file.write(repr((os.getpid(), event, address)) + "\\n")

tell("start", sys.orig_argv)
sys.addaudithook(spy)
"""
HOSTS = ("127.0.0.1", "::1", "localhost", b"127.0.0.1", b"localhost", "", None)


def is_local(address: object) -> bool:
    """Tell whether an address is this machine: a path of AF_UNIX, a pair for AF_NETLINK, or a loopback host."""
    if isinstance(address, tuple):
        return address[0] in HOSTS or isinstance(address[0], int)
    return address in HOSTS or (isinstance(address, str | bytes) and address[:1] in ("/", "\0", b"/", b"\0"))


@pytest.mark.slow
@pytest.mark.parametrize("command", ["compare", "report"])
def test_nothing_leaves_this_machine(tmp_path, command):
    """Every process that the command starts reports each address it asks for."""
    (tmp_path / "site").mkdir()
    said = tmp_path / "said.txt"
    (tmp_path / "site" / "sitecustomize.py").write_text(SPY.format(file=str(said)))
    ended = start(tmp_path / "store", command, PYTHONPATH=f"{tmp_path / 'site'}:{ROOT}").end()
    heard = [ast.literal_eval(line) for line in said.read_text().splitlines()]
    assert ended.code == (0 if command == "compare" else 1)
    assert [line for line in heard if line[1] != "start" and not is_local(line[2])] == []
    if command == "compare":
        programs = " ".join(" ".join(argv) for _, event, argv in heard if event == "start")
        assert all(
            word in programs for word in ("dashpipe", "flows.services.prefect_process", "multiprocessing.forkserver")
        )
        started = {pid for pid, event, _ in heard if event == "start"}
        assert {pid for pid, event, _ in heard if event == "socket.connect"} - started  # the forked workers'


def listening(process: psutil.Process) -> list:
    """Return the addresses on which a process and its children listen."""
    family = [process, *process.children(recursive=True)]
    found = []
    for member in family:
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            found += [c.laddr for c in member.net_connections("inet") if c.status == psutil.CONN_LISTEN]
    return found


@pytest.mark.slow
def test_what_listens_does_so_on_loopback_only(tmp_path):
    found = []

    def heard(running) -> bool:
        with contextlib.suppress(psutil.NoSuchProcess):
            found.extend(listening(psutil.Process(running.process.pid)))
        return running.process.poll() is not None

    compared = start(tmp_path / "store", "compare")
    compared.until(lambda: heard(compared))
    assert compared.end().code == 0
    assert found
    seen = len(found)
    shown = start(tmp_path / "store", "ui", "--port", "0", "--no-browser")
    assert shown.until(lambda: heard(shown) or len(found) > seen, 120)
    shown.process.terminate()
    shown.end(60)
    assert {address.ip for address in found} == {"127.0.0.1"}
