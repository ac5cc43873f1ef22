"""A chunk may be an iterable of its batches: the same gradient, one batch in memory at a time."""

import weakref
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from dash_core import averaged_gradient, dash_
from tests import golden


def chunk(images: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    draws = torch.Generator().manual_seed(seed)
    return torch.randn(images, 3, 6, 6, generator=draws, dtype=torch.float64), torch.arange(images) % 10


def batches(pair: tuple[Tensor, Tensor], sizes: list[int]) -> Iterator[tuple[Tensor, Tensor]]:
    return zip(*(tensor.split(sizes) for tensor in pair), strict=True)


def assert_equal(given: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert list(given) == list(expected)
    for name in expected:
        torch.testing.assert_close(given[name], expected[name], rtol=0, atol=1e-12)


@pytest.mark.parametrize("micro_batch_size", [None, 2])
@pytest.mark.parametrize("sizes", [[11], [4, 4, 3], [1, 7, 1, 2], [10, 1]], ids=str)
def test_batches_of_any_size_give_the_gradient_of_their_tensors(sizes, micro_batch_size):
    model, old, new = golden.cnn(), chunk(7), chunk(11, seed=1)
    expected = averaged_gradient(model, [old, new, old])
    mixed = [old, batches(new, sizes), list(batches(old, [3, 4]))]
    assert_equal(averaged_gradient(model, mixed, micro_batch_size=micro_batch_size), expected)


def test_data_loaders_shrink_the_weights_as_their_tensors_do():
    models = [golden.cnn(), golden.cnn()]
    models[1].load_state_dict(models[0].state_dict())
    chunks = [chunk(9), chunk(14, seed=1)]
    loaders = [DataLoader(TensorDataset(*pair), batch_size=4, shuffle=True) for pair in chunks]
    random = torch.get_rng_state()
    reports = [dash_(model, data) for model, data in zip(models, (chunks, loaders), strict=True)]
    assert torch.equal(torch.get_rng_state(), random)  # shuffling draws from the global generator
    assert {name: report.at_floor for name, report in reports[0].items()} == {
        name: report.at_floor for name, report in reports[1].items()
    }
    assert_equal(models[1].state_dict(), models[0].state_dict())


def test_a_generator_is_read_once_and_one_batch_is_in_memory_at_a_time():
    model, alive = golden.cnn(), []

    def drawn() -> Iterator[tuple[Tensor, Tensor]]:
        earlier: list[weakref.ref] = []
        for seed in range(5):
            alive.append(sum(tensor() is not None for tensor in earlier))
            pair = chunk(4, seed)
            earlier += map(weakref.ref, pair)
            yield pair
            del pair

    given = averaged_gradient(model, [chunk(3), drawn()])
    assert alive == [0] * 5
    whole = tuple(torch.cat(parts) for parts in zip(*(chunk(4, seed) for seed in range(5)), strict=True))
    assert_equal(given, averaged_gradient(model, [chunk(3), whole]))


def test_batches_that_are_skipped_are_not_read():
    model, kept = golden.cnn(), [chunk(4), chunk(5)]
    unread = (pytest.fail("read") for _ in range(1))
    given, expected = (averaged_gradient(model, [old, *kept], alpha=0.5, cutoff=0.15) for old in (unread, chunk(3)))
    assert_equal(given, expected)


def test_in_train_mode_each_batch_has_its_own_statistics():
    model, pair = golden.cnn(), chunk(8)
    whole = averaged_gradient(model, [pair], mode="train")
    halves = averaged_gradient(model, [batches(pair, [4, 4])], mode="train")
    separate = [averaged_gradient(model, [half], mode="train") for half in batches(pair, [4, 4])]
    assert not torch.allclose(halves["0.weight"], whole["0.weight"])
    assert_equal(halves, {name: (separate[0][name] + separate[1][name]) / 2 for name in whole})


def test_the_passes_over_batches_are_counted_one_by_one():
    sizes, pair = [], chunk(11)
    around = lambda size: (sizes.append(size), torch.enable_grad())[1]
    averaged_gradient(golden.cnn(), [batches(pair, [6, 5])], micro_batch_size=4, around_batch=around)
    assert sizes == [4, 2, 5]


@pytest.mark.parametrize(
    ("chunks", "words"),
    [
        (DataLoader(TensorDataset(*chunk(6)), batch_size=3), r"is one chunk: wrap it in a list, chunks=\[chunk\]"),
        (chunk(6), r"is one chunk: wrap it in a list, chunks=\[chunk\]"),
        ([[]], "its iterable is empty, or was read before"),
        ([chunk(3), iter(())], "its iterable is empty, or was read before"),
        ([(chunk(3)[0], torch.arange(2))], "must have the same length, got 3 and 2"),
        ([[chunk(3), (chunk(3)[0], torch.arange(2))]], "must have the same length, got 3 and 2"),
        ([[chunk(3), (torch.empty(0, 3, 6, 6), torch.arange(0))]], "batch without images"),
        ([[(*chunk(3), "name")]], r"must be a pair \(inputs, labels\) of tensors, got a tuple"),
        ([[{"inputs": chunk(3)[0]}]], r"must be a pair \(inputs, labels\) of tensors, got a dict"),
        ([chunk(3)[0]], r"must be a pair \(inputs, labels\) of tensors, got a Tensor"),
    ],
)
def test_what_is_no_list_of_chunks_is_refused_and_nothing_changes(chunks, words):
    model = golden.cnn()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(ValueError, match=words):
        dash_(model, chunks)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
