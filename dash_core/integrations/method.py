"""A method by name, with checked parameters, as the callbacks of all trainers apply it."""

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from dash_core.shrinking import ShrinkReports, dash_batches_, shrink_, shrink_perturb_

BatchLoss = Callable[[Any], tuple[Tensor, float]]
METHODS: dict[str, Callable] = {"dash": dash_batches_, "shrink_perturb": shrink_perturb_, "shrink": shrink_}
GIVEN_BY_CALLBACK = ("model", "chunks", "loss", "generator")


class Method:
    """DASH, Shrink & Perturb or plain shrinking, with the parameters of its function.

    name: "dash", "shrink_perturb" or "shrink". parameters: those of `dash_batches_`, `shrink_perturb_` or `shrink_`;
    the noise of Shrink & Perturb is drawn from `seed`, so that all processes get the same. ValueError, at once, for an
    unknown name or parameter, or a value that is not allowed.
    """

    def __init__(self, name: str, parameters: Mapping[str, Any]) -> None:
        if name not in METHODS:
            raise ValueError(f"unknown method {name!r}; known: {', '.join(METHODS)}")
        self.name = name
        self.parameters = {key: value for key, value in parameters.items() if key != "seed"}
        known = [key for key in inspect.signature(METHODS[name]).parameters if key not in GIVEN_BY_CALLBACK]
        known += ["seed"] if name == "shrink_perturb" else []
        if unknown := [key for key in parameters if key not in known]:
            raise ValueError(f"{name} has no parameter {unknown[0]!r}; it has {', '.join(known)}")
        if name == "shrink" and "factor" not in parameters:
            raise ValueError("shrink needs factor=, in [0, 1], for example factor=0.3")
        self.seed = parameters.get("seed", 0)
        self._try()

    def _try(self) -> None:
        """Raise ValueError for a value that is not allowed: shrink a layer with one weight."""
        parameters = {key: value for key, value in self.parameters.items() if key != "vectors"}
        with torch.random.fork_rng([]):
            tried = nn.Linear(1, 1)
            self._call(tried, [[torch.ones(1, 1)]], lambda batch: (tried(batch).mean(), 1), parameters)

    def shrink_(self, model: nn.Module, chunks: Iterable[Iterable[Any]], loss: BatchLoss) -> ShrinkReports | None:
        """Change the weights of `model` in place; return DASH's reports. chunks and loss: as for `dash_batches_`."""
        return self._call(model, chunks, loss, self.parameters)

    def _call(self, model: nn.Module, chunks: Any, loss: BatchLoss, parameters: dict[str, Any]) -> ShrinkReports | None:
        if self.name == "dash":
            return dash_batches_(model, chunks, loss=loss, **parameters)
        if self.name == "shrink_perturb":
            shrink_perturb_(model, generator=torch.Generator().manual_seed(self.seed), **parameters)
        else:
            shrink_(model, **parameters)
        return None


def require_chunks(method: Method, chunks: object) -> None:
    """Raise ValueError unless the chunks are given for DASH, and for no other method."""
    if method.name == "dash" and chunks is None:
        raise ValueError("dash needs chunks=[old_loader, ..., new_loader], oldest first")
    if method.name != "dash" and chunks is not None:
        raise ValueError(f"{method.name} looks at no data: leave chunks= away")


def tensors_of(batch: Any) -> Iterator[Tensor]:
    """Yield the tensors of a batch, in its own order, from tuples, lists and dicts in any depth."""
    if isinstance(batch, Tensor):
        yield batch
    elif isinstance(batch, Mapping):
        for part in batch.values():
            yield from tensors_of(part)
    elif isinstance(batch, tuple | list):
        for part in batch:
            yield from tensors_of(part)


def number_of_examples(batch: Any) -> int:
    """Return the length of the first tensor in a batch that has one."""
    for tensor in tensors_of(batch):
        if tensor.ndim:
            return len(tensor)
    raise ValueError("the number of examples of a batch is unknown, as it has no tensors: give size=, batch → number")


def moved(batch: Any, device: torch.device) -> Any:
    """Return a batch with its tensors on a device; tuples, lists and dicts keep their kind or become plain ones."""
    if isinstance(batch, Tensor):
        return batch.to(device)
    if isinstance(batch, Mapping):
        return {key: moved(part, device) for key, part in batch.items()}
    if isinstance(batch, tuple | list):
        return (
            type(batch)(moved(part, device) for part in batch)
            if not hasattr(batch, "_fields")
            else batch._make(moved(part, device) for part in batch)
        )
    return batch
