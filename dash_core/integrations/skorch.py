"""DASH and Shrink & Perturb as a callback of skorch's nets.

::

    net = NeuralNetClassifier(Net, warm_start=True, callbacks=[WarmStart("dash")])
    net.fit(X_old, y_old)
    net.fit(np.concatenate([X_old, X_new]), np.concatenate([y_old, y_new]))  # rows beyond the last fit are a new chunk
"""

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils.data import Subset

try:
    from skorch import NeuralNetClassifier
    from skorch.callbacks import Callback
    from skorch.dataset import unpack_data
    from skorch.utils import to_numpy
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        f"dash_core.integrations.skorch needs skorch ({error}): pip install 'dashpipe[skorch]'"
    ) from error

from dash_core.integrations.method import Method, number_of_examples
from dash_core.shrinking import ShrinkReports
from dash_core.shrinking.parts import LossOfParts

ROWS, LABELS = "warm_start_rows", "warm_start_labels"  # columns of the net's history
PARAMETERS = ("alpha", "floor", "cutoff", "mode", "shrink", "sigma", "seed", "factor", "vectors")


class WarmStart(Callback):
    """Shrink the weights when a fit has more rows than the last one: the rows beyond it are the new chunk.

    The rows of earlier fits must come first and be the same. A fit with as many rows as the last one continues it, and
    is not shrunk again; nor is one that LoadInitState, which must come before this callback, continues. The numbers of
    rows are in the net's history, which skorch saves with it. rows: the numbers of rows after each earlier chunk, for a
    net whose weights were loaded without its history, e.g. rows=[1000].

    method: "dash", "shrink_perturb" or "shrink"; the others are the parameters of its function in `dash_core`, and
    `seed` of the noise; None: its default. DASH leaves the rows that the net's train_split holds out aside. Momentum,
    modes, buffers and generators are left as found; `reports_` are DASH's, of the last fit.
    """

    def __init__(
        self,
        method: str = "dash",
        rows: Sequence[int] = (),
        *,
        alpha: float | None = None,
        floor: float | None = None,
        cutoff: float | None = None,
        mode: str | None = None,
        shrink: float | None = None,
        sigma: float | None = None,
        seed: int | None = None,
        factor: float | None = None,
        vectors: Any = None,
    ) -> None:
        self.method, self.rows = method, rows
        self.alpha, self.floor, self.cutoff, self.mode = alpha, floor, cutoff, mode
        self.shrink, self.sigma, self.seed, self.factor, self.vectors = shrink, sigma, seed, factor, vectors
        self._method()  # raises for wrong parameters

    def _method(self) -> Method:
        parameters = {name: getattr(self, name) for name in PARAMETERS}
        return Method(self.method, {name: value for name, value in parameters.items() if value is not None})

    def on_train_begin(self, net: Any, X: Any = None, y: Any = None, **others: Any) -> None:
        """Shrink the weights if there are new rows."""
        dataset = net.get_dataset(X, y)
        rows, labels = len(dataset), None if y is None else to_numpy(y)
        last = net.history[-1] if len(net.history) else {}
        before = list(last.get(ROWS, self.rows))
        self.reports_: ShrinkReports | None = None
        if before and rows < before[-1]:
            raise ValueError(
                f"this fit has {rows} rows and the last one had {before[-1]}: give all data so far, the new rows last"
            )
        if labels is not None and LABELS in last and last[LABELS] != _digest(labels[: before[-1]]):
            raise ValueError(f"the first {before[-1]} labels are not those of the last fit: give the new rows last")
        self._require_known_classes(net, labels, before)
        if before and rows > before[-1]:
            chunks = [net.get_iterator(chunk, training=False) for chunk in _chunks(net, X, y, [*before, rows])]
            self.reports_ = self._method().shrink_(net.module_, chunks, _loss_of(net))
        self.rows_ = before if before and rows == before[-1] else [*before, rows]
        self.labels_ = None if labels is None else _digest(labels)

    def on_epoch_begin(self, net: Any, **others: Any) -> None:
        """Write into the history which rows the weights have seen."""
        net.history.record(ROWS, self.rows_)
        if self.labels_ is not None:
            net.history.record(LABELS, self.labels_)

    def _require_known_classes(self, net: Any, labels: Any, before: list[int]) -> None:
        if not before or labels is None or not isinstance(net, NeuralNetClassifier):
            return
        if new := sorted(set(np.unique(labels)) - set(np.unique(labels[: before[-1]]))):
            raise ValueError(f"the new rows have classes that the earlier ones lack: {', '.join(map(str, new[:5]))}")


def _digest(labels: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(labels).tobytes()).hexdigest()


def _chunks(net: Any, X: Any, y: Any, bounds: list[int]) -> list[Subset]:
    """Return the training rows of each chunk; `bounds` are the numbers of rows after each."""
    state = np.random.get_state()
    try:
        train, _ = net.get_split_datasets(X, y)
    finally:
        np.random.set_state(state)  # a random split is then the same in the fit
    kept = np.asarray(train.indices if isinstance(train, Subset) else range(len(train)))
    whole = train.dataset if isinstance(train, Subset) else train
    starts = [0, *bounds[:-1]]
    return [
        Subset(whole, kept[(start <= kept) & (kept < end)].tolist()) for start, end in zip(starts, bounds, strict=True)
    ]


def _loss_of(net: Any):
    """Return the net's own loss: batch → (mean loss, number of examples, or the sum of their class weights)."""
    parts = LossOfParts(net.criterion_)

    def loss(batch: Any) -> tuple[Tensor, float]:
        inputs, labels = unpack_data(batch)
        size = parts.size(labels) if isinstance(labels, Tensor) and labels.ndim else number_of_examples(batch)
        return net.get_loss(net.infer(inputs), labels, X=inputs, training=True), size

    return loss
