"""The comparison as a user starts it: what is printed, what lies on disk, and what survives kills and failures."""

import csv
import hashlib
import re
import shlex
import shutil
import signal

import pytest
import yaml

from dash_core.data import ChunkPlan, load_dataset
from dash_core.recipes import effective
from tests.system import shell
from tests.system.shell import TINY, dashpipe, start

CHUNKS, RUNS = 3, 2
FILES = {"config.yaml", "chunks.jsonl", "weights.safetensors", "result.json", "progress.json"}


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    return dashpipe(tmp_path_factory.mktemp("compared") / "store", "compare")


@pytest.fixture
def copied(compared, tmp_path):
    """A copy of the finished comparison: its runs, and nothing that was tracked."""
    shutil.copytree(compared.store / "runs", tmp_path / "store" / "runs")
    return tmp_path / "store"


def test_comparison_succeeds_and_says_nothing_on_stderr(compared):
    assert (compared.code, compared.err) == (0, "")
    assert (compared.store / ".dashpipe" / "prefect-server.log").read_text() == ""


def test_output_tells_every_chunk_the_table_and_where_things_lie(compared):
    lines = compared.out.splitlines()
    name = shell.params().name
    assert lines[0].startswith(f"{name}: {RUNS} runs")
    for method in ("warm", "dash"):
        own = [line for line in lines if line.startswith(f"{method} · seed 0: ")]
        assert re.fullmatch(rf"{method} · seed 0: 3 of 3 experiments, test [\d.]+%, \d+ steps, complete", own[-1])
    assert "\x1b" not in compared.out
    assert any(line.startswith("digits, cnn3_small, sgd: 3 chunks, standard recipe") for line in lines)
    assert [line.split()[0] for line in lines[-4:]] == ["tables", "report", "records", "MLflow"]
    assert f"tables   {compared.store / 'comparisons' / name}" in lines
    assert f"report   {compared.store / 'comparisons' / name / 'report.html'}" in lines
    assert f"records  {compared.store / 'runs'}" in lines


def test_printed_ui_command_names_this_comparison(compared):
    words = shlex.split(compared.out.splitlines()[-1].removeprefix("MLflow   "))
    assert words[:5] == ["uv", "run", "dashpipe", "ui", "--store"]
    assert words[5] == str(compared.store)
    assert words[6:] == [word for setting in TINY for word in ("--set", setting)]


def test_every_run_has_its_files_and_no_checkpoint_is_left(compared):
    runs = shell.params().runs()
    assert {folder.name for folder in (compared.store / "runs").iterdir()} == {run.id for run in runs}
    for run in runs:
        folder = compared.store / "runs" / run.id
        assert {path.name for path in folder.iterdir()} == FILES
        assert yaml.safe_load((folder / "config.yaml").read_text()) == effective(run)
        digest = hashlib.sha256((folder / "weights.safetensors").read_bytes()).hexdigest()
        assert shell.weights(compared.store)[run.id] == digest


def test_tables_agree_with_each_other_and_with_the_records(compared):
    folder = compared.store / "comparisons" / shell.params().name
    table = {row["method"]: row for row in csv.DictReader((folder / "table.csv").read_text().splitlines())}
    markdown, latex = ((folder / f"table.{kind}").read_text() for kind in ("md", "tex"))
    assert list(table) == ["warm", "dash"]
    for method, row in table.items():
        chunks = shell.records(compared.store)[f"{method} 0"]
        assert float(row["last_accuracy_mean"]) == pytest.approx(100 * chunks[-1].test_accuracy)
        assert float(row["average_steps_mean"]) == pytest.approx(sum(c.steps for c in chunks) / CHUNKS)
        cell = f"{float(row['last_accuracy_mean']):.2f}"  # one seed, and so no spread
        for text in (markdown, latex, compared.out):
            assert cell in next(line for line in text.splitlines() if re.match(rf"\W*{method}", line) and cell in line)
    assert yaml.safe_load((folder / "params.yaml").read_text()) == shell.params().model_dump(mode="json")


def test_every_method_trains_on_the_one_saved_plan(compared):
    (file,) = (compared.store / "splits").iterdir()
    plan = ChunkPlan.load(file)
    dataset = load_dataset(shell.params().dataset, data_root=compared.store, cache=compared.store / ".dashpipe")
    plan.check(dataset.train, shell.params().dataset)
    sizes = [len(plan.up_to(chunk)) for chunk in range(1, CHUNKS + 1)]
    assert sizes[-1] == 150
    for name, run in shell.mlflow_runs(compared.store).items():
        if name != "summary":
            assert run.data.tags["split"] == plan.digest
            assert [record.images for record in shell.records(compared.store)[name]] == sizes


def test_mlflow_has_a_finished_run_for_each_method_and_seed(compared):
    found = shell.mlflow_runs(compared.store)
    assert set(found) == {"summary", "warm 0", "dash 0"}
    assert {run.info.status for run in found.values()} == {"FINISHED"}
    for run in shell.params().runs():
        tracked = found[f"{run.method.label} {run.seed}"]
        expected = {"dataset": "digits", "model": "cnn3_small", "method": run.method.label, "seed": "0"}
        assert expected.items() <= tracked.data.tags.items()
        assert {"commit", "split", "torch"} <= set(tracked.data.tags)
        assert tracked.info.run_name == f"{run.method.label} · seed 0"
        assert tracked.data.params["training.max_epochs"] == "20"
        assert tracked.data.params["dataset.train_size"] == "150"
    assert found["dash 0"].data.params["method.parameters.floor"] == "0.3"


def test_mlflow_metrics_are_the_records_a_step_for_each_chunk(compared):
    client = shell.mlflow_client(compared.store)
    for name, chunks in shell.records(compared.store).items():
        run = shell.mlflow_runs(compared.store)[name]
        for metric in ("test_accuracy", "train_loss", "steps", "epochs", "converged"):
            points = [(p.step, p.value, p.timestamp) for p in client.get_metric_history(run.info.run_id, metric)]
            assert sorted(points) == [(c.experiment, float(getattr(c, metric)), c.finished_at) for c in chunks]
        assert run.data.metrics["total_steps"] == sum(c.steps for c in chunks)
        assert run.data.metrics["total_flops"] == sum(c.total_cost.flops for c in chunks)


def test_mlflow_keeps_the_files_and_a_model_of_the_recorded_accuracy(compared):
    import mlflow
    import torch

    client = shell.mlflow_client(compared.store)
    found = shell.mlflow_runs(compared.store)
    tables = {file.path for file in client.list_artifacts(found["summary"].info.run_id)}
    assert {"table.md", "table.csv", "table.tex", "params.yaml"} <= tables
    config = shell.params().dataset
    dataset = load_dataset(config, data_root=compared.store, cache=compared.store / ".dashpipe")
    run = found["dash 0"]
    files = {file.path for file in client.list_artifacts(run.info.run_id)}
    assert {"config.yaml", "chunks.jsonl", "weights.safetensors", "result.json"} <= files
    mlflow.set_tracking_uri(f"sqlite:///{compared.store / 'mlflow.db'}")
    model = mlflow.pytorch.load_model(f"runs:/{run.info.run_id}/dash-seed-0")
    with torch.no_grad():
        probabilities = model(dataset.test.images)
    accuracy = (probabilities.argmax(1) == dataset.test.labels).double().mean()
    assert accuracy == pytest.approx(shell.records(compared.store)["dash 0"][-1].test_accuracy, abs=1e-9)


def test_prefect_recorded_every_step_as_a_completed_task(compared):
    steps = shell.sql(compared.store, "SELECT name, state_type, count(*) FROM task_run GROUP BY name, state_type")
    assert {state for _, state, _ in steps} == {"COMPLETED"}
    verbs = ("intervene", "train", "evaluate", "record")
    counts = {name: count for name, _, count in steps if name.startswith("experiment")}
    assert counts.keys() == {f"experiment {c} · {step}" for c in (1, 2, 3) for step in verbs}
    assert {counts[f"experiment {c} · {step}"] for c in (2, 3) for step in verbs} == {RUNS}
    (first,) = {counts[f"experiment 1 · {step}"] for step in verbs}
    taken = [chunks[0].taken_from for chunks in shell.records(compared.store).values()]
    assert first == taken.count(None) >= 1  # a run that begins after the other has recorded it takes it from there


def test_prefect_shows_the_runs_as_named_children_of_the_comparison(compared):
    query = """
        SELECT child.name, child.state_type, parent.name FROM flow_run child
        LEFT JOIN task_run ON task_run.id = child.parent_task_run_id
        LEFT JOIN flow_run parent ON parent.id = task_run.flow_run_id
    """
    whole = shell.params().name
    assert set(shell.sql(compared.store, query)) == {
        (whole, "COMPLETED", None),
        ("split digits in 3 chunks", "COMPLETED", whole),
        ("digits · cnn3_small · warm · seed 0", "COMPLETED", whole),
        ("digits · cnn3_small · dash · seed 0", "COMPLETED", whole),
    }


def test_prefect_keeps_the_table_as_an_artifact(compared):
    ((kind, data),) = shell.sql(compared.store, "SELECT type, data FROM artifact")
    assert kind == "table"
    assert "Last acc. %" in data
    assert "warm" in data


def test_no_process_outlives_the_comparison(compared):
    assert len(compared.running.family) >= 4  # the server, the fork server, two workers
    assert shell.within(5, lambda: compared.running.survivors() == [])
    assert shell.within(5, lambda: shell.processes_of(compared.store) == [])


def test_comparison_made_again_trains_nothing_and_shows_the_same_table(compared):
    files = sorted((compared.store / "runs").glob("*/*"))
    before = [file.stat().st_mtime_ns for file in files]
    again = dashpipe(compared.store, "compare")
    assert (again.code, again.err) == (0, "")
    assert [file.stat().st_mtime_ns for file in files] == before
    assert _table(again) == _table(compared)
    assert len(shell.sql(compared.store, "SELECT id FROM task_run WHERE name = 'experiment 2 · train'")) == RUNS
    assert {run.info.status for run in shell.mlflow_runs(compared.store).values()} == {"FINISHED"}


@pytest.mark.slow
def test_results_do_not_depend_on_the_number_of_workers(compared, tmp_path):
    one = dashpipe(tmp_path / "store", "compare", settings=(*TINY, "compare.workers=1"))
    assert (one.code, one.err) == (0, "")
    assert shell.results(one.store) == shell.results(compared.store)
    assert shell.weights(one.store) == shell.weights(compared.store)


@pytest.mark.slow
def test_killed_comparison_leaves_no_process_and_goes_on_to_the_same_results(compared, tmp_path):
    killed = start(tmp_path / "store", "compare")
    assert killed.until(lambda: shell.begun(killed.store))
    killed.kill()
    assert shell.within(10, lambda: killed.survivors() == [])
    done = {name: len(chunks) for name, chunks in shell.records(killed.store).items()}
    assert 0 < sum(done.values()) < CHUNKS * RUNS
    resumed = dashpipe(killed.store, "compare")
    assert (resumed.code, resumed.err) == (0, "")
    assert shell.results(killed.store) == shell.results(compared.store)
    assert shell.weights(killed.store) == shell.weights(compared.store)
    _assert_one_point_a_chunk(killed.store)
    trained = "SELECT count(*) FROM task_run WHERE name LIKE '%train' AND state_type = 'COMPLETED'"
    assert shell.sql(killed.store, trained)[0][0] <= CHUNKS * RUNS + len(done)


@pytest.mark.slow
def test_failing_run_leaves_the_others_to_finish(tmp_path):
    settings = (*TINY, "compare.methods=[warm, l2_init]", "methods.l2_init.strength=1.0e+30")
    ended = dashpipe(tmp_path / "store", "compare", settings=settings)
    assert ended.code == 1
    failed, survived = (shell.params(settings).run(method, 0).id for method in ("l2_init", "warm"))
    message = ended.err.splitlines()
    assert message[0] == "error: 1 of 2 runs failed:"
    assert re.match(rf"  {failed}: .*loss", message[1])
    assert len(message) == 2
    assert "l2_init · seed 0: failed" in ended.out.splitlines()
    rows = [line for line in _table(ended) if re.match(r"│ (warm|l2_init)", line)]
    assert len(rows) == 1
    assert (ended.store / "runs" / survived / "result.json").exists()
    found = shell.mlflow_runs(ended.store, settings)
    assert {name: run.info.status for name, run in found.items()} == {
        "warm 0": "FINISHED",
        "l2_init 0": "FAILED",
        "summary": "FAILED",
    }
    assert "loss" in found["l2_init 0"].data.tags["failure"]
    states = dict(shell.sql(ended.store, "SELECT name, state_type FROM flow_run"))
    assert states["digits · cnn3_small · l2_init · seed 0"] == "FAILED"
    assert states["digits · cnn3_small · warm · seed 0"] == "COMPLETED"


@pytest.mark.slow
def test_killed_worker_fails_its_run_alone_and_the_same_command_completes_it(compared, tmp_path):
    hurt = start(tmp_path / "store", "compare", settings=(*TINY, "compare.workers=1"))
    assert hurt.until(lambda: shell.begun(hurt.store))
    (worker,) = hurt.workers()
    worker.send_signal(signal.SIGKILL)
    ended = hurt.end()
    assert ended.code == 1
    lost = shell.params().run("warm", 0).id
    assert ended.err.splitlines()[0] == "error: 1 of 2 runs failed:"
    assert ended.err.splitlines()[1].startswith(f"  {lost}: the process of this run died")
    assert {name: len(chunks) == CHUNKS for name, chunks in shell.records(hurt.store).items()}["dash 0"]
    found = shell.mlflow_runs(hurt.store)
    assert {name: run.info.status for name, run in found.items()} == {
        "warm 0": "FAILED",
        "dash 0": "FINISHED",
        "summary": "FAILED",
    }
    mended = dashpipe(hurt.store, "compare")
    assert (mended.code, mended.err) == (0, "")
    assert shell.results(hurt.store) == shell.results(compared.store)
    assert {run.info.status for run in shell.mlflow_runs(hurt.store).values()} == {"FINISHED"}
    assert "failure" not in shell.mlflow_runs(hurt.store)["warm 0"].data.tags
    _assert_one_point_a_chunk(hurt.store)


@pytest.mark.slow
def test_one_run_alone_equals_the_comparisons_and_is_done_once(compared, tmp_path):
    store, only = tmp_path / "store", ("run", "--method", "dash", "--seed", "0")
    first = dashpipe(store, *only)
    assert (first.code, first.err) == (0, "")
    assert shell.results(store) == {"dash 0": shell.results(compared.store)["dash 0"]}
    assert "complete" not in first.out.splitlines()[0]
    made = _stamps(store)
    second = dashpipe(store, *only)
    assert (second.code, second.err) == (0, "")
    assert f"{shell.params().run('dash', 0).id} is complete; --again trains it again" in second.out
    assert _stamps(store) == made
    third = dashpipe(store, *only, "--again")
    assert (third.code, third.err) == (0, "")
    assert _stamps(store) != made
    assert shell.results(store) == {"dash 0": shell.results(compared.store)["dash 0"]}
    assert shell.weights(store).items() <= shell.weights(compared.store).items()
    assert shell.mlflow_runs(store)["dash 0"].info.status == "FINISHED"


@pytest.mark.slow
def test_runs_on_disk_that_mlflow_has_not_seen_are_tracked_without_training(compared, copied):
    before = _stamps(copied)
    ended = dashpipe(copied, "compare")
    assert (ended.code, ended.err) == (0, "")
    assert _stamps(copied) == before
    assert _table(ended) == _table(compared)
    _assert_one_point_a_chunk(copied)


@pytest.mark.slow
def test_too_large_a_subset_is_one_message(tmp_path):
    ended = dashpipe(tmp_path / "store", "compare", settings=(*TINY, "dataset.train_size=1439"))
    assert (ended.code, ended.out) == (2, "")
    assert ended.err == "error: dataset.train_size: 1439 is more than the 1438 training images of digits\n"


@pytest.mark.slow
def test_missing_image_folder_is_one_message(tmp_path):
    missing = tmp_path / "no such folder"
    settings = (*TINY, "dataset.name=image_folder", f"dataset.folder={missing}", "dataset.train_size=null")
    ended = dashpipe(tmp_path / "store", "compare", settings=settings)
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.startswith(f"error: {missing}: no such folder; ")
    assert ended.err.count("\n") == 1
    assert shell.within(60, lambda: ended.running.survivors() == [])  # the fork server may still be importing


def _table(ended):
    lines = ended.out.splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith("digits, cnn3_small"))
    return lines[first : lines.index("", first)]


def _stamps(store):
    """Return when the runs' results were written; tracking them again may touch their progress files alone."""
    files = [path for path in sorted((store / "runs").glob("*/*")) if path.name != "progress.json"]
    return {path: path.stat().st_mtime_ns for path in files}


def _assert_one_point_a_chunk(store):
    client = shell.mlflow_client(store)
    for name, run in shell.mlflow_runs(store).items():
        for metric in run.data.metrics if name != "summary" else ():
            steps = [point.step for point in client.get_metric_history(run.info.run_id, metric)]
            assert sorted(steps) == sorted(set(steps)), (name, metric)
        if name != "summary":
            points = client.get_metric_history(run.info.run_id, "test_accuracy")
            expected = [(c.experiment, c.test_accuracy) for c in shell.records(store)[name]]
            assert sorted((point.step, point.value) for point in points) == expected
