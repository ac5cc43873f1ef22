"""A copy of run folders where fsspec reaches: written after each save, taken up where it is ahead."""

import json
import logging
from pathlib import Path

import fsspec
import pytest

from dash_core.errors import ConfigError
from dash_core.records import RECORDS_FILE, read_records
from dash_core.run_state import Watch
from tasks.store.attempts import saved_steps
from tasks.store.place import Place
from tasks.store.remote_copy import COMPLETE_FILES, RemoteCopy, after_state, remote_copy
from tasks.store.runs import forget
from tests import toy

RUN = toy.params().run("warm", 0)


@pytest.fixture(params=["file", "memory"])
def address(request, tmp_path):
    yield f"file://{tmp_path / 'bucket'}" if request.param == "file" else "memory://bucket/project"
    fsspec.filesystem("memory").store.clear()


def copied(address, folder, stop_after=None, experiments=None):
    """Train a run with a copy, as the flow does; stop it after so many steps or experiments."""
    copy = remote_copy(address, folder)
    folder.mkdir(parents=True, exist_ok=True)
    copy.take_up()
    left = iter(range(stop_after or 10**9))
    watch = Watch(stop=lambda: next(left) == (stop_after or 0) - 1, after_save=after_state(copy))
    moving = toy.trajectory(folder, RUN, toy.dataset(), watch=watch)
    (folder / "config.yaml").write_text("{}")
    for _ in moving.pending[:experiments]:
        moving.advance()
        copy.put_records()
    if not moving.pending:
        moving.finish({})
        copy.put_result()
    return moving


def test_a_run_goes_on_from_the_copy_on_a_machine_that_has_nothing_with_the_same_bits(address, tmp_path):
    alone = toy.advance(toy.trajectory(tmp_path / "alone" / RUN.id, RUN, toy.dataset()))
    with pytest.raises(toy.StopRequested):
        copied(address, tmp_path / "first" / RUN.id, stop_after=alone.records[0].steps + 3)
    second = tmp_path / "second" / RUN.id
    assert RemoteCopy(address, second).take_up() == f"its state after {alone.records[0].steps + 3} steps"
    assert saved_steps(second) == alone.records[0].steps + 3
    gone_on = copied(address, second)
    assert toy.results(gone_on) == toy.results(alone)
    weights = "weights.safetensors"
    assert (second / weights).read_bytes() == (alone.folder / weights).read_bytes()

    third = tmp_path / "third" / RUN.id
    assert RemoteCopy(address, third).take_up() == "its result"
    assert {name: (third / name).read_bytes() for name in COMPLETE_FILES} == {
        name: (second / name).read_bytes() for name in COMPLETE_FILES
    }
    assert RemoteCopy(address, third).take_up() is None


def test_a_folder_that_is_ahead_of_its_copy_stays_and_the_copy_follows(address, tmp_path):
    folder = tmp_path / RUN.id
    copied(address, folder, experiments=1)
    toy.advance(toy.trajectory(folder, RUN, toy.dataset()), 1)
    ahead = saved_steps(folder)
    assert remote_copy(address, folder).take_up() is None
    assert saved_steps(folder) == ahead
    copied(address, folder, experiments=1)
    files, root = fsspec.core.url_to_fs(address)
    copy = f"{root.rstrip('/')}/runs/{RUN.id}"
    assert files.cat_file(f"{copy}/{RECORDS_FILE}") == (folder / RECORDS_FILE).read_bytes()
    assert len(read_records(folder)) == 3


def test_a_run_that_is_forgotten_is_forgotten_there_too(address, tmp_path):
    place = Place(store=tmp_path / "store", data_root=tmp_path, mirror=address)
    copied(address, place.run_folder(RUN), experiments=1)
    forget(RUN, place)
    assert remote_copy(address, place.run_folder(RUN)).take_up() is None


def test_a_copy_that_cannot_be_written_costs_a_warning_and_the_next_save_tries_again(tmp_path, caplog, monkeypatch):
    folder, address = tmp_path / RUN.id, f"file://{tmp_path / 'bucket'}"
    copy = remote_copy(address, folder)
    copied(address, folder, experiments=1)
    with monkeypatch.context() as patched:
        patched.setattr(copy._files, "pipe_file", lambda *given, **named: (_ for _ in ()).throw(OSError("no route")))
        with caplog.at_level(logging.WARNING):
            copy.put_records()
    assert f"{RUN.id} is not copied to {address} (OSError: no route); the next save tries again" in caplog.text
    copy.put_records()


def test_a_copy_that_cannot_be_read_ends_the_run_before_it_begins_anew(tmp_path, monkeypatch):
    copy = remote_copy(f"file://{tmp_path}", tmp_path / RUN.id)
    monkeypatch.setattr(copy._files, "cat_file", lambda path: (_ for _ in ()).throw(PermissionError("denied")))
    with pytest.raises(ConfigError, match=r"compare\.mirror: file://.* cannot be read \(PermissionError: denied\)"):
        copy.take_up()


def test_an_address_without_a_client_is_refused_by_name(tmp_path):
    with pytest.raises(ConfigError, match=r"compare\.mirror: nosuch://x cannot be used"):
        remote_copy("nosuch://x", tmp_path)
    assert remote_copy(None, tmp_path) is None
    with pytest.raises(ConfigError, match=r"compare\.mirror"):
        toy.params(compare={"mirror": "no address"})


def test_a_copy_with_a_damaged_note_is_refused_or_training_would_write_over_it(tmp_path):
    copy = remote_copy(f"file://{tmp_path / 'bucket'}", tmp_path / RUN.id)
    copied(f"file://{tmp_path / 'bucket'}", tmp_path / RUN.id, experiments=1)
    note = tmp_path / "bucket" / "runs" / RUN.id / "copy.json"
    assert json.loads(note.read_text())["complete"] is False
    for damage in ("[1]", "{"):
        note.write_text(damage)
        with pytest.raises(ConfigError, match=r"compare\.mirror: .* cannot be read"):
            copy.take_up()


def test_a_state_that_is_cut_off_on_its_way_leaves_the_earlier_one_whole(tmp_path, monkeypatch):
    bucket, local = tmp_path / "bucket" / "runs" / RUN.id, tmp_path / RUN.id
    copied(f"file://{tmp_path / 'bucket'}", local, experiments=1)
    before = json.loads((bucket / "copy.json").read_text())
    whole = (bucket / before["state"]).read_bytes()
    copy = remote_copy(f"file://{tmp_path / 'bucket'}", local)
    copy.take_up()

    def cut_off(path, content):
        Path(path).write_bytes(content[:10])
        raise OSError("the line went dead")

    monkeypatch.setattr(copy._files, "pipe_file", cut_off)
    copy.put_state({"moment": {"steps": 10**6, "measured": ()}})
    assert json.loads((bucket / "copy.json").read_text()) == before
    assert (bucket / before["state"]).read_bytes() == whole
