"""Networks that start from a file of weights, and layers of a network that stay as they are."""

import hashlib
import logging
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load as from_safetensors
from torch import Tensor, nn

from dash_core.config import ModelConfig
from dash_core.errors import ConfigError
from dash_core.mistakes import check_layer
from dash_core.models import build_model, model_spec
from dash_core.models.own import check_own_model, classifier_of

logger = logging.getLogger(__name__)
NESTED = ("state_dict", "model_state_dict", "model")  # keys under which training scripts save a model's state
WRAPPERS = ("module.", "_orig_mod.", "model.")  # what DataParallel, torch.compile and Lightning put before each name
SHOWN_MISFITS = 3  # in an error

_checked: set[tuple[ModelConfig, tuple[int, int, int], int]] = set()  # own models that this process has checked


class InitialModel:
    """The network of a configuration as it is before training: equal seeds give equal weights.

    With `model.weights` it has the weights of that file. A layer of the classifier that does not fit them, such as one
    for another number of classes, is new, drawn from the seed; every other layer must fit. The file is read once.
    ConfigError says what is wrong with the file, or with the name of a frozen layer.
    """

    def __init__(self, config: ModelConfig, image_shape: tuple[int, int, int], classes: int) -> None:
        self._config, self._shape, self._classes = config, image_shape, classes
        self._spec = model_spec(config.name, **config.options)
        self._weights = read_pretrained(config.weights, config.weights_sha256) if config.weights else None
        if config.frozen:
            check_frozen(self(0), config.frozen)

    @cached_property
    def head(self) -> tuple[str, ...]:
        """Names of the modules that are the classifier; of an own model, its last layer with one output a class."""
        return self._spec.head or classifier_of(self._new(0), self._classes)

    def check(self) -> None:
        """Raise ConfigError if the network cannot be built, or if it is your own and does not take a batch of images.

        Equal models are checked once a process.
        """
        if self._config.source is None:
            self(0)
            return
        key = (self._config, self._shape, self._classes)
        if key not in _checked:
            check_own_model(self._spec.source, self, self._shape, self._classes)
            _checked.add(key)

    def _new(self, seed: int) -> nn.Module:
        return build_model(self._config.name, self._shape, self._classes, seed=seed, **self._config.options)

    def __call__(self, seed: int) -> nn.Module:
        """Return the network, on the CPU."""
        config = self._config
        model = self._new(seed)
        if self._weights is not None:
            new = load_pretrained_(model, self._weights, self.head, config.weights)
            if new:
                logger.info("%s has no weights for the layers %s: they are new", config.weights, ", ".join(new))
        return model


def read_pretrained(path: str, digest: str | None = None) -> dict[str, Tensor]:
    """Return the weights in a file, by name; ConfigError if it cannot be read or is not the file of that SHA-256.

    `.safetensors` files are read as such, all others as torch.save writes them, without unpickling objects. A state
    nested under one of NESTED is taken out, and the prefixes of WRAPPERS are removed.
    """
    try:
        content = Path(path).read_bytes()
        if digest and hashlib.sha256(content).hexdigest() != digest:
            raise ConfigError(
                f"model.weights: {path} has changed; leave model.weights_sha256 out to use it as it is now"
            )
        state = from_safetensors(content) if Path(path).suffix == ".safetensors" else _from_torch(path)
    except ConfigError:
        raise
    except Exception as error:  # of torch's and safetensors' readers, which have no common class
        kind, reason = "safetensors" if path.endswith(".safetensors") else "torch.save", str(error).partition("\n")[0]
        raise ConfigError(
            f"model.weights: {path} cannot be read in the format of {kind} ({reason[:200]}); "
            "save the model's state_dict()"
        ) from None
    return _unwrapped(state, path)


def _from_torch(path: str) -> Any:
    return torch.load(path, map_location="cpu", weights_only=True)


def _unwrapped(state: Any, path: str) -> dict[str, Tensor]:
    """Return the state of a model by plain names, out of what surrounds it."""
    for key in NESTED:
        if isinstance(state, Mapping) and isinstance(state.get(key), Mapping):
            state = state[key]
    if not isinstance(state, Mapping) or not any(isinstance(value, Tensor) for value in state.values()):
        raise ConfigError(f"model.weights: {path} holds no weights by name; save the model's state_dict()")
    weights = {str(name): value for name, value in state.items() if isinstance(value, Tensor)}
    for prefix in WRAPPERS:
        if all(name.startswith(prefix) for name in weights):
            weights = {name.removeprefix(prefix): value for name, value in weights.items()}
    return weights


@torch.no_grad()
def load_pretrained_(model: nn.Module, weights: Mapping[str, Tensor], head: Sequence[str], path: str) -> list[str]:
    """Copy weights into the model in place; return the names of the layers of the head that stay as they were.

    head: names of the model's classifier modules. ConfigError if a tensor of another layer is missing or has another
    shape. Tensors that the model does not have are left out.
    """
    state = model.state_dict()
    misfits = {name: _misfit(name, tensor, weights) for name, tensor in state.items()}
    layers = {name.rpartition(".")[0] for name, misfit in misfits.items() if misfit}
    new = [layer for layer in sorted(layers) if f"{layer}.".startswith(tuple(f"{part}." for part in head))]
    wrong = [f"{name} {misfits[name]}" for name in state if misfits[name] and name.rpartition(".")[0] not in new]
    if wrong:
        more = f", and {len(wrong) - SHOWN_MISFITS} more" if len(wrong) > SHOWN_MISFITS else ""
        raise ConfigError(
            f"model.weights: {path} does not fit the model: {'; '.join(wrong[:SHOWN_MISFITS])}{more}. It must be of "
            "the same model.name, normalisation and width, for images of as many channels"
        )
    for name, tensor in state.items():
        if name in weights and name.rpartition(".")[0] not in new:
            tensor.copy_(weights[name])
    return new


def _misfit(name: str, tensor: Tensor, weights: Mapping[str, Tensor]) -> str:
    """Return why a tensor of the model has no weights, or nothing."""
    if name not in weights:
        return "" if name.endswith("num_batches_tracked") else "is missing"  # older files do not have these counts
    expected, found = list(tensor.shape), list(weights[name].shape)
    return "" if expected == found else f"is {found}, not {expected}"


def check_frozen(model: nn.Module, names: Sequence[str]) -> None:
    """Raise ConfigError unless each name is that of a layer of the model, and something is left to train."""
    for name in names:
        check_layer("model.frozen", name, model)
    prefixes = tuple(f"{name}." for name in names)
    if all(f"{name}.".startswith(prefixes) for name, _ in model.named_parameters()):
        raise ConfigError("model.frozen: every layer is frozen, so that nothing is left to train")
