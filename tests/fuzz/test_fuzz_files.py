"""Malformed files of ours: plans, records, results, checkpoints, descriptions are read whole or refused by name."""

import hashlib
import io
import json
import os
import shutil

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from dash_core.checkpoint import CHECKPOINT_HEADER, load_checkpoint
from dash_core.config import DatasetConfig
from dash_core.data import ChunkPlan, load_dataset
from dash_core.records import RECORDS_FILE, read_records
from dash_core.result import read_result
from tasks.store.datasets import plan_path
from tasks.store.evidence import gather
from tasks.store.place import place_of
from tasks.store.progress import Progress, read_progress
from tasks.store.results import describe, kept_plans, read_description
from tests import toy
from tests.fuzz.malformed import damaged, examples, json_junk, listing, mutated, refusal

DATA = toy.dataset()
CONFIG = DatasetConfig(train_size=40)
PLAN = ChunkPlan.split(DATA.train, CONFIG, 3, seed=0)
PARAMS = toy.params(dataset={"train_size": 40}, training={"max_epochs": 2}, compare={"methods": ["warm"]})
RUN = PARAMS.run("warm", 0)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A complete run, as it lies on disk."""
    folder = tmp_path_factory.mktemp("finished")
    run = toy.advance(toy.trajectory(folder, RUN, DATA))
    assert len(run.records) == 3
    return folder


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """The state of a run after its first chunk."""
    folder = tmp_path_factory.mktemp("begun")
    toy.advance(toy.trajectory(folder, RUN, DATA), chunks=1)
    return (folder / "state.ckpt").read_bytes()


@pytest.fixture(scope="module")
def plan(tmp_path_factory) -> bytes:
    """The plan's file."""
    file = tmp_path_factory.mktemp("plan") / "plan.json"
    PLAN.save(file)
    return file.read_bytes()


def refused_by_name(file, read) -> str | None:
    """Return the words of refusal, which name the file; nothing is written."""
    before = listing(file.parent)
    words = refusal(read)
    assert words is None or str(file) in words, words
    assert listing(file.parent) == before
    return words


@examples(200)
@given(data=st.data())
def test_a_plan_with_anything_in_it_is_the_plan_or_refused_by_name(tmp_path, plan, data):
    good = json.loads(plan)
    content = data.draw(mutated(good, json_junk) | json_junk)
    (tmp_path / "plan.json").write_text(json.dumps(content))
    words = refused_by_name(tmp_path / "plan.json", lambda: ChunkPlan.load(tmp_path / "plan.json"))
    assert words or content == good


@examples(100)
@given(data=st.data())
def test_a_damaged_plan_is_the_plan_or_refused_by_name(tmp_path, plan, data):
    (tmp_path / "plan.json").write_bytes(data.draw(damaged(plan)))
    words = refused_by_name(tmp_path / "plan.json", lambda: ChunkPlan.load(tmp_path / "plan.json"))
    assert words or ChunkPlan.load(tmp_path / "plan.json").digest == PLAN.digest


indices = st.lists(st.integers(0, 70) | st.just(2**63 - 1), min_size=1, max_size=20, unique=True)


@examples(100)
@given(seed=st.integers() | st.just(10**400), indices=indices, cut=st.integers(1, 5))
def test_a_plan_of_other_images_or_another_seed_never_passes_the_check(tmp_path, seed, indices, cut):
    chunks = tuple(chunk for chunk in torch.tensor(indices).tensor_split(cut) if len(chunk))
    ChunkPlan("digits", DATA.train.digest, seed, chunks).save(tmp_path / "plan.json")
    words = refusal(lambda: ChunkPlan.load(tmp_path / "plan.json").check(DATA.train, CONFIG))
    assert "make the split again" in words


@examples(220)
@given(data=st.data())
def test_a_record_with_anything_in_it_is_read_or_refused_by_name(tmp_path, finished, data):
    rows = [json.loads(line) for line in (finished / RECORDS_FILE).read_text().splitlines()]
    rows[data.draw(st.integers(0, 2))] = data.draw(mutated(rows[1], json_junk) | json_junk)
    (tmp_path / RECORDS_FILE).write_text("".join(json.dumps(row) + "\n" for row in rows))
    refused_by_name(tmp_path / RECORDS_FILE, lambda: read_records(tmp_path))


@examples(120)
@given(data=st.data())
def test_damaged_records_are_read_or_refused_by_name(tmp_path, finished, data):
    (tmp_path / RECORDS_FILE).write_bytes(data.draw(damaged((finished / RECORDS_FILE).read_bytes())))
    refused_by_name(tmp_path / RECORDS_FILE, lambda: read_records(tmp_path))


@examples(120)
@given(data=st.data())
def test_a_result_with_anything_in_it_is_read_or_refused_by_name(tmp_path, finished, data):
    folder = place_of(PARAMS, tmp_path, None).run_folder(RUN)
    if not folder.exists():
        shutil.copytree(finished, folder)
    good = json.loads((finished / "result.json").read_text())
    content = data.draw(mutated(good, json_junk) | json_junk)
    (folder / "result.json").write_text(json.dumps(content))
    words = refused_by_name(folder / "result.json", lambda: read_result(folder, RUN, PLAN.digest))
    place = place_of(PARAMS, tmp_path, None)
    again = refusal(lambda: gather(PARAMS, place, {0: PLAN.digest}, describe(DATA)).conditions)
    assert words is None or words == again


@examples(80)
@given(data=st.data())
def test_a_description_with_anything_in_it_is_read_or_refused_by_name(tmp_path, data):
    content = data.draw(mutated(describe(DATA), json_junk) | json_junk)
    (tmp_path / "dataset.json").write_text(json.dumps(content))
    refused_by_name(tmp_path / "dataset.json", lambda: read_description(tmp_path / "dataset.json"))
    kept = plan_path(tmp_path, PARAMS, 0, DATA.train.digest)
    assert str(kept) in refusal(lambda: kept_plans(PARAMS, tmp_path, DATA.train.digest))


@examples(60)
@given(content=json_junk.map(json.dumps) | st.text(max_size=20) | st.just("[" * 5000))
def test_progress_is_read_or_the_run_is_waiting(tmp_path, content):
    (tmp_path / "progress.json").write_text(content, encoding="utf-8", errors="replace")
    assert isinstance(read_progress(tmp_path), Progress)


@examples(80)
@given(data=st.data())
def test_a_damaged_checkpoint_is_passed_over(tmp_path, begun, data):
    """The one before takes its place; without one the run starts again."""
    good = begun
    harm = data.draw(st.integers(0, len(good) - 1))
    content = data.draw(st.sampled_from([good[:harm], good[:harm] + bytes([good[harm] ^ 1]) + good[harm + 1 :]]))
    (tmp_path / "state.ckpt").write_bytes(content)
    (tmp_path / "state.ckpt.previous").write_bytes(good)
    assert load_checkpoint(tmp_path / "state.ckpt")["identity"]["run"] == RUN.digest
    (tmp_path / "state.ckpt").write_bytes(content)
    (tmp_path / "state.ckpt.previous").unlink(missing_ok=True)
    assert load_checkpoint(tmp_path / "state.ckpt") is None


def test_a_checkpoint_of_anything_else_is_passed_over_or_refused_by_name(tmp_path, begun):
    """Its checksum is right: somebody made it so."""
    good = load_checkpoint_of(begun, tmp_path)
    broken = [{**good, key: value} for key in good if key != "identity" for value in (None, 3, [3], {"x": 1}, "x")]
    for state in [*broken, [], 3, None, "x", {}, {"identity": good["identity"]}, {**good, "identity": None}]:
        folder = tmp_path / "run"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        toy.save_checkpoint(folder / "state.ckpt", state)
        words = refusal(lambda folder=folder: toy.trajectory(folder, RUN, DATA))
        assert words is None or "state.ckpt" in words


def load_checkpoint_of(content: bytes, folder) -> dict:
    (folder / "good.ckpt").write_bytes(content)
    return load_checkpoint(folder / "good.ckpt")


def test_a_checkpoint_is_never_executed(tmp_path):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "mark"),)

    payload = io.BytesIO()
    torch.save({"identity": Evil()}, payload)
    header = CHECKPOINT_HEADER + hashlib.sha256(payload.getvalue()).hexdigest().encode() + b"\n"
    (tmp_path / "state.ckpt").write_bytes(header + payload.getvalue())
    assert load_checkpoint(tmp_path / "state.ckpt") is None
    assert not (tmp_path / "mark").exists()


@pytest.mark.parametrize("read", [read_description, ChunkPlan.load])
def test_a_folder_in_the_place_of_a_file_is_refused_by_name(tmp_path, read):
    (tmp_path / "file.json").mkdir()
    assert "file.json" in refusal(lambda: read(tmp_path / "file.json"))


def image(**changes) -> bytes:
    file = io.BytesIO()
    kind = {"mode": "RGB", "size": (5, 5), **changes}
    Image.new(**kind).save(file, "PNG")
    return file.getvalue()


CONTENTS = [image(), image(), image(size=(6, 5)), image(mode="L"), image(mode="I;16"), b"", b"text", image()[:40]]
entries = st.dictionaries(
    st.sampled_from(["a.png", "b.png", "c.JPG", ".hidden", "text.txt", "ä\n.png", "train", "x" * 200 + ".png"]),
    st.sampled_from(CONTENTS) | st.just("folder") | st.just("loop") | st.just("out") | st.just("gone"),
    max_size=4,
)
trees = st.dictionaries(
    st.sampled_from(["train/x", "train/y", "test/x", "test/z", "x", "y", "<b>\x1b[0m", "train", "..x"]),
    entries,
    max_size=4,
)


@examples(80)
@given(tree=trees, size=st.none() | st.just(4))
def test_a_tree_of_anything_is_a_dataset_or_refused_by_name(tmp_path, tree, size):
    root = tmp_path / "tree"
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir()
    for folder, files in tree.items():
        (root / folder).mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            put(root / folder / name, content)
    before = sorted(root.rglob("*"))
    config = DatasetConfig(name="image_folder", folder=str(root), image_size=size)
    words = refusal(lambda: load_dataset(config, data_root=tmp_path / "data", cache=tmp_path / "cache"))
    assert words is None or str(root) in words or "class" in words
    assert sorted(root.rglob("*")) == before
    assert not (tmp_path / "data").exists()


def put(path, content) -> None:
    if os.path.lexists(path):
        return
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content == "folder":
        path.mkdir()
    else:
        os.symlink({"loop": path.name, "out": "/etc/passwd", "gone": "nowhere"}[content], path)
