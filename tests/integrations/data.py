"""A small network and data in chunks, for the callbacks of every trainer."""

import torch
from torch import Tensor, nn
from torch.utils.data import ConcatDataset, DataLoader, TensorDataset

SIZES = (24, 20, 28)
CLASSES = 3


def chunk(number: int) -> TensorDataset:
    draws = torch.Generator().manual_seed(number)
    labels = torch.arange(SIZES[number]) % CLASSES
    return TensorDataset(torch.randn(SIZES[number], 6, generator=draws) + 2 * labels[:, None], labels)


def loader(*numbers: int) -> DataLoader:
    """Return the chunks in their order: trainers draw differently from a loader's generator."""
    return DataLoader(ConcatDataset([chunk(n) for n in numbers]), batch_size=8)


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, CLASSES))


def state(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def train(model: nn.Module, optimizer: torch.optim.Optimizer, batches: DataLoader, epochs: int) -> None:
    """Train in plain torch, for comparison with a trainer."""
    model.train()
    for _ in range(epochs):
        for inputs, labels in batches:
            nn.functional.cross_entropy(model(inputs), labels).backward()
            optimizer.step()
            optimizer.zero_grad()


def assert_equal(given: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float = 0) -> None:
    assert list(given) == list(expected)
    for name, tensor in expected.items():
        torch.testing.assert_close(given[name], tensor, rtol=0, atol=tolerance)
