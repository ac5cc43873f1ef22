"""Somebody else's package in the real program: compared, killed, continued, reported and reproduced as ours are."""

import os
import pickle
import subprocess
import sys
import textwrap

import pytest
import yaml

from dash_core.comparison import Params
from dash_core.config import parse
from dash_core.data import load_dataset
from dash_core.parts import use_project
from dash_core.records import read_records
from dash_core.result import WEIGHTS_FILE
from flows.command_line.settings import load_params
from flows.services.environment import prepare_environment
from tasks.store.place import place_of
from tests import toy
from tests.parts import package
from tests.parts.conftest import forget
from tests.system import shell
from tests.system.test_pipeline import Project

MINE = {
    "dataset": {"name": "mypackage.data:load"},
    "model": {"name": "mypackage.nets:build"},
    "chunks": 3,
    "seeds": [0, 1],
    "training": {"batch_size": 16, "max_epochs": 4, "precision": "exact"},
    "compare": {"methods": ["warm", "mypackage.methods:Halve"], "workers": 2},
}
LABELLED = {
    **MINE,
    "dataset": {**MINE["dataset"], "train_size": None},
    "seeds": [0],
    "methods": {"halve": {"intervention": "mypackage.methods:Halve"}, "warm": {}},
    "compare": {"methods": ["warm", "halve"]},
}
ELSEWHERE = """
    import pickle, sys
    from pathlib import Path
    run, place = pickle.load(sys.stdin.buffer)
    from dash_core.parts import use_project
    use_project(place.project)
    from dash_core.data import load_dataset
    from tests import toy
    folder = place.store / "elsewhere"
    data = load_dataset(run.dataset, data_root=folder, cache=folder)
    toy.advance(toy.trajectory(folder, run, data))
"""


def test_another_process_has_the_same_parts_and_imports_nothing_else_from_the_folder(project, tmp_path):
    (project / "threading.py").write_text("raise SystemExit('theirs')")
    params = parse(Params, MINE)
    run, place = params.run("Halve", 0), place_of(params, tmp_path, None)
    data = load_dataset(run.dataset, data_root=tmp_path, cache=tmp_path)
    toy.advance(toy.trajectory(tmp_path / "here", run, data))
    environment = {**os.environ, "PYTHONPATH": str(shell.ROOT)}
    prepare_environment(environment)
    program = [sys.executable, "-c", textwrap.dedent(ELSEWHERE)]
    subprocess.run(program, input=pickle.dumps((run, place)), cwd=project, env=environment, check=True)
    assert (tmp_path / "here" / WEIGHTS_FILE).read_bytes() == (tmp_path / "elsewhere" / WEIGHTS_FILE).read_bytes()


def outcomes(store, params: Params) -> dict[str, tuple[bytes, list[dict]]]:
    """Return weights and records of every run by its id."""
    folders = {run.id: store / "runs" / run.id for run in params.runs()}
    return {
        name: ((folder / WEIGHTS_FILE).read_bytes(), [record.result() for record in read_records(folder)])
        for name, folder in folders.items()
    }


@pytest.mark.slow
def test_a_comparison_of_own_parts_is_as_one_of_ours(project, tmp_path):
    file = project / "params.yaml"
    file.write_text(yaml.safe_dump(MINE))
    (project / "threading.py").write_text("raise SystemExit('theirs')")
    command = ("compare", "--params", str(file))
    undisturbed = shell.dashpipe(tmp_path / "undisturbed", *command, settings=())
    assert undisturbed.code == 0, undisturbed.err
    running = shell.start(tmp_path / "killed", *command, settings=())
    assert running.until(lambda: shell.begun(running.store))
    running.kill()
    again = shell.dashpipe(tmp_path / "killed", *command, settings=())
    assert again.code == 0, again.err
    params = load_params(file)
    assert outcomes(again.store, params) == outcomes(undisturbed.store, params)

    client = shell.mlflow_client(again.store)
    experiment = client.get_experiment_by_name(params.name)
    runs = client.search_runs([experiment.experiment_id], "tags.kind = 'run'")
    assert sorted(f"{run.data.tags['method']} {run.data.tags['seed']}" for run in runs) == [
        "Halve 0",
        "Halve 1",
        "warm 0",
        "warm 1",
    ]
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert len(client.search_logged_models([experiment.experiment_id])) == len(runs)
    page = (again.store / "comparisons" / params.name / "report.html").read_text(encoding="utf-8")
    assert "Halve" in page
    assert "mypackage.nets:build" in page

    package.write(project, methods=package.METHODS.replace("= 0.5", "= 0.9"))
    forget("mypackage")
    edited = load_params(file)
    assert not {run.id for run in edited.runs()} & {run.id for run in params.runs()}
    assert shell.dashpipe(again.store, *command, settings=()).code == 0
    new, old = outcomes(again.store, edited), outcomes(again.store, params)
    assert new[edited.run("warm", 0).id][0][-100:] == old[params.run("warm", 0).id][0][-100:]  # the same weights
    assert new[edited.run("Halve", 0).id] != old[params.run("Halve", 0).id]

    package.write(project, methods="raise RuntimeError('not today')")
    broken = shell.dashpipe(again.store, *command, settings=())
    assert broken.code == 2
    (line,) = broken.err.splitlines()
    assert "importing mypackage.methods failed: RuntimeError: not today" in line
    assert "RuntimeError: not today" in (again.store / ".dashpipe" / "own-part-error.txt").read_text()


@pytest.mark.slow
def test_dvc_repro_trains_own_parts_and_notices_an_edit_of_them(tmp_path):
    project = Project.new(tmp_path / "project")
    package.write(project.folder)
    project.change(**LABELLED)
    said = project.run("dvc", "repro", code=255)
    for stage in ("prepare", "split", "train"):
        assert f"mypackage (dataset mypackage.data:load) to the stage {stage}" in said.replace("\n", " ")
    definition = yaml.safe_load((project.folder / "dvc.yaml").read_text())
    for stage in ("prepare", "split", "train"):
        definition["stages"][stage]["deps"].append("mypackage")
    (project.folder / "dvc.yaml").write_text(yaml.safe_dump(definition, sort_keys=False))
    assert project.repro("report") == ["prepare", "split", "train@warm", "train@halve", "report"]
    assert project.repro("report") == []
    use_project(project.folder)
    first = load_params(project.folder / "params.yaml")
    assert len(project.science()[first.run("halve", 0).id]) == 3
    package.write(project.folder, methods=package.METHODS.replace("= 0.5", "= 0.9"))
    forget("mypackage")
    assert {"prepare", "train@halve"} <= project.stale()
    assert "train@halve" in project.repro("report")
    second = load_params(project.folder / "params.yaml")
    assert second.run("halve", 0).id != first.run("halve", 0).id
    assert len(project.science()[second.run("halve", 0).id]) == 3
