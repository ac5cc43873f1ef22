"""The inbox is listed: complete deliveries are taken, half-written ones are waited for, and nothing is read twice."""

import os
import time

import pytest

from dash_core.errors import DataError, RecordError
from tasks.store.stream.inbox import MARKER, Seen, deliveries, delivery
from tasks.store.stream.ledger import Ledger

CLASSES = ("cat", "dog")


def write(folder, *names: str, age: float = 0.0) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"image " + os.fsencode(name))


def test_a_delivery_that_still_changes_is_waited_for_until_it_is_quiet(tmp_path):
    write(tmp_path / "monday", "cat/1.png")
    waiting = delivery(tmp_path / "monday", CLASSES, 60)
    assert waiting.waiting
    assert 50 < waiting.seconds <= 60
    assert delivery(tmp_path / "monday", CLASSES, 0).waiting is None


def test_a_marker_completes_a_delivery_at_once(tmp_path):
    write(tmp_path / "monday", "cat/1.png", MARKER)
    found = delivery(tmp_path / "monday", CLASSES, 60)
    assert (found.waiting, [(item.file, item.label) for item in found.items]) == (None, [("cat/1.png", "cat")])


def test_a_manifest_names_files_labels_and_groups_in_its_order_and_waits_for_missing_ones(tmp_path):
    monday = tmp_path / "monday"
    write(monday, "b.png")
    (monday / "manifest.csv").write_text(f"file,label,group,size\nb.png,dog,p1,{len(b'image b.png')}\na.png,cat,p2,\n")
    assert "a.png" in delivery(monday, CLASSES, 0).waiting
    write(monday, "a.png")
    found = delivery(monday, CLASSES, 60)
    assert [(item.file, item.label, item.group) for item in found.items] == [
        ("b.png", "dog", "p1"),
        ("a.png", "cat", "p2"),
    ]
    (monday / "b.png").write_bytes(b"longer than it says")
    assert "b.png" in delivery(monday, CLASSES, 0).waiting


def test_a_manifest_that_cannot_be_read_is_waited_for_and_named(tmp_path):
    write(tmp_path / "monday", "a.png")
    (tmp_path / "monday" / "manifest.jsonl").write_text("{")
    assert "manifest cannot be read" in delivery(tmp_path / "monday", CLASSES, 0).waiting


def test_a_class_folder_in_the_inbox_itself_is_no_delivery(tmp_path):
    write(tmp_path, "cat/1.png")
    (found,) = deliveries(tmp_path, CLASSES, 0)
    assert "folder for each delivery" in found.waiting


def test_a_delivery_that_is_seen_is_not_opened_again_until_it_changes(tmp_path):
    write(tmp_path / "inbox" / "monday", "cat/1.png")
    (found,) = deliveries(tmp_path / "inbox", CLASSES, 0)
    Seen(tmp_path).add(found)
    assert found in Seen(tmp_path)
    (tmp_path / "inbox" / "monday" / "cat" / "1.png").write_bytes(b"other")
    (changed,) = deliveries(tmp_path / "inbox", CLASSES, 0)
    assert changed not in Seen(tmp_path)


@pytest.mark.parametrize(
    "name", ["a\nb.png", "x" * 250 + ".png", "a..png", b"\xff.png".decode(errors="surrogateescape")]
)
def test_strange_names_are_listed(tmp_path, name):
    write(tmp_path / "monday", f"cat/{name}")
    assert [item.file for item in delivery(tmp_path / "monday", CLASSES, 0).items] == [f"cat/{name}"]


def test_a_manifest_cannot_name_a_file_outside_its_delivery(tmp_path):
    write(tmp_path, "secret.png")
    write(tmp_path / "monday", "a.png")
    (tmp_path / "monday" / "manifest.csv").write_text("file,label\n../secret.png,cat\n")
    assert "missing" in delivery(tmp_path / "monday", CLASSES, 0).waiting


def test_an_inbox_that_is_missing_is_an_error_that_names_it(tmp_path):
    with pytest.raises(DataError, match="nowhere"):
        deliveries(tmp_path / "nowhere", CLASSES, 0)


def test_a_ledger_keeps_its_entries_and_a_torn_line_is_cut_off(tmp_path):
    ledger = Ledger(tmp_path / "ledger.jsonl")
    for number in range(3):
        ledger.append("created", number=number)
    with ledger.path.open("ab") as file:
        file.write(b'{"before":"torn')
    again = Ledger(ledger.path)
    assert again.entries == ledger.entries
    again.append("created", number=3)
    assert [entry["number"] for entry in Ledger(ledger.path).entries] == [0, 1, 2, 3]


@pytest.mark.parametrize("change", ["swap", "edit", "remove"])
def test_a_ledger_that_was_changed_is_refused(tmp_path, change):
    ledger = Ledger(tmp_path / "ledger.jsonl")
    for number in range(4):
        ledger.append("created", number=number)
    lines = ledger.path.read_text().splitlines(keepends=True)
    if change == "swap":
        lines[1], lines[2] = lines[2], lines[1]
    elif change == "edit":
        lines[1] = lines[1].replace('"number":1', '"number":7')
    else:
        del lines[1]
    ledger.path.write_text("".join(lines))
    with pytest.raises(RecordError, match=r"line \d was changed"):
        Ledger(ledger.path)


def test_a_thousand_arrivals_take_a_megabyte_of_ledger_at_most(tmp_path):
    ledger = Ledger(tmp_path / "ledger.jsonl")
    digest = "a" * 64
    arrival = {"digest": digest, "source": "delivery-of-monday", "outcome": "admitted", "held_out": 100}
    arrival |= {"held_digest": digest[:32], "train": 400, "chunk": 999, "chain": digest}
    model = {"weights_sha256": digest, "chunk": 999, "parent": "b" * 12}
    model |= {"experiment": 999, "accuracy": 0.978892, "images": 400_000, "steps": 12_000, "epochs": 12}
    model |= {"converged": True, "seconds": 999.9, "flops": 8_764_702_976_000, "code": "54c078f6"}
    ledger.append("arrival", arrival=arrival)
    ledger.append("trained", model=model)
    ledger.append("look", challenger="a" * 12, champion="b" * 12)
    ledger.append("verdict", model="a" * 12, verdict="pass", details="a" * 32)
    assert ledger.path.stat().st_size * 1000 <= 2**20
    assert time.time() - Ledger(ledger.path).entries[0]["at"] < 3600
