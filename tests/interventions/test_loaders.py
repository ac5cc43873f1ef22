"""`dash_batches_`: any loader and any loss, in one process or several, with the weights of `dash_`."""

import copy
import socket
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import torch.multiprocessing
from torch import Tensor, distributed, nn
from torch.nn import functional
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

from dash_core import dash_, dash_batches_
from dash_core.shrinking import batches as over_batches
from tests import golden

IMAGES = (9, 14, 5)
WEIGHTS = torch.tensor([1.0, 2, 5, 0.5, 3, 1, 1, 4, 0, 2], dtype=torch.float64)


def chunk(images: int) -> tuple[Tensor, Tensor]:
    draws = torch.Generator().manual_seed(images)
    return torch.randn(images, 3, 6, 6, generator=draws, dtype=torch.float64), torch.arange(images) % 10


def loaders(images: tuple[int, ...] = IMAGES, **options) -> list[DataLoader]:
    return [DataLoader(TensorDataset(*chunk(size)), batch_size=4, **options) for size in images]


def network() -> nn.Module:
    torch.manual_seed(3)
    return golden.cnn()


def loss_of(model: nn.Module) -> Callable[[list[Tensor]], tuple[Tensor, int]]:
    return lambda batch: (functional.cross_entropy(model(batch[0]), batch[1]), len(batch[1]))


def assert_equal(model: nn.Module, expected: nn.Module, tolerance: float = 1e-12) -> None:
    for name, tensor in expected.state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], tensor, rtol=0, atol=tolerance)


def test_loaders_give_the_weights_and_reports_that_their_tensors_give():
    model, expected = network(), network()
    reports = dash_batches_(model, loaders(), loss=loss_of(model), alpha=0.4, floor=0.2)
    by_tensors = dash_(expected, map(chunk, IMAGES), alpha=0.4, floor=0.2)
    assert_equal(model, expected)
    assert {name: report.at_floor for name, report in reports.items()} == {
        name: report.at_floor for name, report in by_tensors.items()
    }
    assert reports.left_alone == by_tensors.left_alone


def test_batches_may_be_dicts_and_the_model_may_have_a_loss_of_its_own():
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = network()

        def forward(self, images: Tensor, targets: Tensor) -> dict[str, Tensor]:
            return {"loss": functional.cross_entropy(self.net(images), targets)}

    model, expected = Own(), network()
    chunks = [({"images": images, "targets": labels} for images, labels in loader) for loader in loaders()]
    dash_batches_(model, chunks, loss=lambda batch: (model(**batch)["loss"], len(batch["targets"])))
    dash_(expected, map(chunk, IMAGES))
    assert_equal(model.net, expected)


def test_a_loss_says_what_it_divides_by():
    model, expected = network(), network()
    weighted = nn.CrossEntropyLoss(weight=WEIGHTS)
    dash_batches_(model, loaders(), loss=lambda pair: (weighted(model(pair[0]), pair[1]), WEIGHTS[pair[1]].sum()))
    dash_(expected, map(chunk, IMAGES), loss=weighted)
    assert_equal(model, expected)


def test_modes_buffers_gradients_and_all_generators_are_left_as_found():
    model = nn.Sequential(network(), nn.Dropout(0.5)).train()
    model[0][1].eval()
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    modes = [module.training for module in model.modules()]
    own = torch.Generator().manual_seed(5)
    states = [torch.get_rng_state(), own.get_state()]
    chunks = [*loaders((9,), shuffle=True), *loaders((5,), shuffle=True, generator=own)]
    dash_batches_(model, chunks, loss=loss_of(model), mode="train")
    assert all(map(torch.equal, [torch.get_rng_state(), own.get_state()], states))
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(buffer, buffers[name]) for name, buffer in model.named_buffers())
    assert all(torch.equal(parameter.grad, torch.ones_like(parameter)) for parameter in model.parameters())


@pytest.mark.parametrize(
    ("chunks", "loss", "words"),
    [
        (loaders()[0], None, r"is one chunk: wrap it in a list, chunks=\[chunk\]"),
        ([chunk(4)], None, r"a chunk must be a loader or another iterable of batches, got a tuple: .*\[\[batch\]\]"),
        ([{"images": chunk(4)[0]}], None, "got a dict"),
        ([], None, "there is no chunk"),
        ([iter(())], None, "its iterable is empty, or was read before"),
        (loaders(), lambda model, batch: model(batch[0]).mean(), r"must return \(mean loss .*, got a Tensor"),
        (loaders(), lambda model, batch: (model(batch[0]), 4), "a tensor with one value, the mean"),
        (loaders(), lambda model, batch: (model(batch[0]).mean().detach(), 4), "has no gradient"),
        (loaders(), lambda model, batch: (model(batch[0]).mean(), -1), "must be 0 or more, got -1"),
        (loaders(), lambda model, batch: (model(batch[0]).mean() * torch.nan, 4), "is not finite"),
    ],
)
def test_what_is_no_loader_or_loss_is_refused_and_nothing_changes(chunks, loss, words):
    model = network()
    given = loss_of(model) if loss is None else lambda batch: loss(model, batch)
    with pytest.raises(ValueError, match=words):
        dash_batches_(model, chunks, loss=given)
    assert_equal(model, network(), tolerance=0)
    assert all(parameter.grad is None for parameter in model.parameters())


class Ranks:
    """A process group of threads: each is a rank, and sums meet at a barrier."""

    def __init__(self, size: int) -> None:
        self.size, self.local, self.barrier = size, threading.local(), threading.Barrier(size, timeout=60)
        self.parts: dict[int, Tensor] = {}
        self.reduced: dict[int, list[int]] = {}  # dimensions of what each rank summed

    def processes(self) -> tuple[int, int]:
        return self.local.rank, self.size

    def all_reduce(self, tensor: Tensor) -> None:
        self.reduced.setdefault(self.local.rank, []).append(tensor.ndim)
        self.parts[self.local.rank] = tensor.clone()
        self.barrier.wait()
        total = sum(self.parts[rank] for rank in range(self.size))
        self.barrier.wait()
        tensor.copy_(total)

    def run(self, function: Callable[[int], nn.Module]) -> list[nn.Module]:
        def rank(number: int) -> nn.Module:
            self.local.rank = number
            return function(number)

        with ThreadPoolExecutor(self.size) as pool:
            return list(pool.map(rank, range(self.size)))


def test_several_processes_share_the_batches_and_sum_their_gradients_once(monkeypatch):
    ranks = Ranks(3)
    monkeypatch.setattr(over_batches, "_processes", ranks.processes)
    monkeypatch.setattr(over_batches.distributed, "all_reduce", ranks.all_reduce)
    images, read = (9, 14, 3), {}  # the last chunk has fewer batches than there are processes
    models = [copy.deepcopy(network()) for _ in range(3)]

    def shrink(rank: int) -> nn.Module:
        def loss(batch: list[Tensor]) -> tuple[Tensor, int]:
            read.setdefault(rank, []).append(len(batch[1]))
            return loss_of(models[rank])(batch)

        dash_batches_(models[rank], loaders(images), loss=loss)
        return models[rank]

    expected = network()
    dash_(expected, map(chunk, images))
    for model in ranks.run(shrink):
        assert_equal(model, expected)
    assert read == {0: [4, 4, 2, 3], 1: [4, 4], 2: [1, 4]}
    assert ranks.reduced == {rank: [0, 0, 0, 1] for rank in range(3)}  # a number for each chunk, all gradients last


def test_a_model_of_distributed_training_is_refused(monkeypatch):
    wrapped = nn.Module()
    wrapped.__class__ = type("Wrapped", (nn.parallel.DistributedDataParallel,), {"__init__": lambda self: None})
    with pytest.raises(ValueError, match=r"give the bare model, model\.module"):
        dash_batches_(wrapped, loaders(), loss=lambda batch: batch)


def _shrink_in_a_group(rank: int, port: int, folder: str) -> None:
    distributed.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    torch.manual_seed(rank)  # the processes shuffle differently by themselves
    model = network()
    old, new = (TensorDataset(*chunk(size)) for size in (14, 12))
    sampler = DistributedSampler(new, num_replicas=2, rank=rank)
    chunks = [DataLoader(old, batch_size=4, shuffle=True), DataLoader(new, batch_size=4, sampler=sampler)]
    dash_batches_(model, chunks, loss=loss_of(model))
    torch.save(model.state_dict(), f"{folder}/{rank}.pt")
    distributed.destroy_process_group()


@pytest.mark.slow
def test_two_processes_of_a_gloo_group_give_the_weights_of_one(tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    torch.multiprocessing.spawn(_shrink_in_a_group, (port, str(tmp_path)), nprocs=2)
    expected = network()
    dash_(expected, map(chunk, (14, 12)))
    states = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    assert all(torch.equal(tensor, states[1][name]) for name, tensor in states[0].items())
    model = network()
    model.load_state_dict(states[0])
    assert_equal(model, expected)
