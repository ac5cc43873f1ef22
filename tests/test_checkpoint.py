"""A checkpoint is whole or passed over for the one before, and never runs what is in it."""

import hashlib
import io
import os
import pickle
import random
import shutil
import stat
import threading
from concurrent import futures
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dash_core import checkpoint
from dash_core.checkpoint import CHECKPOINT_HEADER, CheckpointWriter, load_checkpoint, remove_checkpoint
from dash_core.errors import StopRequested
from dash_core.files import DiskError
from dash_core.records import read_records
from dash_core.run_state import Watch
from tests import toy

pytestmark = pytest.mark.processor

leaves = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
tensors = st.lists(st.floats(width=32, allow_nan=False), max_size=5).map(torch.tensor)
states = st.dictionaries(
    st.text(),
    st.recursive(leaves | tensors, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8),
    max_size=4,
)


def same(a, b) -> bool:
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and a == b


def sealed(path: Path, payload: bytes) -> None:
    """Write a payload with the header that says it is whole."""
    path.write_bytes(CHECKPOINT_HEADER + hashlib.sha256(payload).hexdigest().encode() + b"\n" + payload)


def two(path: Path) -> None:
    for number in (1, 2):
        toy.save_checkpoint(path, {"number": number, "weights": torch.full((64,), number)})


@settings(max_examples=40)
@given(states)
def test_a_state_comes_back_as_it_was(tmp_path_factory, state):
    path = tmp_path_factory.getbasetemp() / "round-trip.ckpt"
    toy.save_checkpoint(path, state)
    assert same(load_checkpoint(path), state)


def test_an_optimisers_state_comes_back_and_goes_on_alike(tmp_path):
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    toy.save_checkpoint(tmp_path / "state.ckpt", {"optimizer": optimizer.state_dict()})
    again = torch.optim.AdamW(model.parameters())
    again.load_state_dict(load_checkpoint(tmp_path / "state.ckpt")["optimizer"])
    assert all(same(again.state[p], optimizer.state[p]) for p in model.parameters())


def test_there_is_none_before_the_first(tmp_path):
    assert load_checkpoint(tmp_path / "state.ckpt") is None


def test_the_newest_is_loaded_and_only_the_one_before_is_kept(tmp_path):
    path = tmp_path / "state.ckpt"
    two(path)
    toy.save_checkpoint(path, {"number": 3})
    assert load_checkpoint(path)["number"] == 3
    assert sorted(file.name for file in tmp_path.iterdir()) == ["state.ckpt", "state.ckpt.previous"]
    remove_checkpoint(path)
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_cut_short_anywhere_gives_the_one_before_and_says_so(tmp_path, caplog):
    path = tmp_path / "state.ckpt"
    two(path)
    whole = path.read_bytes()
    header = len(CHECKPOINT_HEADER) + 64
    for length in (0, 1, header - 1, header, header + 1, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        caplog.clear()
        assert load_checkpoint(path)["number"] == 1, length
        assert f"checkpoint {path} cannot be used and is passed over: its checksum does not match" in caplog.text


def test_a_flipped_bit_anywhere_gives_the_one_before_and_says_so(tmp_path, caplog):
    path = tmp_path / "state.ckpt"
    two(path)
    whole = path.read_bytes()
    for place in {*range(0, len(CHECKPOINT_HEADER) + 66, 5), *range(0, len(whole), 97), len(whole) - 1}:
        damaged = bytearray(whole)
        damaged[place] ^= 1 << place % 8
        path.write_bytes(damaged)
        caplog.clear()
        assert load_checkpoint(path)["number"] == 1, place
        assert "is passed over" in caplog.text


def test_a_checkpoint_of_another_version_is_called_that(tmp_path, caplog):
    path = tmp_path / "state.ckpt"
    path.write_bytes(b"dashpipe checkpoint 1 sha256 0123\nstate")
    assert load_checkpoint(path) is None
    assert "another version wrote it" in caplog.text


def test_if_both_are_damaged_there_is_none(tmp_path, caplog):
    path = tmp_path / "state.ckpt"
    two(path)
    for file in tmp_path.iterdir():
        file.write_bytes(file.read_bytes()[:-1])
    assert load_checkpoint(path) is None
    assert caplog.text.count("is passed over") == 2


class Touch:
    """Touches a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def archive(content: object) -> bytes:
    payload = io.BytesIO()
    torch.save(content, payload)
    return payload.getvalue()


@pytest.mark.parametrize(
    "pack", [lambda evil: pickle.dumps(evil, 2), lambda evil: archive({"learner": evil})], ids=["pickle", "archive"]
)
def test_nothing_in_a_checkpoint_is_executed_even_if_its_checksum_is_right(tmp_path, caplog, pack):
    path, mark = tmp_path / "state.ckpt", tmp_path / "mark"
    toy.save_checkpoint(path, {"number": 1})
    path.rename(tmp_path / "state.ckpt.previous")
    payload = pack(Touch(mark))
    sealed(path, payload)
    assert load_checkpoint(path) == {"number": 1}
    assert "cannot be loaded" in caplog.text
    assert not mark.exists()
    torch.load(io.BytesIO(payload), weights_only=False) if payload[:2] == b"PK" else pickle.loads(payload)
    assert mark.exists()  # the payload does bite


@pytest.mark.parametrize("payload", [b"", b"PK\x03\x04rubbish", b"rubbish", b"\x80\x02."], ids=repr)
def test_a_payload_that_is_no_state_is_passed_over(tmp_path, payload):
    sealed(tmp_path / "state.ckpt", payload)
    assert load_checkpoint(tmp_path / "state.ckpt") is None


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_a_disk_that_fails_while_saving_leaves_the_one_before_and_no_temporary_file(tmp_path, monkeypatch, failing):
    path = tmp_path / "state.ckpt"
    two(path)
    real = getattr(__import__("os"), failing)

    def fail(*arguments):
        if failing == "fsync" or str(arguments[0]).endswith(".tmp"):
            raise OSError(28, "No space left on device")
        return real(*arguments)

    monkeypatch.setattr(f"os.{failing}", fail)
    for _ in range(2):
        with pytest.raises(OSError, match="No space left"):
            toy.save_checkpoint(path, {"number": 3})
    assert load_checkpoint(path)["number"] == 2
    assert [file.name for file in tmp_path.iterdir()] == ["state.ckpt.previous"]


def spoil(path: Path, seed: int) -> None:
    """Cut a file at a random offset, or flip up to eight of its bits at random."""
    dice = random.Random(seed)
    content = bytearray(path.read_bytes())
    if seed % 2:
        content = content[: dice.randrange(len(content))]
    else:
        for place in dice.sample(range(8 * len(content)), dice.randint(1, 8)):
            content[place // 8] ^= 1 << place % 8
    path.write_bytes(content)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """A folder of a run with two checkpoints, of chunk 1 and 2, and one of the same run to its end."""
    run, data = toy.params(training={"max_epochs": 2}).run("dash", 0), toy.dataset()
    begun, whole = (tmp_path_factory.mktemp(name) for name in ("begun", "whole"))
    toy.advance(toy.trajectory(begun, run, data), chunks=2)
    return run, data, begun, (whole, toy.advance(toy.trajectory(whole, run, data)))


def test_damage_of_a_runs_checkpoint_at_a_hundred_random_places_is_seen_and_the_one_before_taken(undisturbed, caplog):
    _, _, begun, _ = undisturbed
    path = begun / "state.ckpt"
    whole, before = path.read_bytes(), load_checkpoint(begun / "state.ckpt.previous")
    assert len(before["records"]) == 1
    for seed in range(100):
        spoil(path, seed)
        caplog.clear()
        assert same(load_checkpoint(path)["records"], before["records"]), seed
        assert f"checkpoint {path} cannot be used and is passed over" in caplog.text
        path.write_bytes(whole)
    assert len(load_checkpoint(path)["records"]) == 2


@pytest.mark.parametrize(("damaged", "pending"), [(1, range(2, 4)), (2, range(1, 4))], ids=["newest", "both"])
@pytest.mark.parametrize("seed", range(4))
def test_a_run_with_damaged_checkpoints_ends_as_if_they_were_whole(
    undisturbed, tmp_path, caplog, damaged, pending, seed
):
    run, data, begun, (whole, moved) = undisturbed
    folder = shutil.copytree(begun, tmp_path / "run")
    for name in ["state.ckpt", "state.ckpt.previous"][:damaged]:
        spoil(folder / name, seed)
    again = toy.trajectory(folder, run, data)
    assert again.pending == pending
    assert caplog.text.count("cannot be used and is passed over") == damaged
    assert ("starts anew from its first experiment" in caplog.text) == (damaged == 2)
    assert toy.results(toy.advance(again)) == toy.results(moved)
    assert (folder / "weights.safetensors").read_bytes() == (whole / "weights.safetensors").read_bytes()


def test_a_crash_between_the_two_renames_leaves_the_newest_state_to_go_on_from(undisturbed, tmp_path, monkeypatch):
    run, data, begun, (_, moved) = undisturbed
    folder = shutil.copytree(begun, tmp_path / "run")

    def crash(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("dash_core.checkpoint.write_atomically", crash)
    with pytest.raises(KeyboardInterrupt):
        toy.save_checkpoint(folder / "state.ckpt", {})
    monkeypatch.undo()
    assert not (folder / "state.ckpt").exists()
    again = toy.trajectory(folder, run, data)
    assert again.pending == range(3, 4)
    assert toy.results(toy.advance(again)) == toy.results(moved)


def test_every_rename_is_on_disk_before_the_next_step(tmp_path, monkeypatch):
    calls = []
    fsync, replace = os.fsync, os.replace

    def watched(handle: int) -> None:
        calls.append("folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else "file")
        fsync(handle)

    monkeypatch.setattr(os, "fsync", watched)
    monkeypatch.setattr(os, "replace", lambda *paths: (calls.append("rename"), replace(*paths)))
    toy.save_checkpoint(tmp_path / "state.ckpt", {})
    calls.clear()
    toy.save_checkpoint(tmp_path / "state.ckpt", {})
    assert calls == ["rename", "folder", "file", "rename", "folder"]


@pytest.fixture
def slow_disk(monkeypatch):
    """Have each write wait for its turn, which a test gives by releasing the semaphore."""
    turns, write = threading.Semaphore(0), checkpoint._write
    monkeypatch.setattr("dash_core.checkpoint._write", lambda *given: (turns.acquire(timeout=30), write(*given)))
    return turns


def test_a_state_is_written_beside_the_work_and_as_it_was_when_it_was_given(tmp_path, slow_disk):
    path, weights = tmp_path / "state.ckpt", torch.zeros(8)
    with CheckpointWriter(path) as writer:
        writer.save({"weights": weights})
        weights += 1  # training goes on
        assert not path.exists()
        slow_disk.release()
        writer.save({"weights": weights})
        assert load_checkpoint(path)["weights"].sum() == 0
        slow_disk.release()
    assert load_checkpoint(path)["weights"].sum() == 8


def test_a_write_that_fails_is_told_as_soon_as_asked_or_at_the_blocks_end(tmp_path, full_disk, caplog):
    writer = CheckpointWriter(tmp_path / "state.ckpt")
    writer.check()
    writer.save({})
    futures.wait([writer._writing])
    with pytest.raises(DiskError, match=r"state\.ckpt"):
        writer.check()
    with pytest.raises(DiskError, match=r"state\.ckpt"), writer:
        writer.save({})
    assert not caplog.text

    def fail() -> None:
        with writer:
            writer.save({})
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):  # the block's own error comes first
        fail()
    assert "no space left" in caplog.text


def test_a_state_that_is_saved_makes_up_for_one_that_could_not_be(tmp_path, monkeypatch, caplog):
    real, fails = checkpoint._write, iter([True, False])
    monkeypatch.setattr(checkpoint, "_write", lambda *given: no_space(*given) if next(fails) else real(*given))
    with CheckpointWriter(tmp_path / "state.ckpt") as writer:
        writer.save({"number": 1})
        writer.save({"number": 2})
    assert load_checkpoint(tmp_path / "state.ckpt") == {"number": 2}
    assert "no space left" in caplog.text


def test_a_wait_that_is_interrupted_leaves_the_write_to_the_blocks_end(tmp_path, slow_disk, monkeypatch):
    wait, interrupts = checkpoint.futures.wait, iter([KeyboardInterrupt])

    def interrupted(writes):
        for interrupt in interrupts:
            raise interrupt
        slow_disk.release()
        return wait(writes)

    def save_and_wait() -> None:
        with CheckpointWriter(tmp_path / "state.ckpt") as writer:
            writer.save({"number": 1})
            writer.wait()

    monkeypatch.setattr("dash_core.checkpoint.futures.wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save_and_wait()
    assert load_checkpoint(tmp_path / "state.ckpt") == {"number": 1}


def no_space(path: Path, content: memoryview) -> None:
    raise DiskError(f"{path}: no space left")


@pytest.fixture
def full_disk(monkeypatch):
    monkeypatch.setattr("dash_core.checkpoint._write", no_space)


def test_a_state_that_cannot_be_saved_is_no_stop_and_leaves_no_record(tmp_path, full_disk):
    run, data = toy.params().run("warm", 0), toy.dataset()
    stopping = toy.trajectory(tmp_path / "stopped", run, data, watch=Watch(stop=lambda: True))
    with pytest.raises(DiskError):  # and not StopRequested, which says that the same command continues from there
        stopping.advance()
    ending = toy.trajectory(tmp_path / "ended", run, data)
    trained = ending.train(1, ending.intervene(1))
    evaluation = ending.evaluate(1)
    with pytest.raises(DiskError):
        ending.record(1, trained, evaluation)
    assert read_records(tmp_path / "ended") == []


def test_training_that_ends_leaves_no_write_under_way(tmp_path, slow_disk):
    run, data = toy.params().run("warm", 0), toy.dataset()
    asked = iter([False, True])
    watch = Watch(stop=lambda: next(asked), seconds=0.0)  # a save after the first step, and the last at the stop
    slow_disk.release(2)
    with pytest.raises(StopRequested):
        toy.trajectory(tmp_path, run, data, watch=watch).advance()
    assert len(load_checkpoint(tmp_path / "state.ckpt")["moment"]["measured"]) == 2
    assert len(load_checkpoint(tmp_path / "state.ckpt.previous")["moment"]["measured"]) == 1
