"""The pipeline's stages: what each leaves in the results, and what it refuses."""

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from dash_core.comparison import Params
from dash_core.config import merge, parse
from dash_core.data import ChunkPlan
from dash_core.errors import ConfigError, RecordError
from dash_core.theory import simulate, to_csv
from flows.command_line import stages as stages_module
from flows.command_line.options import SharedOptions
from flows.command_line.stages import Stages
from tasks.store.place import place_of
from tasks.store.results import KEPT_FILES, Results, keep
from tasks.store.runs import is_complete
from tests import toy

SETTINGS = {
    "chunks": 3,
    "dataset": {"train_size": 90},
    "training": {"batch_size": 32, "max_epochs": 2},
    "seeds": [0, 1],
    "compare": {"methods": ["cold", "dash"]},
    "theory": {"points": 40, "experiments": 3, "features": 5, "gamma": 4, "test_points": 20, "seeds": [0]},
}


class Project:
    """A store and a results folder, and stages over them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.results = Results(folder=folder / "results")
        self.console = Console(record=True, width=200, file=io.StringIO())

    def stages(self, results: bool = True, **changes: object) -> Stages:
        params = parse(Params, merge(SETTINGS, changes))
        place = place_of(params, self.folder / "store", None)
        options = SharedOptions(results=self.results.folder if results else None)
        return Stages.of(params, place, options, self.console)

    def said(self) -> list[str]:
        return self.console.export_text().splitlines()

    def train(self, stages: Stages) -> None:
        """Put the complete runs of every method in the results."""
        dataset = stages._dataset()
        for run in stages.settings.runs():
            moving = toy.trajectory(stages.place.run_folder(run), run, dataset)
            while moving.pending:
                moving.advance()
            moving.finish({"device": "cpu", "cores": 2, "workers": 1, "threads": 1, "torch": "2", "commit": "abc"})
            (stages.place.run_folder(run) / "config.yaml").write_text("seed: 0\n")
            keep(run, stages.place, self.results)


@pytest.fixture
def project(tmp_path):
    return Project(tmp_path)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    project = Project(tmp_path_factory.mktemp("trained"))
    stages = project.stages()
    stages.prepare()
    stages.split()
    project.train(stages)
    return project


def test_prepare_tells_what_the_dataset_is(project):
    project.stages().prepare()
    described = json.loads(project.results.dataset.read_text())
    assert (described["name"], described["train_images"], described["test_images"]) == ("digits", 1438, 359)
    assert described["image_shape"] == [1, 8, 8]
    assert described["class_names"] == list("0123456789")
    assert project.said()[0].startswith("digits: 1,438 training and 359 test images of 1×8×8, 10 classes, content ")


def test_split_writes_a_plan_a_seed_that_the_check_accepts(project):
    stages = project.stages()
    stages.prepare()
    stages.split()
    plans = [ChunkPlan.load(path) for path in sorted(project.results.splits.iterdir())]
    assert [(plan.seed, [len(chunk) for chunk in plan.chunks]) for plan in plans] == [(0, [30] * 3), (1, [30] * 3)]
    project.said()
    stages.check_splits()
    assert project.said() == [
        f"seed {plan.seed}: 3 chunks of 30 images, split {plan.digest[:8]}: belongs to digits, disjoint, covering"
        for plan in plans
    ]


def test_the_check_finds_a_missing_a_foreign_and_a_changed_plan(project):
    stages = project.stages()
    stages.prepare()
    with pytest.raises(RecordError, match=r"no chunk plan .*dashpipe split"):
        stages.check_splits()
    stages.split()
    first, second = sorted(project.results.splits.iterdir())
    first.write_text(second.read_text())
    with pytest.raises(RecordError, match=r"holds the plan of seed 1 in 3 chunks"):
        stages.check_splits()
    stages.split()
    content = json.loads(first.read_text())
    content["chunks"][0].append(content["chunks"][1][0])
    first.write_text(json.dumps(content))
    with pytest.raises(RecordError, match="twice"):
        stages.check_splits()


def test_the_check_finds_a_plan_that_covers_less_than_the_data(project):
    stages = project.stages()
    stages.prepare()
    stages.split()
    first = min(project.results.splits.iterdir())
    plan = ChunkPlan.load(first)
    ChunkPlan(plan.dataset, plan.dataset_digest, plan.seed, (*plan.chunks[:2], plan.chunks[2][:-1])).save(first)
    with pytest.raises(RecordError, match="holds 89 images, not exactly the 90"):
        stages.check_splits()


def test_no_stage_goes_on_with_other_data_than_were_prepared(project):
    stages = project.stages()
    with pytest.raises(RecordError, match="dashpipe prepare"):
        stages.split()
    stages.prepare()
    described = json.loads(project.results.dataset.read_text())
    project.results.dataset.write_text(json.dumps(described | {"train_digest": "0" * 64}))
    with pytest.raises(ConfigError, match=r"not the version .* run `dashpipe prepare` again"):
        stages.split()


def test_train_copies_complete_runs_and_nothing_else(trained, monkeypatch):
    folder = trained.results.method_folder("dash")
    (folder / "seed-0" / "result.json").write_text("{}")
    folder.joinpath("seed-1", "result.json").unlink()
    monkeypatch.setattr(stages_module, "code_digest", str)  # as the test's runs name it
    stages = trained.stages()
    stages.train("dash")
    for seed in (0, 1):
        source = stages.place.run_folder(stages.settings.run("dash", seed))
        assert {path.name for path in (folder / f"seed-{seed}").iterdir()} == set(KEPT_FILES)
        assert all((folder / f"seed-{seed}" / name).read_bytes() == (source / name).read_bytes() for name in KEPT_FILES)


def test_tables_are_the_same_bytes_each_time_and_name_the_splits(trained):
    stages = trained.stages()
    stages.tables()
    folder = trained.results.folder / "tables"
    first = {path.name: path.read_bytes() for path in folder.iterdir()}
    stages.tables()
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == first
    assert set(first) == {"table.md", "table.csv", "table.tex", "experiments.csv", "metrics.json", "plots.html"}
    plans = [ChunkPlan.load(path) for path in sorted(trained.results.splits.iterdir())]
    assert f"data splits by seed: 0 {plans[0].digest[:8]}, 1 {plans[1].digest[:8]}" in first["table.md"].decode()


def test_runs_made_on_another_split_are_not_in_the_tables(trained, project):
    stages = project.stages()
    stages.prepare()
    stages.split()
    project.train(stages)
    path = min(project.results.splits.iterdir())
    plan = ChunkPlan.load(path)
    ChunkPlan(plan.dataset, plan.dataset_digest, plan.seed, plan.chunks[::-1]).save(path)
    stages.tables()
    text = (project.results.folder / "tables" / "table.md").read_text()
    assert "runs missing; seeds complete: cold 1 of 2, dash 1 of 2" in text


def test_a_method_without_a_complete_run_is_named_under_the_table(trained):
    stages = trained.stages(methods={"dash": {"floor": 0.1}})  # as after an edit of params.yaml
    stages.tables()
    for form in ("table.md", "table.tex"):
        text = (trained.results.folder / "tables" / form).read_text()
        assert "no run is complete, and so there is no row, of: dash" in text
    assert any("there is no row, of: dash" in line for line in trained.said())


def test_a_method_that_is_compared_no_more_leaves_the_results_but_not_the_store(project):
    stages = project.stages()
    stages.prepare()
    stages.split()
    project.train(stages)
    project.stages(compare={"methods": ["dash"]}).tables()
    assert [folder.name for folder in (project.results.folder / "runs").iterdir()] == ["dash"]
    assert stages.place.run_folder(stages.settings.run("cold", 0)).exists()


def test_runs_of_other_code_are_not_complete_for_a_pipeline(trained):
    stages = trained.stages()
    run = stages.settings.run("dash", 0)
    assert is_complete(run, stages.place)
    assert not is_complete(run, stages.place, code=stages.place.given_code)  # the test's runs name no code


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"name": "digits", "train_digest": "", "class_names": []}'])
def test_a_damaged_description_says_what_makes_it_again(project, content):
    project.results.dataset.parent.mkdir()
    project.results.dataset.write_text(content)
    with pytest.raises(RecordError, match=r"dataset\.json cannot be read .* run `dashpipe prepare` again"):
        project.stages().tables()


def test_a_results_folder_that_cannot_be_made_is_an_error_before_anything_runs(project):
    project.results.folder.write_text("a file")
    with pytest.raises(ConfigError, match=r"--results: .* cannot hold results"):
        project.stages()


def test_without_a_complete_run_the_views_say_what_trains_them(project):
    stages = project.stages()
    stages.prepare()
    stages.split()
    with pytest.raises(RecordError, match=r"no run of .* is complete: `dvc repro` trains them"):
        stages.tables()


def test_the_page_of_plots_loads_nothing_from_a_server(trained):
    trained.stages().tables()
    page = (trained.results.folder / "tables" / "plots.html").read_text()
    assert "{plot_divs}" in page
    assert "<script src" not in page
    assert "cdn." not in page


def test_theory_writes_the_simulation_of_the_parameters(project, monkeypatch):
    monkeypatch.setenv("BROWSER_PATH", "/nowhere")
    stages = project.stages()
    stages.theory()
    written = (project.results.folder / "theory" / "theory.csv").read_bytes()
    assert written == to_csv(simulate(stages.settings.theory)).encode()
    assert (project.results.folder / "theory" / "theory.html").exists()
    assert "note     the figures are HTML only: static images need Chrome or Chromium" in project.said()[0]
