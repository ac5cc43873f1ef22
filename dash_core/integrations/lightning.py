"""DASH and Shrink & Perturb as a callback of Lightning's Trainer.

::

    trainer = L.Trainer(callbacks=[WarmStart("dash", chunks=[old_loader, new_loader], floor=0.3)])
    trainer.fit(model_with_the_last_weights, loader_of_all_data)
"""

import copy
import inspect
import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

try:
    from lightning.pytorch import Callback, LightningModule, Trainer
    from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy
    from torchmetrics import Metric
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        f"dash_core.integrations.lightning needs Lightning ({error}): pip install 'dashpipe[lightning]'"
    ) from error

from dash_core.integrations.method import Method, number_of_examples, require_chunks
from dash_core.shrinking import ShrinkReports

logger = logging.getLogger(__name__)
SHARDED = (DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy)


class WarmStart(Callback):
    """Shrink the weights once, when a fit starts; a fit that continues from such a fit's checkpoint does not again.

    method: "dash", "shrink_perturb" or "shrink"; parameters: those of its function in `dash_core`, and `seed` for the
    noise. chunks, for DASH: a loader for each chunk, oldest first, without augmentation; they are read once, and
    under DDP the processes share their batches. loss: batch → (mean loss, number of examples), in place of
    `training_step`, whose logs are discarded. size: batch → number of examples, in place of the length of its first
    tensor. Momentum, modes, buffers, metrics and generators are left as found; `reports` are DASH's, of the last fit.
    """

    def __init__(
        self,
        method: str = "dash",
        chunks: Iterable[Iterable[Any]] | None = None,
        *,
        loss: Callable[[Any], tuple[Tensor, float]] | None = None,
        size: Callable[[Any], float] = number_of_examples,
        **parameters: Any,
    ) -> None:
        self.method = Method(method, parameters)
        require_chunks(self.method, chunks)
        self.chunks, self.loss, self.size = chunks, loss, size
        self.done = False
        self.reports: ShrinkReports | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Begin a fit: weights are shrunk unless its checkpoint says that they were."""
        if stage == "fit":
            self.done, self.reports = False, None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Shrink the weights, after optimiser states were restored."""
        if self.done:
            logger.info("the fit continues from a checkpoint whose weights were shrunk; they are not shrunk again")
            return
        if isinstance(trainer.strategy, SHARDED):
            raise ValueError(f"{type(trainer.strategy).__name__} divides weight vectors: use ddp or a single device")
        loss = self.loss or self._training_step(trainer, pl_module)
        with _without_logging(pl_module), _metrics_as_found(pl_module):
            self.reports = self.method.shrink_(
                pl_module, self.chunks, lambda batch: loss(_on_device(trainer, pl_module, batch))
            )
        self.done = True

    def _training_step(self, trainer: Trainer, module: LightningModule) -> Callable[[Any], tuple[Tensor, float]]:
        """Return the module's own loss of a batch."""
        names = list(inspect.signature(module.training_step).parameters)
        if self.method.name == "dash" and (not module.automatic_optimization or "dataloader_iter" in names):
            raise ValueError("training_step steps the optimiser or reads its loader itself: give WarmStart(..., loss=)")

        def loss(batch: Any) -> tuple[Tensor, float]:
            with trainer.precision_plugin.train_step_context():
                step = module.training_step(batch, 0) if len(names) > 1 else module.training_step(batch)
            if step is None:  # the module skips this batch
                return torch.zeros((), requires_grad=True), 0
            return (step if isinstance(step, Tensor) else step["loss"]), self.size(batch)

        return loss

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint keeps: whether the weights of this fit were shrunk."""
        return {"done": self.done}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue the fit of a checkpoint."""
        self.done = state_dict["done"]


def _on_device(trainer: Trainer, module: LightningModule, batch: Any) -> Any:
    """Return a batch as the trainer gives it to `training_step`."""
    batch = trainer.precision_plugin.convert_input(batch)
    return trainer.strategy.batch_to_device(module.on_before_batch_transfer(batch, dataloader_idx=0))


@contextmanager
def _without_logging(module: LightningModule) -> Iterator[None]:
    """Discard what the module logs in the block."""
    module.log = module.log_dict = lambda *values, **options: None
    try:
        yield
    finally:
        del module.log, module.log_dict


@contextmanager
def _metrics_as_found(module: LightningModule) -> Iterator[None]:
    """Restore the state of the module's metrics after the block."""
    metrics = [metric for metric in module.modules() if isinstance(metric, Metric)]
    found = [(metric, copy.deepcopy(metric.metric_state), metric.update_count) for metric in metrics]
    try:
        yield
    finally:
        for metric, state, updates in found:
            metric.reset()
            if updates:
                metric._update_count = updates
                for name, value in state.items():
                    setattr(metric, name, value)
