"""DASH and Shrink & Perturb as a callback of transformers' Trainer.

::

    Trainer(model, args, train_dataset=all_data, callbacks=[WarmStart("dash", chunks=[old_data, new_data])]).train()
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from torch import Tensor, nn
from torch.utils.data import DataLoader

try:
    from transformers import TrainerCallback
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        f"dash_core.integrations.transformers needs transformers ({error}): pip install 'dashpipe[transformers]'"
    ) from error

from dash_core.integrations.method import Method, moved, number_of_examples, require_chunks
from dash_core.shrinking import ShrinkReports

IGNORED_LABEL = -100  # by the losses of transformers' models


class WarmStart(TrainerCallback):
    """Shrink the weights once, when training starts; training that resumes from a checkpoint is not shrunk again.

    method: "dash", "shrink_perturb" or "shrink"; parameters: those of its function in `dash_core`, and `seed` for the
    noise. chunks, for DASH: for each chunk, oldest first, a loader of batches, or a dataset, which is then collated and
    batched as the trainer's; under DDP the processes share the batches. loss: (model, batch) → (mean loss, what it is
    the mean over), in place of the model's own loss. size: batch → what the model's loss is the mean over, in place of
    the number of labels that are not -100 (of tokens; of examples, if each has one label or labels are not integers).
    Momentum, modes, buffers and generators are left as found; `reports` are DASH's.
    """

    def __init__(
        self,
        method: str = "dash",
        chunks: Iterable[Any] | None = None,
        *,
        loss: Callable[[nn.Module, Any], tuple[Tensor, float]] | None = None,
        size: Callable[[Any], float] | None = None,
        **parameters: Any,
    ) -> None:
        self.method = Method(method, parameters)
        require_chunks(self.method, chunks)
        self.chunks, self.loss, self.size = chunks, loss, size
        self.reports: ShrinkReports | None = None

    def on_train_begin(self, args, state, control, *, model: nn.Module, train_dataloader=None, **others: Any) -> None:
        """Shrink the weights, unless training resumes from a checkpoint."""
        if state.global_step:
            return
        if getattr(args, "fsdp", None) or getattr(args, "deepspeed", None):
            raise ValueError("FSDP and DeepSpeed divide weight vectors: use DDP or a single device")
        if self.method.name == "dash" and self.loss is None and args.label_smoothing_factor:
            raise ValueError("the trainer smooths labels and the model's loss does not: give WarmStart(..., loss=)")

        def loss(batch: Any) -> tuple[Tensor, float]:
            batch = moved(batch, args.device)
            if self.loss is not None:
                return self.loss(model, batch)
            outputs = model(**batch)
            if not isinstance(outputs, Mapping) or outputs.get("loss") is None:
                raise ValueError("the model returns no loss for a batch: give it labels, or give WarmStart(..., loss=)")
            return outputs["loss"], (self.size or (lambda batch: number_of_labels(model, batch)))(batch)

        self.reports = self.method.shrink_(
            model, self.chunks and [_loader(chunk, args, train_dataloader) for chunk in self.chunks], loss
        )


def number_of_labels(model: nn.Module, batch: Mapping[str, Any]) -> int:
    """Return what the mean loss of a transformers model is the mean over: labels that are not ignored, or examples."""
    labels = batch.get("labels")
    if labels is None or labels.is_floating_point() or labels.ndim < 2:
        return number_of_examples(batch if labels is None else labels)
    if type(model).__name__ in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values():
        labels = labels[..., 1:]  # each token predicts the next one
    return int((labels != IGNORED_LABEL).sum())


def _loader(chunk: Any, args: Any, train_dataloader: DataLoader) -> Iterable[Any]:
    """Return a loader of a chunk: itself, or that of a dataset in batches of the trainer's size, in its order."""
    if isinstance(chunk, DataLoader | list | tuple) or not hasattr(chunk, "__getitem__"):
        return chunk
    return DataLoader(chunk, batch_size=args.per_device_train_batch_size, collate_fn=train_dataloader.collate_fn)
