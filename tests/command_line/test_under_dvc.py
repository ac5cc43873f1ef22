"""A stage under DVC: it notices what changes while it runs, ends with DVC, and uses the project's own store."""

import json
import os
import shutil
from pathlib import Path

import pytest
import yaml

from dash_core.errors import ConfigError
from flows.command_line import under_dvc
from flows.command_line.dvc_project import own_project
from flows.command_line.options import SharedOptions
from flows.command_line.under_dvc import StageInputs, end_with_dvc
from flows.services.child import ancestors
from tasks.store.code import ROOT

PARAMS = {"seeds": [0], "methods": {"dash": {"floor": 0.3}, "cold": {}}, "compare": {"methods": ["cold", "dash"]}}
STAGE = {
    "deps": ["tasks/steps.py", "dash_core/optim", "results/splits"],
    "params": ["seeds", "diagnostics", "methods.${item.method}"],
}


@pytest.fixture
def dvc_project(tmp_path):
    """A project with one stage, and the code that it depends on."""
    (tmp_path / "tasks").mkdir()
    shutil.copy(ROOT / "tasks" / "steps.py", tmp_path / "tasks")
    shutil.copytree(ROOT / "dash_core" / "optim", tmp_path / "dash_core" / "optim")
    (tmp_path / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"train": STAGE}}))
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(PARAMS))
    return tmp_path


def edited(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


@pytest.mark.parametrize(
    ("file", "old", "new", "named"),
    [
        ("params.yaml", "floor: 0.3", "floor: 0.1", r"params\.yaml \(methods\.dash\)"),
        ("params.yaml", "- 0", "- 0\n- 1", r"params\.yaml \(seeds\)"),
        ("params.yaml", "seeds:", "diagnostics: [units]\nseeds:", r"params\.yaml \(diagnostics\)"),
        ("params.yaml", "methods:", "methods: [", r"params\.yaml \(diagnostics\), params\.yaml \(methods\.dash\)"),
        ("tasks/steps.py", "import", "import  ", r"tasks/steps\.py"),
        ("dash_core/optim/sam.py", "import", "import  ", "dash_core/optim"),
    ],
)
def test_a_stage_fails_at_its_end_if_what_it_depends_on_changed_under_it(dvc_project, file, old, new, named):
    inputs = StageInputs("dvc.yaml:train@dash", dvc_project)
    inputs.check()
    edited(dvc_project / file, old, new)
    with pytest.raises(ConfigError, match=rf"{named}.* changed while the stage .*`dvc repro` runs the stage again"):
        inputs.check()


def test_what_a_stage_does_not_depend_on_may_change_under_it(dvc_project):
    inputs = StageInputs("train@dash", dvc_project)
    edited(dvc_project / "params.yaml", "cold: {}", "cold: {}  # a comment")
    edited(dvc_project / "params.yaml", "- cold", "- warm")
    (dvc_project / "dash_core" / "optim" / "__pycache__").mkdir(exist_ok=True)
    (dvc_project / "dash_core" / "optim" / "__pycache__" / "sam.pyc").write_bytes(b"compiled")
    inputs.check()
    StageInputs("another", dvc_project).check()
    StageInputs("train@dash", dvc_project / "dash_core").check()  # a stage that works elsewhere than its dvc.yaml is


def test_a_project_whose_code_is_not_the_code_that_runs_is_an_error_at_once(dvc_project):
    edited(dvc_project / "tasks" / "steps.py", "import", "import  ")
    with pytest.raises(ConfigError, match=rf"tasks/steps\.py in {dvc_project} is not the code that runs.*PYTHONPATH"):
        StageInputs("train@dash", dvc_project)


def test_every_stage_of_the_project_is_found_with_its_parameters():
    for name, stage in yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"].items():
        inputs = StageInputs(f"{name}@dash", ROOT)
        assert len(inputs._names) == len(stage["params"])
        assert "$" not in "".join(inputs._names)
        inputs.check()


@pytest.fixture
def watches(dvc_project, monkeypatch):
    """Under DVC, over a project in which the given processes are DVC's: whether this process's DVC is gone."""

    def watch(content: str) -> bool | None:
        (dvc_project / ".dvc" / "tmp").mkdir(parents=True, exist_ok=True)
        (dvc_project / ".dvc" / "tmp" / "rwlock").write_text(content)
        made = []
        monkeypatch.setattr(under_dvc, "ParentWatch", lambda is_gone=None: made.append(is_gone))
        end_with_dvc()
        return made[0] and made[0]()

    monkeypatch.setenv("DVC_ROOT", str(dvc_project))
    return watch


def test_a_stage_whose_dvc_was_killed_before_it_looked_ends(watches):
    running = {"write": {"a": {"pid": os.getppid(), "cmd": "dvc repro"}}, "read": {}}
    dead = {"write": {"a": {"pid": 2**22 + 1, "cmd": "dvc repro"}}, "read": {}}
    assert watches(json.dumps(dead)) is True
    assert watches(json.dumps(running)) is False
    running["write"]["b"] = dead["write"]["a"]  # of another DVC that was killed
    assert watches(json.dumps(running)) is False
    for unknown in ("", "{", "[]", "{}", '{"write": {}}', '{"write": {"a": 1}}', '{"write": {"a": {"pid": "x"}}}'):
        assert watches(unknown) is None  # only a parent that ends from now on is noticed


def test_the_ancestors_are_those_that_the_system_names():
    import psutil

    assert ancestors() == [process.pid for process in psutil.Process().parents()] + [0][: ancestors()[-1] == 0]


def test_the_store_of_a_copy_that_dvc_throws_away_is_that_of_the_project(tmp_path):
    copy = tmp_path / "project" / ".dvc" / "tmp" / "exps" / "standalone" / "tmp1"
    copy.mkdir(parents=True)
    assert own_project(copy) == tmp_path / "project"
    assert own_project(copy / "results") == tmp_path / "project"
    assert SharedOptions(params=copy / "params.yaml").store_folder == tmp_path / "project"
    assert SharedOptions(params=copy / "params.yaml", store=copy).store_folder == copy
    for other in (tmp_path, tmp_path / "project" / ".dvc" / "tmp"):
        assert own_project(other) == other
