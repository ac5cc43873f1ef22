"""MLflow shows what the run's folder says: each record once, its state, its files and its model."""

import math
import shutil
import signal
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import pytest
from mlflow import MlflowClient

from dash_core.cost import Cost
from dash_core.errors import RecordError, StopRequested
from dash_core.records import ChunkRecord, append_record, rewrite_records
from tasks.store.locks import locked_run
from tasks.store.progress import mark_progress
from tasks.store.runs import write_facts
from tasks.tracking import charts, client
from tasks.tracking.metrics import LAST_METRIC, Totals, metrics_of
from tests.tracking.training import (
    FACTS,
    OTHER,
    RUN,
    expected,
    files,
    mirror_of,
    points,
    shown,
    train,
    train_again,
)

ROOT = Path(__file__).parents[2]
RECORD = ChunkRecord(1, 10, 0.5, 0.7, (0.5, None), 0.9, 0.1, 7, 2, True)


@pytest.fixture
def sent(monkeypatch):
    """The number of metrics in each call of log_batch that has any."""
    counts, log_batch = [], MlflowClient.log_batch

    def count(self, run_id, metrics=(), params=(), tags=(), **others):
        if metrics:
            counts.append(len(metrics))
        return log_batch(self, run_id, metrics, params, tags, **others)

    monkeypatch.setattr(MlflowClient, "log_batch", count)
    return counts


def test_a_run_is_shown_as_it_trains_and_whole_when_it_is_complete(place, no_model):
    mirror = mirror_of(place)
    assert not mirror.bring(RUN)
    assert not mirror.opened  # it has not begun
    records = train(place, experiments=1)
    assert not mirror.bring(RUN)
    assert points(mirror) == expected(records)
    run = shown(mirror)
    assert (run.info.status, run.info.run_name) == ("RUNNING", "warm · seed 0")
    assert {
        "kind": "run",
        "method": "warm",
        "seed": "0",
        "split": "split",
        "device": "cpu",
    }.items() <= run.data.tags.items()
    assert run.data.params["training.max_epochs"] == "60"
    records = train(place)
    assert mirror.bring(RUN)
    assert points(mirror) == expected(records)
    assert shown(mirror).info.status == "FINISHED"
    assert files(mirror) == {"chunks.jsonl", "progress.json", "result.json", "weights.safetensors"}
    assert shown(mirror).data.metrics["total_steps"] == sum(record.steps for record in records)
    assert shown(mirror).data.metrics["total_flops"] == sum(record.total_cost.flops for record in records)
    assert shown(mirror).data.metrics["balanced_accuracy"] == records[-1].balanced
    assert "diverged" not in shown(mirror).data.tags
    assert not mirror.bring(RUN)
    assert not mirror_of(place).bring(RUN)  # nor does another command send anything


def test_a_later_command_leaves_the_axes_of_the_charts_as_they_were_fitted(place, no_model):
    train(place)
    mirror = mirror_of(place)
    mirror.bring(RUN)
    mirror.describe("| table |", [0.5, 0.75], place.store / "runs", "FINISHED")

    def view():
        return mirror._client.get_experiment(mirror._open().experiment_id).tags[charts.VIEW_TAG]

    fitted = view()
    assert '"yMax": 0.76' in fitted
    mirror_of(place).close("FINISHED")  # as `dashpipe run` does at its end
    assert view() == fitted


def test_a_run_to_be_forgotten_in_a_new_store_makes_the_database_whole(place, no_model):
    """And not by way of a client, whose tables a kill would leave half-made."""
    mirror = mirror_of(place)
    mirror.forget(RUN)
    made = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(client, "open_database", lambda uri, real=client.open_database: made.append(uri) or real(uri))
        patch.setattr(client, "client_of", lambda uri, real=client.client_of: made.append("client") or real(uri))
        mirror.bring(RUN)
    assert made[0] == mirror.uri


def test_each_record_is_sent_once_however_often_mlflow_is_brought_up_to_date(place, sent):
    folder = place.run_folder(RUN)
    mirror, metrics, total = mirror_of(place), len(list(metrics_of(RECORD, Totals()))), 40
    folder.mkdir(parents=True)
    write_facts(folder, "split", FACTS)
    for experiment in range(1, total + 1):
        append_record(folder, replace(RECORD, experiment=experiment, finished_at=1000 + experiment))
        mirror.bring(RUN)
    assert sent == [metrics] * total
    mirror.bring(RUN)
    mirror_of(place).bring(RUN)  # a command after a kill asks once, and sends nothing
    assert sum(sent) == metrics * total


def test_many_records_at_once_go_in_as_few_calls_as_mlflow_takes(place, sent):
    folder, metrics, total = place.run_folder(RUN), len(list(metrics_of(RECORD, Totals()))), 500
    folder.mkdir(parents=True)
    write_facts(folder, "split", FACTS)
    (folder / "chunks.jsonl").write_text(
        "".join(
            replace(RECORD, experiment=number, finished_at=number).to_json() + "\n" for number in range(1, total + 1)
        )
    )
    mirror = mirror_of(place)
    mirror.bring(RUN)
    assert (sum(sent), len(sent)) == (metrics * total, math.ceil(metrics * total / 1000))
    assert len(points(mirror)) == total


def test_records_complete_a_run_that_mlflow_half_knows_without_doubles(place, no_model):
    train(place, experiments=2)
    mirror_of(place).bring(RUN)  # here MLflow went away
    records = train(place)
    assert [mirror_of(place).bring(RUN) for _ in range(2)] == [True, False]
    mirror = mirror_of(place)
    for metric in ("steps", "total_seconds", "test_accuracy"):
        assert [step for step, *_ in points(mirror, metric=metric)] == [1, 2, 3]
    assert points(mirror) == expected(records)


def test_a_mirror_that_is_killed_is_completed_by_the_next(place, no_model):
    train(place, experiments=2)
    program = f"""
        import time
        from tasks.store.place import Place
        from tests.tracking.training import RUN, mirror_of
        mirror = mirror_of(Place.model_validate_json({place.model_dump_json()!r}))
        print(mirror.bring(RUN), mirror.failures.reasons, flush=True)
        time.sleep(60)
    """
    killed = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert killed.stdout.readline() == "False {}\n"
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    mirror = mirror_of(place)
    assert shown(mirror).info.status == "RUNNING"
    records = train(place)
    assert mirror.bring(RUN)
    assert points(mirror) == expected(records)
    assert shown(mirror).info.status == "FINISHED"


def test_a_run_trained_again_replaces_the_one_that_mlflow_knows(place, no_model):
    train(place)
    mirror = mirror_of(place)
    mirror.bring(RUN)
    for another in (mirror, mirror_of(place)):  # of the same command, and of a later one: MLflow was away meanwhile
        records = train_again(place)
        assert another.bring(RUN)
        assert points(another) == expected(records)


def test_a_forgotten_run_is_deleted_before_it_trains_again(place, no_model):
    train(place)
    mirror_of(place).bring(RUN)
    shutil.rmtree(place.run_folder(RUN))
    mirror = mirror_of(place)
    mirror.forget(RUN)
    mirror.bring(RUN)
    with pytest.raises(ValueError, match="not enough values"):
        shown(mirror)


def test_another_command_that_went_on_with_a_run_keeps_what_it_sent(place, no_model):
    train(place, experiments=1)
    early = mirror_of(place)
    early.bring(RUN)
    records = train(place)
    assert mirror_of(place).bring(RUN)
    assert not early.bring(RUN)  # whole already
    assert points(early) == expected(records)


@pytest.mark.parametrize(("state", "status"), [("stopped", "KILLED"), ("failed", "FAILED"), ("saving", "RUNNING")])
def test_a_run_that_is_not_complete_has_the_state_of_its_folder(place, state, status):
    train(place, experiments=1)
    mirror = mirror_of(place)
    mark_progress(place.run_folder(RUN), state, "the loss is nan" if state == "failed" else None)
    mirror.bring(RUN)
    assert shown(mirror).info.status == status
    assert shown(mirror).data.tags.get("failure") == ("the loss is nan" if state == "failed" else None)
    train(place, experiments=1)
    mirror.bring(RUN)
    assert shown(mirror).info.status == "RUNNING"
    assert "failure" not in shown(mirror).data.tags


def test_a_complete_run_that_another_command_holds_is_left_to_the_next_look(place, no_model):
    train(place)
    mirror = mirror_of(place)
    with locked_run(RUN, place):
        assert not mirror.bring(RUN)
        assert shown(mirror).info.status == "RUNNING"
    assert mirror.bring(RUN)


def test_a_run_that_is_removed_before_its_files_are_sent_is_not_closed(place):
    train(place)
    mirror = mirror_of(place)
    with locked_run(RUN, place):
        mirror.bring(RUN)
    shutil.rmtree(place.run_folder(RUN))
    assert not mirror.bring(RUN)
    assert (shown(mirror).info.status, mirror.failures.reasons) == ("RUNNING", {})


def test_a_command_that_is_stopped_sends_no_files_and_no_model(place):
    train(place)
    mirror = mirror_of(place)
    mirror.leaving = True
    assert not mirror.bring(RUN)
    assert len(points(mirror)) == 3
    assert files(mirror) == set()


def test_the_comparison_shows_its_table_and_files_and_is_closed(place, tmp_path):
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables" / "table.md").write_text("| method |\n")
    mirror = mirror_of(place)
    mirror.describe("| method |", [0.5, 0.75], tmp_path / "tables", "FAILED")
    client, comparison = mirror._client, mirror._open()
    summary = client.get_run(comparison.summary_run_id)
    assert summary.info.status == "FAILED"
    assert summary.data.tags["mlflow.note.content"].endswith("| method |")
    assert [file.path for file in client.list_artifacts(comparison.summary_run_id)] == ["table.md"]
    assert client.get_experiment(comparison.experiment_id).tags["mlflow.note.content"].endswith("| method |")


def test_a_damaged_run_costs_no_other_run_its_metrics(place):
    train(place, experiments=2)
    records = train(place, OTHER, experiments=1)
    path = place.run_folder(RUN) / "chunks.jsonl"
    path.write_text("{}\n" + path.read_text())
    mirror = mirror_of(place)
    for run in (RUN, OTHER):
        mirror.bring(run)
    assert (points(mirror), points(mirror, OTHER)) == ([], expected(records))
    assert mirror.failures.reasons == {}


def test_a_run_that_diverged_has_a_tag_that_names_its_experiments(place, no_model):
    records = train(place, experiments=2)
    rewrite_records(place.run_folder(RUN), [records[0], replace(records[1], train_loss=8314.0)])
    mirror = mirror_of(place)
    mirror.bring(RUN)
    assert shown(mirror).data.tags["diverged"] == "experiments 2"


def test_a_run_that_an_older_version_sent_keeps_the_parameters_it_was_sent_with(place, no_model):
    train(place, experiments=1)
    mirror = mirror_of(place)
    comparison = mirror._open()
    old = client.open_run(mirror._client, comparison.experiment_id, RUN.id, "old", {"training.schedule": None}, {})
    mirror.bring(RUN)
    assert mirror.failures.reasons == {}
    params = mirror._client.get_run(old).data.params
    assert (params["training.schedule"], params["training.warmup_epochs"]) == ("None", "0")


def test_metrics_are_finite_or_nan_and_those_of_phases_that_ran():
    cost = {"train": Cost(2.0, 10, 5), "intervene": Cost()}
    record = replace(RECORD, train_loss=math.inf, cost=cost, diagnostics={"floor_share": 0.25})
    totals = Totals()
    totals.add(record)
    metrics = dict(metrics_of(record, totals))
    assert math.isnan(metrics["train_loss"])
    assert metrics["total_teraflops"] == pytest.approx(1e-11)
    assert (metrics["converged"], metrics["total_flops"], metrics["plasticity/floor_share"]) == (1.0, 10.0, 0.25)
    assert {name for name in metrics if name.startswith("phases/")} == {
        f"phases/train_{kind}" for kind in ("seconds", "flops", "peak_memory_bytes")
    }
    assert list(metrics)[-1] == LAST_METRIC


@pytest.mark.parametrize(("error", "status"), [(StopRequested, "KILLED"), (RecordError, "FAILED")])
def test_an_error_closes_the_comparisons_own_run_which_mlflow_shows_and_opens_none_for_it(place, error, status):
    def fail(opened):
        with mirror.closed_on_error():
            if opened:
                mirror._open()
            raise error("no matter why")

    mirror = mirror_of(place)
    for opened in (False, True):
        with pytest.raises(error):
            fail(opened)
        assert mirror.opened == opened
    summary = client.client_of(mirror.uri).get_run(mirror._open().summary_run_id)
    assert summary.info.status == status


def test_a_store_of_any_name_keeps_its_database_and_its_artifacts(place, empty_database, tmp_path, no_model):
    store = tmp_path / "a?b#c%41:memory:"
    store.mkdir()
    shutil.copy(empty_database, store)
    mirror = mirror_of(place.model_copy(update={"store": store}))
    train(mirror.folders)
    assert mirror.bring(RUN, wait=True), mirror.failures.reasons
    assert "chunks.jsonl" in files(mirror)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a?b#c%41:memory:", "store"]
    assert list((store / "mlartifacts").rglob("chunks.jsonl"))
