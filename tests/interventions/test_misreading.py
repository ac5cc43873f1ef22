"""Input that could be taken for something else: what it means is computed exactly, or it is refused."""

from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from dash_core import averaged_gradient, dash_
from tests import golden

WEIGHTS = torch.tensor([1.0, 2, 5, 0.5, 3, 1, 1, 4, 0, 2], dtype=torch.float64)


def chunk(images: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    draws = torch.Generator().manual_seed(seed)
    inputs = torch.randn(images, 48, generator=draws, dtype=torch.float64)
    return inputs, torch.randint(10, (images,), generator=draws)


def batches(pair: tuple[Tensor, Tensor], size: int = 4) -> DataLoader:
    return DataLoader(TensorDataset(*pair), batch_size=size)


def multi_label(images: int = 11) -> tuple[Tensor, Tensor]:
    inputs, labels = chunk(images)
    return inputs, functional.one_hot(labels, 10).double() + functional.one_hot((labels + 3) % 10, 10)


def ignoring(pair: tuple[Tensor, Tensor], ignored: int = -100) -> tuple[Tensor, Tensor]:
    inputs, labels = pair
    return inputs, torch.where(torch.arange(len(labels)) % 3 == 1, ignored, labels)


def assert_the_same(model: nn.Module, loss, pairs: list[tuple[Tensor, Tensor]]) -> None:
    """Compare parts of chunks with algorithm 1 as the paper writes it, on whole chunks."""
    model.eval()
    expected = torch.zeros_like(model[1].weight)
    for inputs, labels in pairs:
        (gradient,) = torch.autograd.grad(loss(model(inputs), labels), model[1].weight)
        expected = 0.7 * expected + 0.3 * gradient
    for chunks, size in ((pairs, None), (pairs, 4), ([batches(pair) for pair in pairs], None)):
        given = averaged_gradient(model, chunks, micro_batch_size=size, loss=loss)["1.weight"]
        torch.testing.assert_close(given, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("loss", "change"),
    [
        (nn.CrossEntropyLoss(weight=WEIGHTS), lambda pair: pair),
        (nn.CrossEntropyLoss(weight=WEIGHTS, label_smoothing=0.1), lambda pair: pair),
        (nn.CrossEntropyLoss(), ignoring),
        (nn.CrossEntropyLoss(weight=WEIGHTS, ignore_index=2), partial(ignoring, ignored=2)),
        (nn.CrossEntropyLoss(weight=WEIGHTS), lambda pair: (pair[0], functional.one_hot(pair[1], 10).double())),
        (nn.BCEWithLogitsLoss(pos_weight=WEIGHTS + 1), lambda pair: (pair[0], multi_label(len(pair[1]))[1])),
        (lambda outputs, labels: functional.cross_entropy(outputs, labels, label_smoothing=0.2), lambda pair: pair),
    ],
)
def test_the_loss_of_parts_is_normalised_as_that_of_the_whole(loss, change):
    assert_the_same(golden.mlp(), loss, [change(chunk(11)), change(chunk(14, seed=1))])


def test_the_weights_of_a_loss_with_log_probabilities_count_too():
    model = golden.mlp().append(nn.LogSoftmax(dim=1))
    assert_the_same(model, nn.NLLLoss(weight=WEIGHTS), [chunk(11), chunk(14, seed=1)])


@pytest.mark.parametrize(
    "loss",
    [
        partial(functional.cross_entropy, weight=WEIGHTS),
        partial(functional.cross_entropy, reduction="sum"),
        lambda outputs, labels: outputs.square().sum(),
    ],
    ids=["weighted", "summed", "sum"],
)
@pytest.mark.parametrize("way", ["micro-batches", "batches"])
def test_a_loss_that_is_no_mean_over_its_parts_is_refused_and_nothing_changes(loss, way):
    model = golden.mlp()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    chunks, size = ([chunk(11)], 4) if way == "micro-batches" else ([batches(chunk(11))], None)
    with pytest.raises(ValueError, match=r"gradients differ by .*CrossEntropyLoss\(weight=...\).*dash_batches_"):
        dash_(model, chunks, micro_batch_size=size, loss=loss)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_weighted_loss_of_whole_chunks_needs_no_parts():
    model, loss = golden.mlp(), partial(functional.cross_entropy, weight=WEIGHTS)
    given = averaged_gradient(model, [chunk(11)], loss=loss)
    expected = averaged_gradient(model, [chunk(11)], loss=nn.CrossEntropyLoss(weight=WEIGHTS))
    assert all(torch.equal(given[name], expected[name]) for name in expected)


@pytest.mark.parametrize(
    ("chunks", "changes", "words"),
    [
        (batches(chunk(11)), {}, r"is one chunk: wrap it in a list, chunks=\[chunk\]"),
        (TensorDataset(*chunk(11)), {}, r"is one chunk: wrap it in a list"),
        ([TensorDataset(*chunk(11))], {}, r"a TensorDataset gives single examples: give its batches, DataLoader"),
        ([chunk(11)], {"loss": nn.CrossEntropyLoss(reduction="sum")}, "give it reduction='mean', not 'sum'"),
        ([multi_label()], {}, r"neither classes nor class probabilities, which sum to 1: give loss=, .*BCEWithLogits"),
        ([ignoring(chunk(11))], {"micro_batch_size": 4}, r"ignores labels of -100.*loss=nn\.CrossEntropyLoss\(\)"),
        ([(chunk(3)[0], torch.full((3,), -100))], {"loss": nn.CrossEntropyLoss()}, "no label counts"),
        ([(chunk(16)[0], chunk(3)[1])], {}, "inputs and labels must have the same length, got 16 and 3"),
        ([[(chunk(16)[0], chunk(3)[1])]], {}, "inputs and labels must have the same length, got 16 and 3"),
        ([[(chunk(1)[0][0], torch.tensor(3))]], {}, r"must have labels \(N, ...\), got the single label"),
    ],
)
def test_what_could_be_misread_is_refused_and_nothing_changes(chunks, changes, words):
    model = golden.mlp()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(ValueError, match=words):
        dash_(model, chunks, **changes)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_one_output_has_no_classes():
    model = nn.Sequential(nn.Flatten(), nn.Linear(48, 1)).double()
    with pytest.raises(ValueError, match="one output, whose cross-entropy over classes is always 0: give loss="):
        dash_(model, [(chunk(5)[0], torch.zeros(5, dtype=torch.int64))])


def test_a_model_with_outputs_of_its_own_needs_a_loss():
    class Own(nn.Linear):
        def forward(self, inputs):
            return {"logits": super().forward(inputs)}

    model = Own(48, 10).double()
    with pytest.raises(
        ValueError, match=r"returns a dict, and cross-entropy takes a tensor: give loss=.*dash_batches_"
    ):
        dash_(model, [chunk(5)])
    dash_(model, [chunk(5)], loss=lambda outputs, labels: functional.cross_entropy(outputs["logits"], labels))
