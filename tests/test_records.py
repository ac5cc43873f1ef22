"""The records file: whole rows come back as they were written, torn and damaged ones are told apart."""

import json
import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dash_core.cost import Cost
from dash_core.errors import RecordError
from dash_core.files import DiskError
from dash_core.records import RECORDS_FILE, ChunkRecord, append_record, read_records, rewrite_records
from dash_core.result import read_result
from tests import toy

numbers = st.floats(allow_nan=False, allow_infinity=False)
counts = st.integers(0, 2**53)
costs = st.builds(Cost, numbers, counts, counts)
rows = st.builds(
    ChunkRecord,
    experiment=counts,
    images=counts,
    test_accuracy=numbers,
    test_loss=numbers,
    class_accuracy=st.lists(st.none() | numbers).map(tuple),
    train_accuracy=numbers,
    train_loss=numbers,
    steps=counts,
    epochs=counts,
    converged=st.booleans(),
    cost=st.dictionaries(st.text(), costs, max_size=3),
    diagnostics=st.dictionaries(st.text(), numbers, max_size=3),
    finished_at=counts,
)


def record(experiment: int, **changes) -> ChunkRecord:
    made = ChunkRecord(
        experiment=experiment,
        images=10 * experiment,
        test_accuracy=0.5,
        test_loss=1.25,
        class_accuracy=(0.25, None, 0.75),
        train_accuracy=1.0,
        train_loss=0.01,
        steps=20,
        epochs=4,
        converged=True,
        cost={"train": Cost(1.5, 1000, 4096), "evaluate": Cost(0.5, 200, 8192)},
        diagnostics={"floor_share": 0.875, "Ångström\nline": 1.0},
        finished_at=1_700_000_000_000,
    )
    return replace(made, **changes)


def written(folder, count: int) -> list[ChunkRecord]:
    made = [record(chunk) for chunk in range(1, count + 1)]
    for row in made:
        append_record(folder, row)
    return made


@settings(max_examples=30)
@given(rows)
def test_a_record_comes_back_from_its_line_as_it_was(row):
    line = row.to_json()
    assert "\n" not in line
    assert ChunkRecord.from_json(line) == row


def test_a_record_of_before_a_key_was_there_is_read():
    line = json.loads(record(1).to_json())
    later = ["evaluation_batch", "balanced_accuracy", "validation_accuracy", "picked_epoch"]
    assert list(line).index("finished_at") < min(list(line).index(key) for key in later)
    for key in later:
        del line[key]
    older = ChunkRecord.from_json(json.dumps(line))
    assert older == record(1)
    assert older.balanced == 0.5  # (0.25 + 0.75) / 2: a class without test images does not count


@pytest.mark.parametrize(
    ("loss", "converged", "diverged"),
    [(8314.0, False, True), (2.5, False, True), (2.1, False, False), (2.5, True, False), (11.0, True, True)],
)
def test_training_diverged_if_its_loss_ends_far_above_that_of_a_guess(loss, converged, diverged):
    assert record(1, train_loss=loss, converged=converged).diverged == diverged  # ln 3 = 1.0986


def test_records_come_back_in_their_order(tmp_path):
    assert read_records(tmp_path) == []
    made = written(tmp_path, 3)
    assert read_records(tmp_path) == made


def test_a_last_line_torn_at_any_byte_is_left_out(tmp_path):
    first, _ = written(tmp_path, 2)
    whole = (tmp_path / RECORDS_FILE).read_bytes()
    start = whole.index(b"\n") + 1
    for end in range(start, len(whole)):
        (tmp_path / RECORDS_FILE).write_bytes(whole[:end])
        assert read_records(tmp_path) == [first], end


def test_a_last_line_of_rubbish_is_left_out(tmp_path):
    made = written(tmp_path, 2)
    with (tmp_path / RECORDS_FILE).open("ab") as file:
        file.write(b"\x00" * 100 + b"\n")
    assert read_records(tmp_path) == made


@pytest.mark.parametrize(
    "damage",
    [
        lambda line: line[: len(line) // 2],
        lambda line: "",
        lambda line: "[]",
        lambda line: "null",
        lambda line: line.replace('"steps"', '"stepz"'),
        lambda line: line.replace('"train": {', '"train": {"extra": 1, '),
        lambda line: line.replace('"class_accuracy": [0.25, null, 0.75]', '"class_accuracy": 1'),
        lambda line: line.replace('"cost": {', '"cost": [{').replace('}, "diag', '}], "diag'),
        lambda line: line.replace('"chunk": 2', '"chunk": 3'),
        lambda line: line.replace('"converged": true', '"converged": "yes"').replace('d": false', 'd": "no"'),
        lambda line: line.replace('"test_loss": ', '"test_loss": NaN, "x": '),
    ],
    ids=[
        "torn",
        "empty",
        "list",
        "null",
        "other-key",
        "other-cost",
        "no-classes",
        "cost-list",
        "other-chunk",
        "other-type",
        "nan",
    ],
)
def test_a_damaged_line_in_the_middle_is_an_error_that_names_file_and_line(tmp_path, damage):
    written(tmp_path, 3)
    lines = (tmp_path / RECORDS_FILE).read_text().splitlines()
    assert damage(lines[1]) != lines[1]
    lines[1] = damage(lines[1])
    (tmp_path / RECORDS_FILE).write_text("\n".join(lines) + "\n")
    with pytest.raises(RecordError, match=rf"{RECORDS_FILE}, line 2 is damaged .*remove the run's folder"):
        read_records(tmp_path)


def test_a_damaged_line_before_a_torn_one_is_not_the_last(tmp_path):
    written(tmp_path, 1)
    with (tmp_path / RECORDS_FILE).open("a") as file:
        file.write('rubbish\n{"chunk": 3, "ima')
    with pytest.raises(RecordError, match="line 2 is damaged"):
        read_records(tmp_path)


def test_rewriting_replaces_every_line_and_leaves_nothing_else(tmp_path):
    made = written(tmp_path, 3)
    rewrite_records(tmp_path, made[:1])
    assert read_records(tmp_path) == made[:1]
    assert [path.name for path in tmp_path.iterdir()] == [RECORDS_FILE]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_number_that_json_does_not_know_is_not_written(tmp_path, value):
    with pytest.raises(ValueError, match="not JSON compliant"):
        append_record(tmp_path, record(1, test_loss=value))
    assert read_records(tmp_path) == []


def test_equal_runs_on_machines_of_another_speed_have_equal_results():
    slower = record(1, finished_at=5, cost={"train": Cost(9.0, 1000, 1), "evaluate": Cost(9.0, 200, 1)})
    dearer = record(1, cost={"train": Cost(1.5, 1001, 4096), "evaluate": Cost(0.5, 200, 8192)})
    assert slower.result() == record(1).result()
    assert dearer.result() != record(1).result()


def test_a_records_cost_is_that_of_all_phases():
    assert record(1).total_cost == Cost(2.0, 1200, 8192)


def test_a_torn_line_and_a_damaged_checkpoint_together_lose_one_chunk_and_no_more(tmp_path):
    run, data = toy.params(training={"max_epochs": 2}).run("warm", 0), toy.dataset()
    whole = toy.advance(toy.trajectory(tmp_path / "whole", run, data))
    folder = tmp_path / "torn"
    toy.advance(toy.trajectory(folder, run, data), chunks=2)
    (folder / RECORDS_FILE).write_bytes((folder / RECORDS_FILE).read_bytes()[:-40])
    (folder / "state.ckpt").write_bytes(b"rubbish")
    again = toy.trajectory(folder, run, data)
    assert again.pending == range(2, 4)
    assert toy.results(toy.advance(again)) == toy.results(whole)
    assert [json.loads(line)["chunk"] for line in (folder / RECORDS_FILE).read_text().splitlines()] == [1, 2, 3]


def test_a_line_damaged_while_the_run_is_under_way_is_made_good_from_the_checkpoint(tmp_path):
    run, data = toy.params(training={"max_epochs": 2}).run("warm", 0), toy.dataset()
    moving = toy.advance(toy.trajectory(tmp_path, run, data), chunks=2)
    (tmp_path / RECORDS_FILE).write_text("rubbish\n" * 2)
    assert toy.trajectory(tmp_path, run, data).records == read_records(tmp_path) == moving.records


def test_records_cut_at_any_byte_of_their_last_line_are_repaired_when_the_run_goes_on(tmp_path):
    run, data = toy.params(training={"max_epochs": 1}).run("warm", 0), toy.dataset()
    moving = toy.advance(toy.trajectory(tmp_path, run, data), chunks=2)
    whole = (tmp_path / RECORDS_FILE).read_bytes()
    ends = range(whole.index(b"\n") + 1, len(whole))
    for end in [*ends[:3], *ends[3:-3:60], *ends[-3:]]:  # every byte is read above; a run is opened at some
        (tmp_path / RECORDS_FILE).write_bytes(whole[:end])
        assert toy.trajectory(tmp_path, run, data).records == moving.records
        assert (tmp_path / RECORDS_FILE).read_bytes() == whole, end


def test_a_complete_run_that_lost_its_last_line_is_trained_again_and_says_so(tmp_path, caplog):
    run, data = toy.params(training={"max_epochs": 1}).run("warm", 0), toy.dataset()
    moving = toy.advance(toy.trajectory(tmp_path, run, data))
    (tmp_path / RECORDS_FILE).write_bytes((tmp_path / RECORDS_FILE).read_bytes()[:-10])
    assert read_result(tmp_path, run) is None
    again = toy.advance(toy.trajectory(tmp_path, run, data))
    assert "starts anew from its first experiment: it has no usable checkpoint" in caplog.text
    assert toy.results(again) == toy.results(moving)
    assert read_result(tmp_path, run) is not None


def test_an_append_that_fails_or_is_interrupted_leaves_the_file_as_it_was(tmp_path, monkeypatch):
    written(tmp_path, 1)
    before = (tmp_path / RECORDS_FILE).read_bytes()
    for failure in (OSError(28, ""), KeyboardInterrupt()):
        with monkeypatch.context() as patch:
            patch.setattr("os.fsync", lambda handle, failure=failure: (_ for _ in ()).throw(failure))
            with pytest.raises((DiskError, KeyboardInterrupt)):
                append_record(tmp_path, record(2))
        assert (tmp_path / RECORDS_FILE).read_bytes() == before
