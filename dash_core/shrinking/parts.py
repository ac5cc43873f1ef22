"""The loss of the parts of a chunk: what weighs a part, and whether their mean is the loss of the whole."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

Loss = Callable[[Tensor, Tensor], Tensor]  # (outputs, labels) → mean over the batch
MEANS = ("mean", "batchmean")  # values of `reduction`, of a loss that is a mean over the batch
IGNORED_LABEL = -100  # by functional.cross_entropy
SUM_OF_ONE = 1e-3  # how far the class probabilities of one example may be from summing to 1


class LossOfParts:
    """A loss that is computed for the parts of a chunk, one after another: micro-batches, or batches of a loader.

    The loss of a chunk must be the mean of the losses of its parts, weighed by `size`: the number of examples, or the
    sum of the class weights by which nn.CrossEntropyLoss and nn.NLLLoss divide. Whether this is so for another loss is
    checked from its gradients: ValueError at the end of a chunk for which it is not.
    """

    def __init__(self, loss: Loss) -> None:
        if (reduction := getattr(loss, "reduction", "mean")) not in MEANS:
            raise ValueError(f"the loss must be the mean over the batch: give it reduction='mean', not {reduction!r}")
        self.loss = loss
        self.is_default = loss is functional.cross_entropy
        self.divides_by_weights = type(loss) in (nn.CrossEntropyLoss, nn.NLLLoss)
        self.end_chunk()

    def size(self, labels: Tensor) -> float:
        """Return what the loss of these labels is divided by: their number, or the sum of their class weights."""
        if not self.divides_by_weights or labels.is_floating_point():
            return len(labels)
        counted = labels[labels != self.loss.ignore_index]
        if self.loss.weight is None:
            return counted.numel() / (labels.numel() / len(labels))
        return float(self.loss.weight[counted.to(self.loss.weight.device)].double().sum())

    def check_input(self, outputs: Tensor, labels: Tensor) -> None:
        """Raise ValueError if the default loss, cross-entropy over classes, does not fit the outputs and labels."""
        if not self.is_default:
            return
        if not isinstance(outputs, Tensor):
            raise ValueError(
                f"the model returns a {type(outputs).__name__}, and cross-entropy takes a tensor: give loss=, a "
                "function (outputs, labels) → mean over the batch, or use dash_batches_ with the model's own loss"
            )
        if outputs.ndim > 1 and outputs.shape[1] < 2:
            raise ValueError(
                "the model has one output, whose cross-entropy over classes is always 0: give loss=, for example "
                "nn.BCEWithLogitsLoss() for two classes or nn.MSELoss() for numbers"
            )
        if labels.is_floating_point() and labels.ndim > 1 and (labels.sum(1) - 1).abs().max() > SUM_OF_ONE:
            raise ValueError(
                "the labels are neither classes nor class probabilities, which sum to 1: give loss=, for example "
                "nn.BCEWithLogitsLoss() for several labels an example or nn.MSELoss() for numbers"
            )

    @torch.enable_grad()
    def compare(self, outputs: Tensor, labels: Tensor, size: float) -> None:
        """Compare the gradient of the loss of this part and the last one together with the mean of the two."""
        if self.divides_by_weights:
            return
        if self.is_default:
            if not labels.is_floating_point():
                ignored = (labels == IGNORED_LABEL).any()
                self.ignored = ignored if self.ignored is None else self.ignored | ignored
            self.parts += 1
            return
        if not isinstance(outputs, Tensor) or not outputs.is_floating_point():
            return
        outputs = outputs.detach()
        gradient = self._gradient(outputs, labels)
        if self.last is not None and self.last[0].shape[1:] == outputs.shape[1:] and gradient is not None:
            last_outputs, last_labels, last_gradient, last_size = self.last
            together = self._gradient(torch.cat([last_outputs, outputs]), torch.cat([last_labels, labels]))
            mean = torch.cat([last_gradient * last_size, gradient * size]) / (last_size + size)
            norm = torch.linalg.vector_norm(together).clamp(min=torch.finfo(mean.dtype).tiny)
            error = torch.linalg.vector_norm(together - mean) / norm
            self.error = error if self.error is None else torch.maximum(self.error, error)
        self.last = None if gradient is None else (outputs, labels, gradient, size)

    def _gradient(self, outputs: Tensor, labels: Tensor) -> Tensor | None:
        outputs = outputs.requires_grad_()
        (gradient,) = torch.autograd.grad(self.loss(outputs, labels), outputs, allow_unused=True)
        outputs.requires_grad_(False)
        return gradient

    def end_chunk(self) -> None:
        """Raise ValueError if the loss of the chunk was not the mean of its parts; begin a new chunk."""
        error, ignored = getattr(self, "error", None), getattr(self, "ignored", None)
        allowed = 0.0 if error is None else max(1e-4, 8 * torch.finfo(error.dtype).eps)
        if error is not None and not float(error) <= allowed:
            raise ValueError(
                "the loss of two parts of a chunk together is not the mean of their losses, weighed by their numbers "
                f"of examples (their gradients differ by {float(error):.1%}): it is a sum, or divides by class "
                "weights. Give whole chunks as tensors without micro_batch_size, or nn.CrossEntropyLoss(weight=...), "
                "whose class weights are known, or use dash_batches_, whose loss= says what it divides by. No weight "
                "was changed"
            )
        if ignored is not None and self.parts > 1 and bool(ignored):
            raise ValueError(
                f"cross_entropy ignores labels of {IGNORED_LABEL}, so that the parts of a chunk do not weigh what "
                "their numbers of examples say: give loss=nn.CrossEntropyLoss(), whose counts are known. No weight "
                "was changed"
            )
        self.last: tuple[Tensor, Tensor, Tensor, float] | None = None
        self.error: Tensor | None = None  # the largest so far, relative
        self.ignored: Tensor | None = None  # whether any label is ignored
        self.parts = 0
