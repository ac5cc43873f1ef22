"""The records that were added since the last look, whatever happened to the file meanwhile."""

from dataclasses import replace

from dash_core.records import RECORDS_FILE, ChunkRecord, append_record, rewrite_records
from tasks.store.new_records import NewRecords

RECORDS = [
    ChunkRecord(number, 10, 0.5, 0.7, (0.5, None), 0.9, 0.1, 7, 2, True, finished_at=number) for number in range(1, 5)
]


def test_each_record_is_read_once(tmp_path):
    new = NewRecords(tmp_path)
    assert new.read() == (False, [])
    for record in RECORDS:
        append_record(tmp_path, record)
        assert new.read() == (False, [record])
    assert new.read() == (False, [])
    assert NewRecords(tmp_path).read() == (False, RECORDS)


def test_a_torn_or_damaged_line_waits_until_it_is_mended(tmp_path):
    new = NewRecords(tmp_path)
    line = RECORDS[1].to_json()
    for rest in (line[:20], line, "{}\n" + line + "\n"):
        (tmp_path / RECORDS_FILE).write_text(RECORDS[0].to_json() + "\n" + rest)
        assert new.read()[1] in ([RECORDS[0]], [])
    rewrite_records(tmp_path, RECORDS)
    assert new.read() == (False, RECORDS[1:])


def test_the_same_records_written_again_are_no_other_file(tmp_path):
    new = NewRecords(tmp_path)
    rewrite_records(tmp_path, RECORDS[:3])
    new.read()
    rewrite_records(tmp_path, RECORDS)
    assert new.read() == (False, RECORDS[3:])


def test_records_of_another_training_are_told_and_all_of_them_read(tmp_path):
    new = NewRecords(tmp_path)
    rewrite_records(tmp_path, RECORDS[:3])
    new.read()
    again = [replace(record, finished_at=record.finished_at + 5) for record in RECORDS]
    rewrite_records(tmp_path, again)
    assert new.read() == (True, again)
    (tmp_path / RECORDS_FILE).unlink()
    assert new.read() == (True, [])
    rewrite_records(tmp_path, RECORDS)
    assert new.read() == (False, RECORDS)
