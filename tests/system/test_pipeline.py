"""The pipeline: what its stages declare, and `dvc repro` as it really runs, in a project of its own."""

import contextlib
import filecmp
import functools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Collection
from pathlib import Path

import grimp
import psutil
import pytest
import yaml

from dash_core.records import read_records
from flows.command_line.settings import load_params
from tasks.store import code
from tasks.store.results import Results
from tests import browser

ROOT = Path(__file__).parents[2]
PARTS = ("dash_core", "flows", "tasks", ".dvc", ".dvcignore", ".gitignore", "dvc.yaml", "params.yaml", "prefect.toml")
LEFT_OUT = shutil.ignore_patterns("__pycache__", "cache", "tmp", "config.local")
STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
# the modules that write a stage's output; it depends on them, and on the science that they import
WRITERS = {
    "prepare": ["dash_core.data", "tasks.store.results"],
    "split": ["dash_core.data.chunks"],
    "train": ["dash_core.trajectory", "tasks.steps", "tasks.store.datasets", "flows.experiment"],
    "tables": ["dash_core.views.tables", "tasks.store.comparison_folder", "tasks.store.evidence"],
    "figures": ["dash_core.views.figures", "tasks.store.evidence"],
    "report": ["dash_core.views.report", "tasks.store.comparison_folder", "tasks.store.evidence"],
    "theory": ["dash_core.theory", "dash_core.views.figures"],
}
PLUMBING = {  # how files and errors are written, and own parts imported, which are known by their source
    "dash_core.files",
    "dash_core.errors",
    "dash_core.extras",
    "dash_core.mistakes",
    "dash_core.parts",
}
FORM = {"dash_core.config", "dash_core.section"}  # of the parameters, which a stage names one by one
READ = {
    *FORM,
    "dash_core.protocols",
    "dash_core.records",
    "dash_core.cost",
    "dash_core.device",
    "dash_core.flops",
}  # views take records as they are
NAMED = {"dash_core.interventions", "dash_core.penalties"}  # for their names
TINY = {
    "model": {"name": "cnn3_small"},
    "chunks": 2,
    "seeds": [0, 1],
    "dataset": {"train_size": 120},
    "training": {"max_epochs": 12},
    "compare": {"methods": ["cold", "dash"]},
    "theory": {"experiments": 4, "points": 100, "gamma": 10, "test_points": 100, "seeds": [0]},
}


@functools.cache
def imports() -> grimp.ImportGraph:
    return grimp.build_graph("dash_core", "tasks", "flows")


def code_of(stage: str) -> set[str]:
    """Return a stage's writers, and the modules of dash_core that its writers in dash_core import, directly or not."""
    graph = imports()
    modules = set()
    for writer in WRITERS[stage]:
        own = {writer} | graph.find_descendants(writer)
        science = {module for module in own if module.startswith("dash_core")}
        modules |= own.union(*(graph.find_upstream_modules(module) for module in science))
    return modules - {"dash_core"}


def covered(module: str, paths: Collection[str]) -> bool:
    """Tell whether a module is one of the files, or in one of the folders, that dotted paths name."""
    return any(module == path or module.startswith(f"{path}.") for path in paths)


@pytest.mark.parametrize("stage", WRITERS)
def test_a_stage_depends_on_the_code_that_decides_its_output_and_on_no_other(stage):
    paths = [path for path in STAGES[stage]["deps"] if not path.startswith("results")]
    declared = [path.removesuffix(".py").replace("/", ".") for path in paths]
    views = {"tables", "figures", "report", "theory"}
    ignored = PLUMBING | (READ | NAMED if stage in views else FORM)
    ignored |= {"dash_core.theory"} if stage in ("figures", "report") else set()  # figure 3 is drawn by its own stage
    ignored |= {"dash_core.protocols"} if stage == "prepare" else set()  # what is decoded is not yet cut in chunks
    modules = code_of(stage)
    assert {module for module in modules if not covered(module, [*declared, *ignored])} == set()  # to be added
    assert {path for path in declared if not any(covered(module, [path]) for module in modules)} == set()  # to go
    assert len(set(declared)) == len(declared)


def test_what_counts_as_training_code_is_what_the_stage_depends_on():
    assert [path for path in STAGES["train"]["deps"] if not path.startswith("results")] == list(code.TRAINING_CODE)


def test_training_depends_on_no_code_of_tables_figures_report_or_theory():
    views = ("spread", "theory", "views")
    assert not [path for path in STAGES["train"]["deps"] if path.startswith(tuple(f"dash_core/{v}" for v in views))]
    assert {path for path in STAGES["train"]["deps"] if path.startswith("results")} == {"results/splits"}


def test_every_path_and_parameter_that_a_stage_names_is_there():
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    for stage in STAGES.values():
        assert all((ROOT / path).exists() for path in stage["deps"] if not path.startswith("results"))
        assert all(name.partition(".")[0] in params for name in stage["params"])
    assert set(params["compare"]["methods"]) <= set(params["methods"])  # a stage reads `methods.<its method>`


class Project:
    """A copy of the project under git and DVC, with a comparison that takes a minute."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.results = Results(folder=folder / "results")

    @classmethod
    def new(cls, folder: Path) -> "Project":
        folder.mkdir()
        for part in PARTS:
            copy = shutil.copytree if (ROOT / part).is_dir() else shutil.copy
            copy(ROOT / part, folder / part, **({"ignore": LEFT_OUT} if copy is shutil.copytree else {}))
        project = cls(folder)
        project.change(**TINY)
        project.run("git", "init", "-q")
        project.commit("the project")
        return project

    def change(self, **sections: object) -> None:
        """Change values of params.yaml."""
        path = self.folder / "params.yaml"
        content = yaml.safe_load(path.read_text())
        for name, value in sections.items():
            content[name] = {**content[name], **value} if isinstance(value, dict) else value
        path.write_text(yaml.safe_dump(content))

    def commit(self, message: str) -> None:
        self.run("git", "add", "-A")
        self.run("git", "-c", "user.name=A", "-c", "user.email=a@example.org", "commit", "-qm", message)

    def start(self, *command: str) -> subprocess.Popen:
        foreign = ("PREFECT_API_URL", "MLFLOW_TRACKING_URI", "DASHPIPE_STORE", "DASHPIPE_DATA", "SHELL")
        environ = {name: value for name, value in os.environ.items() if name not in foreign}
        environ |= {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(self.folder),  # the copy's code, not that which is installed
            "PREFECT_HOME": str(self.folder.parent / "prefect-home"),
            "SHELL": "/bin/sh",
        }
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        return subprocess.Popen(command, cwd=self.folder, env=environ, start_new_session=True, **pipes)

    def run(self, *command: str, code: int = 0) -> str:
        process = self.start(*command)
        said = process.communicate(timeout=1200)[0]
        assert process.returncode == code, said
        return said

    def repro(self, *words: str) -> list[str]:
        """Run `dvc repro` and return the stages that ran."""
        return re.findall(r"^Running stage '(.*)':$", self.run("dvc", "repro", *words), re.M)

    def stale(self) -> set[str]:
        """Return the stages that would run, before any has."""
        return set(json.loads(self.run("dvc", "status", "--json")))

    def science(self) -> dict[str, list[dict]]:
        """Return what every run gave, seconds apart."""
        params = load_params(self.folder / "params.yaml")
        records = {run.id: read_records(self.results.run_folder(run)) for run in params.runs()}
        return {name: [record.result() for record in some] for name, some in records.items()}


ALL = ["prepare", "split", "train@cold", "train@dash", "tables", "figures", "report", "theory"]


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A project in which everything has run once, committed."""
    project = Project.new(tmp_path_factory.mktemp("pipeline") / "project")
    assert sorted(project.repro()) == sorted(ALL)
    project.commit("results")
    return project


@pytest.mark.slow
def test_what_has_run_does_not_run_again(project):
    assert project.repro() == []
    assert project.run("git", "status", "--porcelain") == ""


@pytest.mark.slow
def test_code_and_parameters_make_stale_what_depends_on_them_and_nothing_else(project):
    try:
        for path, stages in {
            "dash_core/views/report/page.py": {"report"},
            "dash_core/views/figures/look.py": {"report", "figures", "theory"},
            "dash_core/theory.py": {"theory"},
            "dash_core/interventions/dash.py": {"train@cold", "train@dash"},
        }.items():
            text = (project.folder / path).read_text()
            (project.folder / path).write_text(text + "\n# another comment\n")
            assert project.stale() == stages, path
            (project.folder / path).write_text(text)
        project.change(compare={"workers": 2, "device": "cpu"})
        assert project.stale() == set()
        project.change(theory={"tau": 2})
        assert project.stale() == {"theory"}
        project.change(methods={"shrink_perturb": {"shrink": 0.4}})
        assert "train@cold" not in project.stale()
        assert "train@dash" not in project.stale()
    finally:
        project.run("git", "checkout", "-q", ".")


@pytest.mark.slow
def test_changed_training_code_trains_again_from_the_beginning(project):
    records = project.results.method_folder("dash") / "seed-0" / "chunks.jsonl"
    before = records.read_bytes()
    path = project.folder / "dash_core" / "training.py"
    path.write_text(path.read_text() + "\n# another comment\n")
    assert project.repro("--single-item", "train@dash") == ["train@dash"]
    assert records.read_bytes() != before  # other seconds and times of day
    project.run("git", "checkout", "-q", ".")
    project.run("dvc", "checkout")
    assert records.read_bytes() == before
    assert project.repro() == []


@pytest.mark.slow
def test_another_lambda_trains_its_method_alone_and_the_numbers_are_compared(project):
    project.change(methods={"dash": {"alpha": 0.3, "floor": 0.9}})
    assert project.repro() == ["train@dash", "tables", "figures", "report"]
    changed = json.loads(project.run("dvc", "metrics", "diff", "--json"))["results/tables/metrics.json"]
    assert changed
    assert all(name.startswith("dash.") for name in changed)
    project.run("git", "checkout", "-q", ".")
    project.run("dvc", "checkout")
    assert project.repro() == []


@pytest.mark.slow
def test_a_killed_repro_goes_on_where_it_stopped(project, tmp_path):
    killed = Project.new(tmp_path / "killed")
    running = killed.start("dvc", "repro")
    first = load_params(killed.folder / "params.yaml").run("dash", 0)
    chunks = killed.folder / "runs" / first.id / "chunks.jsonl"
    assert _within(600, lambda: (chunks.exists() and chunks.stat().st_size) or running.poll() is not None)
    family = psutil.Process(running.pid).children(recursive=True)
    running.send_signal(signal.SIGKILL)
    running.communicate()
    assert _within(20, lambda: not any(_alive(process) for process in family))  # nobody writes over the next attempt
    begun = chunks.read_bytes()
    assert begun
    assert killed.repro() == ["train@dash", "tables", "figures", "report", "theory"]
    assert chunks.read_bytes().startswith(begun)
    assert killed.science() == project.science()
    assert _rows(killed) == _rows(project)


@pytest.mark.slow
@pytest.mark.parametrize("delay", [0.3, 1.0])
def test_a_dvc_that_is_killed_as_a_stage_starts_takes_the_stage_with_it(tmp_path, delay):
    killed = Project.new(tmp_path / "killed")
    killed.repro("split")
    running = killed.start("dvc", "repro", "train@dash")
    assert _within(600, lambda: _stage_of(running) or running.poll() is not None)
    stage = _stage_of(running)
    time.sleep(delay)
    running.send_signal(signal.SIGKILL)
    assert _within(20, lambda: not any(_alive(process) for process in stage))
    running.communicate()
    assert not list(killed.folder.glob("runs/*/result.json"))
    assert killed.repro("train@dash") == ["train@dash"]


@pytest.mark.slow
def test_what_was_edited_under_a_stage_is_not_recorded_as_the_origin_of_its_output(tmp_path):
    edited = Project.new(tmp_path / "edited")
    edited.repro("split")
    running = edited.start("dvc", "repro", "train@dash")
    first = load_params(edited.folder / "params.yaml").run("dash", 0)
    chunks = edited.folder / "runs" / first.id / "chunks.jsonl"
    assert _within(600, lambda: chunks.exists() or running.poll() is not None)
    edited.change(methods={"dash": {"alpha": 0.3, "floor": 0.1}})
    said = running.communicate()[0]
    assert running.returncode != 0
    assert "params.yaml (methods.dash) changed while the stage train@dash ran" in said
    assert "train@dash" in edited.stale()
    assert edited.repro("tables") == ["train@cold", "train@dash", "tables"]
    rows = (edited.results.folder / "tables" / "table.md").read_text()
    assert "dash" in rows
    assert edited.science()[load_params(edited.folder / "params.yaml").run("dash", 0).id]


@pytest.mark.slow
def test_an_experiment_in_a_copy_of_the_project_uses_the_projects_store(project):
    runs = {path.name for path in (project.folder / "runs").iterdir()}
    said = project.run("dvc", "exp", "run", "--temp", "-S", "methods.dash.floor=0.7", "train@dash")
    made = {path.name for path in (project.folder / "runs").iterdir()} - runs
    assert len(made) == len(load_params(project.folder / "params.yaml").seeds), said
    assert not [
        path for path in (project.folder / ".dvc" / "tmp" / "exps").rglob("runs") if "results" not in path.parts
    ]


def _stage_of(running: subprocess.Popen) -> list[psutil.Process]:
    """Return the processes of DVC's stage: a shell, and the stage's command."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return [p for p in psutil.Process(running.pid).children(recursive=True) if "train" in p.cmdline()]
    return []


@pytest.mark.slow
def test_a_colleague_pulls_the_same_bytes_without_training(project, tmp_path):
    project.run("dvc", "remote", "add", "--local", "-d", "shared", str(tmp_path / "remote"))
    project.run("dvc", "push")
    project.run("git", "clone", "-q", str(project.folder), str(tmp_path / "clone"))
    clone = Project(tmp_path / "clone")
    clone.run("dvc", "remote", "add", "--local", "-d", "shared", str(tmp_path / "remote"))
    clone.run("dvc", "pull")
    assert _differing(project.folder / "results", clone.folder / "results") == []
    assert clone.repro() == []
    assert clone.repro("--force", "--single-item", "tables") == ["tables"]  # made again from the pulled records
    assert _differing(project.folder / "results", clone.folder / "results") == []
    assert not (clone.folder / "runs").exists()


@pytest.mark.slow
@pytest.mark.skipif(browser.find_chromium() is None, reason="no Chrome or Chromium")
def test_plots_are_drawn_without_a_network(project):
    project.run("dvc", "plots", "show")
    with browser.running_chromium() as chromium, chromium.page() as page:
        page.go(project.folder / "dvc_plots" / "index.html")
        page.wait_for("document.querySelectorAll('.vega-embed .marks').length === 2")
        assert page.console == []
        assert [address for address in page.requests if not address.startswith(("file:", "data:"))] == []


def _rows(project: Project) -> list[list[str]]:
    """Return the table's lines without seconds, which no two runs share."""
    lines = (project.results.folder / "tables" / "table.csv").read_text().splitlines()
    timed = [number for number, name in enumerate(lines[0].split(",")) if name.startswith("seconds")]
    return [[cell for number, cell in enumerate(line.split(",")) if number not in timed] for line in lines]


def _differing(one: Path, other: Path) -> list[str]:
    """Return the files that two folders do not share byte for byte."""
    files = {path.relative_to(folder) for folder in (one, other) for path in folder.rglob("*") if path.is_file()}
    pairs = {file: (one / file, other / file) for file in files}
    same = {f for f, (a, b) in pairs.items() if a.exists() and b.exists() and filecmp.cmp(a, b, shallow=False)}
    return sorted(map(str, files - same))


def _alive(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.status() != psutil.STATUS_ZOMBIE
    return False


def _within(seconds: float, condition) -> bool:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)
    return condition()
