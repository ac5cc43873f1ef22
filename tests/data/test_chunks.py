import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dash_core.config import DatasetConfig
from dash_core.data import ChunkPlan, ImageSet
from dash_core.errors import ConfigError, RecordError

CONFIG = DatasetConfig()


def blank_set(images: int) -> ImageSet:
    pixels = torch.arange(images, dtype=torch.int64).remainder(256).to(torch.uint8).reshape(-1, 1, 1, 1)
    return ImageSet(pixels, torch.zeros(images, dtype=torch.int64), ("only",), (0.0,), (1.0,))


@st.composite
def splits(draw):
    images = draw(st.integers(1, 80))
    used = draw(st.one_of(st.none(), st.integers(1, images)))
    chunks = draw(st.integers(1, used or images))
    return images, DatasetConfig(train_size=used), chunks, draw(st.integers(0, 2**31 - 1))


@given(splits())
def test_chunks_are_disjoint_and_cover_the_training_images_used(case):
    images, config, chunks, seed = case
    plan = ChunkPlan.split(blank_set(images), config, chunks, seed)
    everything = torch.cat(plan.chunks)
    assert len(plan) == chunks
    assert len(everything) == len(everything.unique()) == (config.train_size or images)
    plan.check(blank_set(images), config)


@given(splits())
def test_the_first_chunks_have_the_one_image_more(case):
    images, config, chunks, seed = case
    small, more = divmod(config.train_size or images, chunks)
    plan = ChunkPlan.split(blank_set(images), config, chunks, seed)
    assert [len(chunk) for chunk in plan.chunks] == [small + 1] * more + [small] * (chunks - more)


@given(splits())
def test_up_to_is_every_chunk_so_far_oldest_first(case):
    images, config, chunks, seed = case
    plan = ChunkPlan.split(blank_set(images), config, chunks, seed)
    assert plan.up_to(chunks).tolist() == [int(index) for chunk in plan.chunks for index in chunk]
    assert plan.up_to(1).tolist() == plan.chunks[0].tolist()


def test_the_split_is_seeded(image_set):
    train = image_set(60)
    one, same, other = (ChunkPlan.split(train, CONFIG, 5, seed) for seed in (1, 1, 2))
    assert one.digest == same.digest
    assert not torch.equal(one.up_to(5), other.up_to(5))
    assert one.digest != other.digest


def test_the_split_is_the_same_for_ever(image_set):
    plan = ChunkPlan.split(image_set(10), CONFIG, 3, seed=0)
    assert [chunk.tolist() for chunk in plan.chunks] == [[6, 5, 2, 0], [7, 4, 9], [3, 8, 1]]


def test_the_digest_tells_where_chunks_are_cut(image_set):
    digest = image_set(6).digest
    first = ChunkPlan("digits", digest, 0, (torch.tensor([1, 2]), torch.tensor([3])))
    second = ChunkPlan("digits", digest, 0, (torch.tensor([1]), torch.tensor([2, 3])))
    assert first.digest != second.digest


@pytest.mark.parametrize("chunks", [0, 21])
def test_more_chunks_than_images_is_refused(image_set, chunks):
    with pytest.raises(ConfigError, match=f"chunks: {chunks} must lie between 1 and the 20"):
        ChunkPlan.split(image_set(20), CONFIG, chunks, seed=0)


@pytest.mark.parametrize("chunk", [0, 4, -1])
def test_there_is_no_chunk_beyond_the_plan(image_set, chunk):
    plan = ChunkPlan.split(image_set(9), CONFIG, 3, seed=0)
    with pytest.raises(ValueError, match=r"1\.\.3"):
        plan.up_to(chunk)


def test_a_saved_plan_comes_back_equal(image_set, tmp_path):
    plan = ChunkPlan.split(image_set(20), DatasetConfig(train_size=11), 3, seed=7)
    plan.save(tmp_path / "deep" / "chunks.json")
    back = ChunkPlan.load(tmp_path / "deep" / "chunks.json")
    assert back.digest == plan.digest
    assert [chunk.tolist() for chunk in back.chunks] == [chunk.tolist() for chunk in plan.chunks]
    assert (back.dataset, back.dataset_digest, back.seed) == (plan.dataset, plan.dataset_digest, plan.seed)


def test_a_saved_plan_has_a_line_a_chunk(image_set, tmp_path):
    plan = ChunkPlan.split(image_set(20), CONFIG, 4, seed=0)
    plan.save(tmp_path / "chunks.json")
    lines = (tmp_path / "chunks.json").read_text().splitlines()
    assert sum(line.startswith("[") for line in lines) == 4


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"dataset": "cifar10"},
        {"dataset_digest": "0" * 64},
        {"digest": "0" * 64},
        {"chunks": [[0, 1], [2, 4], [3]]},
        {"chunks": [[0, 1, 2], [3], [4]]},
        {"chunks": [[0, 1], [1, 2], [3]]},
        {"chunks": [[0, 1], [], [2]]},
        {"chunks": []},
        {"chunks": [[0, 1], 2]},
        {"chunks": [[0, 1.0]]},
        {"chunks": [[0, True]]},
        {"chunks": [[0, -1]]},
        {"chunks": [[2**63]]},
        {"chunks": "0"},
        {"seed": "0"},
        {"seed": True},
        {"extra": 1},
    ],
    ids=str,
)
def test_a_changed_plan_is_refused_and_named(tmp_path, change):
    plan = ChunkPlan("digits", "a" * 64, 0, (torch.tensor([0, 1]), torch.tensor([2, 3]), torch.tensor([4])))
    path = tmp_path / "chunks.json"
    plan.save(path)
    ChunkPlan.load(path)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(RecordError, match=r"chunks\.json"):
        ChunkPlan.load(path)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b"[" * 100_000, b"{}"], ids=range(6))
def test_what_is_no_plan_is_refused_and_named(tmp_path, content):
    path = tmp_path / "chunks.json"
    path.write_bytes(content)
    with pytest.raises(RecordError, match=r"chunks\.json"):
        ChunkPlan.load(path)


def test_a_missing_plan_is_refused_and_named(tmp_path):
    with pytest.raises(RecordError, match=r"nowhere\.json"):
        ChunkPlan.load(tmp_path / "nowhere.json")


def test_a_plan_belongs_to_one_version_of_the_data(image_set):
    plan = ChunkPlan.split(image_set(20, seed=0), CONFIG, 4, seed=0)
    with pytest.raises(RecordError, match="another version"):
        plan.check(image_set(20, seed=1), CONFIG)


def test_a_plan_must_cover_what_the_configuration_uses(image_set):
    train = image_set(20)
    plan = ChunkPlan.split(train, DatasetConfig(train_size=10), 2, seed=0)
    with pytest.raises(RecordError, match="not exactly the 20"):
        plan.check(train, CONFIG)


def test_a_plan_that_repeats_an_image_does_not_pass_the_check(image_set):
    train = image_set(4)
    plan = ChunkPlan("digits", train.digest, 0, (torch.tensor([0, 1]), torch.tensor([2, 2])))
    with pytest.raises(RecordError, match="not exactly"):
        plan.check(train, CONFIG)


def test_a_plan_whose_chunks_overlap_is_refused_though_its_digest_is_right(tmp_path):
    plan = ChunkPlan("digits", "a" * 64, 0, (torch.tensor([0, 1]), torch.tensor([1, 2])))
    plan.save(tmp_path / "chunks.json")
    with pytest.raises(RecordError, match=r"chunks\.json: an image stands in the chunk plan twice"):
        ChunkPlan.load(tmp_path / "chunks.json")
