"""The division of a batch: every image once, with weights by which the mean over ranks is that of the batch."""

import pytest
import torch

from dash_core.errors import ConfigError
from dash_core.parallel import divide_step
from dash_core.parallel.limits import check_divisible
from tests import toy


def rows(division) -> list[int]:
    return torch.arange(1000)[division.rows].tolist()


@pytest.mark.parametrize("size", [2, 3, 5])
@pytest.mark.parametrize("micro", [None, 16, 21])
@pytest.mark.parametrize("images", [10, 11, 40, 43, 64])
def test_the_mean_over_ranks_is_the_mean_over_the_batch(size, micro, images):
    values = torch.arange(7, 7 + images, dtype=torch.float64).square()
    total = 0.0
    for rank in range(size):
        division = divide_step(7, 7 + images, micro, rank, size)
        own = torch.tensor([float(row) ** 2 for row in rows(division)], dtype=torch.float64)
        assert len(own) == division.images
        for part in division.parts:
            total += part.share * part.weight * float(own[part.start : part.end].mean()) / size
    assert total == pytest.approx(float(values.mean()), rel=1e-12)


def test_ranks_take_every_image_of_a_batch_once():
    taken = [row for rank in range(3) for row in rows(divide_step(100, 164, None, rank, 3))]
    assert taken == list(range(100, 164))


@pytest.mark.parametrize(("images", "divided"), [(5, False), (6, True)])
def test_a_batch_of_fewer_than_two_images_for_each_rank_is_done_whole_by_each(images, divided):
    divisions = [divide_step(0, images, None, rank, 3) for rank in range(3)]
    assert [division.divided for division in divisions] == [divided] * 3
    assert [division.images for division in divisions] == ([2, 2, 2] if divided else [5, 5, 5])


def test_one_process_does_each_batch_as_it_is():
    division = divide_step(3, 9, 6)
    assert division.rows == slice(3, 9)
    assert division.parts[0].share == division.parts[0].weight == 1.0


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"training": {"compile": True}}, r"training\.compile: a compiled step cannot be divided over the 4 processes"),
        (
            {"methods": {"dash": {"mode": "train"}}},
            r"methods\.dash\.mode: in train mode .* set methods\.dash\.mode=eval",
        ),
        ({"training": {"batch_size": 7}}, r"training\.batch_size: 7 images are fewer than 2 .* to 8 or more"),
        ({"training": {"micro_batch_size": 4}}, r"training\.micro_batch_size: 4 images .* compare\.gpus_per_run to 2"),
    ],
)
def test_what_cannot_be_divided_is_refused_by_name(changes, words):
    run = toy.params(**changes).run("dash", 0)
    check_divisible(run, 1)
    with pytest.raises(ConfigError, match=words):
        check_divisible(run, 4)
