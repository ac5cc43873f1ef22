"""The weights of a torch model that DASH and Shrink & Perturb change, and their weight vectors. Needs torch alone.

DASH shrinks each weight vector by one factor: the kernel of one input and one output channel of a convolution, the row
of a Linear layer, a whole bias (DASH, section 4, and the authors' code). The layers that the paper does not name follow
by the same rule: a vector joins the weights that are summed into one output, for convolutions by input channel.

=====================================  =======================  ===================================================
layer                                  weight                   one weight vector
=====================================  =======================  ===================================================
Conv1d, Conv2d, Conv3d                 (out, in, ...)           the kernel of one output and one input
ConvTranspose1d, 2d, 3d                (in, out, ...)           the same: the axes of the kernel come last
Linear; RNN, LSTM, GRU and their cells  (out, in)               a row
MultiheadAttention                     (out, in), 1 or 3        a row of the projections of query, key and value
Bilinear                               (out, in 1, in 2)        the matrix of one output
transformers' Conv1D                   (in, out)                a column, as for the Linear layer that it stands for
all of them                            bias                     the whole bias
=====================================  =======================  ===================================================

A weight that weight_norm or another parametrisation computes is shrunk through it, if it takes the shrunk weight.
All other parameters are left alone, each for a reason that `find_weights` gives.
"""

import copy
import re
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize
from torch.nn.utils.weight_norm import WeightNorm

Dims = tuple[int, ...]
Vectors = Callable[[nn.Module], Iterable[tuple[str, nn.Parameter, Dims]]]  # model → (name, parameter, dims)
WARNED_SHARE = 0.01  # of the weights: more than this left alone is worth a warning

CONVOLUTIONS = (
    *(nn.Conv1d, nn.Conv2d, nn.Conv3d),
    *(nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d),
)
RECURRENT = (nn.RNNBase, nn.RNNCellBase)
RECURRENT_KIND = re.compile(r"(weight|bias)_(ih|hh|hr)(_l\d+)?(_reverse)?(?=$|\.|_[gv]$)")
NORMALISATION = (
    *(nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm),
    *(nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d),
    *(nn.LayerNorm, nn.GroupNorm, nn.RMSNorm),
)


class LeftAloneWarning(UserWarning):
    """More than 1 % of a model's weights are left as they are."""


@dataclass(frozen=True, eq=False)
class Weight:
    """A weight or bias that is a parameter; each of its weight vectors extends over `dims`."""

    name: str
    parameter: Tensor
    dims: Dims

    def value(self) -> Tensor:
        """Return the tensor to change in place."""
        return self.parameter

    def taking(self, value: Tensor) -> Callable[[], None]:
        """Return a function that makes `value` the weight; ValueError, before anything changes, if that cannot be."""
        return lambda: None  # it was changed in place

    def as_leaf(self) -> AbstractContextManager[Tensor]:
        """Return a context in which the layers use a leaf tensor as this weight, which backward() gives a gradient."""
        return nullcontext(self.parameter)


@dataclass(frozen=True, eq=False)
class ParametrisedWeight:
    """A weight that a parametrisation (torch.nn.utils.parametrize) computes from other parameters."""

    name: str
    module: nn.Module
    kind: str
    dims: Dims

    @property
    def parametrisation(self) -> parametrize.ParametrizationList:
        """Return what computes the weight."""
        return self.module.parametrizations[self.kind]

    @torch.no_grad()
    def value(self) -> Tensor:
        """Return a copy of the weight, computed in eval mode: spectral_norm's estimate then stays as it is."""
        with in_mode(self.parametrisation, training=False):
            return self.parametrisation().clone()

    @torch.no_grad()
    def taking(self, value: Tensor) -> Callable[[], None]:
        """Return a function that makes `value` the weight, through right_inverse; see `Weight.taking`."""
        twin = copy.deepcopy(self.parametrisation)
        with in_mode(twin, training=False):
            twin.right_inverse(value.clone())
            _require_finite(self.name, twin())
        return lambda: self.parametrisation.load_state_dict(twin.state_dict())

    def takes_factors(self) -> bool:
        """Tell whether the weight, after each weight vector was scaled by its own factor, is what it was scaled to."""
        value = self.value()
        shape = [1 if dim in self.dims else size for dim, size in enumerate(value.shape)]
        factors = torch.linspace(0.5, 1, max(1, torch.Size(shape).numel()), device=value.device)
        scaled = value * factors.to(value.dtype).view(shape)
        twin = copy.deepcopy(self.parametrisation)
        rounding = 64 * torch.finfo(value.dtype).eps
        try:
            with torch.no_grad(), torch.random.fork_rng([]), in_mode(twin, training=False):
                twin.right_inverse(scaled.clone())
                return torch.allclose(twin(), scaled, rtol=rounding, atol=rounding * float(scaled.abs().max()))
        except Exception:  # there is no right_inverse, or it refuses the weight in its own way
            return False

    @contextmanager
    def as_leaf(self) -> Iterator[Tensor]:
        """Have the layer use a leaf tensor for the block; see `Weight.as_leaf`."""
        computed = getattr(self.module, self.kind)
        if computed is getattr(self.module, self.kind) and not isinstance(computed, nn.Parameter):
            raise ValueError(f"{self.name} is cached: shrink the model outside of torch's parametrize.cached()")
        leaf = self.value().requires_grad_()
        hook = self.parametrisation.register_forward_hook(lambda module, inputs, output: leaf)
        try:
            yield leaf
        finally:
            hook.remove()


@dataclass(frozen=True, eq=False)
class NormHookWeight:
    """A weight that the hook of the old torch.nn.utils.weight_norm computes before each forward pass."""

    name: str
    module: nn.Module
    hook: WeightNorm
    dims: Dims

    @torch.no_grad()
    def value(self) -> Tensor:
        """Return a copy of the weight."""
        return self.hook.compute_weight(self.module).clone()

    @torch.no_grad()
    def taking(self, value: Tensor) -> Callable[[], None]:
        """Return a function that makes `value` the weight: v = value, g = its norms; see `Weight.taking`."""
        norms = torch.norm_except_dim(value, 2, self.hook.dim)
        _require_finite(self.name, 1 / norms)

        @torch.no_grad()
        def take() -> None:
            getattr(self.module, f"{self.hook.name}_v").copy_(value)
            getattr(self.module, f"{self.hook.name}_g").copy_(norms)
            setattr(self.module, self.hook.name, self.value())

        return take

    @contextmanager
    def as_leaf(self) -> Iterator[Tensor]:
        """Have the layer use a leaf tensor for the block; see `Weight.as_leaf`."""
        leaf, found = self.value().requires_grad_(), getattr(self.module, self.hook.name)
        put = lambda module, inputs: setattr(module, self.hook.name, leaf)
        handle = self.module.register_forward_pre_hook(put)  # runs after the hook that computes the weight
        try:
            yield leaf
        finally:
            handle.remove()
            setattr(self.module, self.hook.name, found)


AnyWeight = Weight | ParametrisedWeight | NormHookWeight


def _require_finite(name: str, computed: Tensor) -> None:
    """Raise ValueError unless a weight that was computed from its new value is finite."""
    if not torch.isfinite(computed).all():
        raise ValueError(
            f"{name} cannot have a weight vector of zeros: its normalisation divides by its length; choose a factor or "
            "floor above 0. No weight was changed"
        )


@dataclass(frozen=True)
class FoundWeights:
    """The weights of a model to shrink, and the other parameters: the reason to leave each alone, by name."""

    shrunk: list[AnyWeight]
    left_alone: dict[str, str]
    share_left_alone: float  # of all weights with two or more dimensions, except those of normalisation layers
    share_frozen: float  # the part of `share_left_alone` that is frozen

    def warn(self, stacklevel: int = 3) -> None:
        """Warn if more than 1 % of the weights are left alone."""
        if self.share_left_alone > WARNED_SHARE:
            warnings.warn(
                f"{self.summary()}. vectors= names further weights to shrink; "
                "dash_core.find_weights(model).left_alone lists all reasons",
                LeftAloneWarning,
                stacklevel=stacklevel,
            )

    def summary(self) -> str:
        """Return a sentence: the share of the weights that are left alone, the first of them, and why."""
        return f"{self.share_left_alone:.0%} of the weights are left alone: {_summary(self.left_alone)}"


def find_weights(model: nn.Module, vectors: Vectors | None = None) -> FoundWeights:
    """Return the weights that DASH and Shrink & Perturb change, one or more, and why other parameters are left alone.

    vectors: names further weights, or other weight vectors of a known one: model → (name, parameter, dims), where one
    weight vector extends over `dims`; (1,) is a row of a matrix. A shared weight is named once, and so is a weight that
    an Embedding shares with a Linear layer. ValueError if the model has no values yet or nothing can be shrunk.
    """
    found = _find(model, vectors)
    if not found.shrunk:
        reasons = _summary(found.left_alone) or "it has no parameters"
        trainable = "; requires_grad_() on a layer makes it trainable" if "frozen" in reasons else ""
        raise ValueError(f"there is nothing to shrink in this model: {reasons}{trainable}. No weight was changed")
    return found


def _find(model: nn.Module, vectors: Vectors | None) -> FoundWeights:
    """Return what `find_weights` returns, also if there is nothing to shrink."""
    _require_values(model)
    further = _checked(model, vectors(model)) if vectors else []
    seen = {id(weight.parameter) for weight in further}  # parameters that need no reason: they are shrunk
    shrunk: list[AnyWeight] = []
    left_alone: dict[str, str] = {}
    for path, module in model.named_modules():
        for kind, dims in _layer_weights(module):
            name = f"{path}.{kind}" if path else kind
            weight, parts = _weight(module, name, kind, dims)
            if weight is None or any(id(part) in seen for part in parts):
                continue
            if not any(part.requires_grad for part in parts):
                continue
            if isinstance(weight, ParametrisedWeight) and not weight.takes_factors():
                kinds = ", ".join(type(part).__name__.lstrip("_") for part in weight.parametrisation)
                left_alone[name] = f"its parametrisation ({kinds}) would undo the shrinking, or has no right_inverse"
            else:
                shrunk.append(weight)
            seen |= {id(part) for part in parts if name not in left_alone}
    found = [*shrunk, *further]
    reasons, weights, untouched, frozen = {}, 0, 0, 0
    for path, module in model.named_modules():
        for kind, parameter in module.named_parameters(recurse=False):
            counted = parameter.numel() if parameter.ndim > 1 and not isinstance(module, NORMALISATION) else 0
            weights += counted
            if id(parameter) in seen:
                continue
            seen.add(id(parameter))
            untouched += counted
            frozen += 0 if parameter.requires_grad else counted
            name = f"{path}.{kind}" if path else kind
            computed = path.replace(".parametrizations.", ".").removeprefix("parametrizations.")
            reasons[computed if computed in left_alone else name] = left_alone.get(computed) or _reason(
                module, kind, parameter
            )
    return FoundWeights(found, reasons, untouched / max(weights, 1), frozen / max(weights, 1))


def weights_and_biases(model: nn.Module) -> Iterator[tuple[str, Tensor, Dims]]:
    """Yield (name, parameter, dims) of each weight and bias of `find_weights` that is a parameter, in its order."""
    for weight in _find(model, None).shrunk:
        if isinstance(weight, Weight):
            yield weight.name, weight.parameter, weight.dims


def _require_values(model: nn.Module) -> None:
    for name, parameter in model.named_parameters():
        if is_lazy(parameter):
            raise ValueError(f"{name} has no values yet: call the model once on a batch, then shrink it")
        if parameter.is_meta:
            raise ValueError(
                f"{name} has no values: it is on the meta device. Load or initialise the weights on a real device "
                "(model.to_empty(device=...), then load_state_dict), then shrink them"
            )


def _checked(model: nn.Module, further: Iterable[tuple[str, nn.Parameter, Dims]]) -> list[Weight]:
    """Return what `vectors` named as weights; ValueError if it is not of the model, is frozen, or has no such dims."""
    own = {id(parameter) for parameter in model.parameters()}
    weights = [Weight(name, parameter, tuple(dims)) for name, parameter, dims in further]
    for weight in weights:
        if id(weight.parameter) not in own:
            raise ValueError(f"vectors= named {weight.name}, which is no parameter of the model")
        if not weight.parameter.requires_grad:
            raise ValueError(f"vectors= named {weight.name}, which is frozen: call requires_grad_() on it, or leave it")
        if not weight.dims or not all(0 <= dim < weight.parameter.ndim for dim in weight.dims):
            raise ValueError(
                f"vectors= gave the dims {weight.dims} for {weight.name} of shape {tuple(weight.parameter.shape)}: "
                f"allowed are one or more of {tuple(range(weight.parameter.ndim))}"
            )
    for values in ([weight.name for weight in weights], [id(weight.parameter) for weight in weights]):
        if len(set(values)) < len(values):
            raise ValueError("vectors= named a weight or a name twice")
    return weights


def _layer_weights(module: nn.Module) -> Iterator[tuple[str, Dims]]:
    """Yield the attribute and the dims of a weight vector of each weight and bias of a layer."""
    if isinstance(module, CONVOLUTIONS):
        yield "weight", tuple(range(2, 2 + len(module.kernel_size)))
    elif isinstance(module, nn.Linear):
        yield "weight", (1,)
    elif isinstance(module, nn.Bilinear):
        yield "weight", (1, 2)
    elif _is_transposed_linear(module):
        yield "weight", (0,)
    elif isinstance(module, nn.MultiheadAttention):
        for kind in ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight"):
            yield kind, (1,)
        yield "in_proj_bias", (0,)
        return
    elif isinstance(module, RECURRENT):
        kinds = filter(None, (RECURRENT_KIND.search(name) for name, _ in module.named_parameters()))
        for kind in dict.fromkeys(match.group() for match in kinds):
            yield kind, (1,) if kind.startswith("weight") else (0,)
        return
    else:
        return
    yield "bias", (0,)


def _is_transposed_linear(module: nn.Module) -> bool:
    """Tell whether this is transformers' Conv1D, a Linear layer whose weight is (in, out)."""
    named = any(kind.__name__ == "Conv1D" for kind in type(module).__mro__)
    return named and hasattr(module, "nf") and module.weight.ndim == 2 and module.weight.shape[1] == module.nf


def _weight(module: nn.Module, name: str, kind: str, dims: Dims) -> tuple[AnyWeight | None, list[nn.Parameter]]:
    """Return a layer's weight and the parameters that it consists of; None if there is none to shrink."""
    if parametrize.is_parametrized(module, kind):
        weight = ParametrisedWeight(name, module, kind, dims)
        return weight, list(weight.parametrisation.parameters())
    parameter = getattr(module, kind, None)
    if isinstance(parameter, nn.Parameter):
        return Weight(name, parameter, dims), [parameter]
    for hook in module._forward_pre_hooks.values():
        if isinstance(hook, WeightNorm) and hook.name == kind:
            return NormHookWeight(name, module, hook, dims), [getattr(module, f"{kind}_{part}") for part in "gv"]
    return None, []


def _reason(module: nn.Module, attribute: str, parameter: nn.Parameter) -> str:
    """Return why a parameter is left alone."""
    kind = type(module).__name__
    if not parameter.requires_grad:
        return "frozen: its requires_grad is False"
    if isinstance(module, NORMALISATION):
        return f"{kind}: normalisation layers stay as they are"
    if isinstance(module, nn.Embedding | nn.EmbeddingBag):
        return f"{kind}: the gradient of a token that is not in the chunks is zero, and would shrink it to the floor"
    if any(attribute.startswith(f"{weight}_") for weight, _ in _layer_weights(module)):
        return f"{kind}: a hook computes the layer's weight from it, and would undo the shrinking"
    return f"{kind}: this parameter has no known weight vectors"


def _summary(reasons: dict[str, str]) -> str:
    """Return the reasons with the number and the first names of the parameters of each."""
    names: dict[str, list[str]] = {}
    for name, reason in reasons.items():
        names.setdefault(reason, []).append(name)
    return "; ".join(
        f"{', '.join(found[:2])}{f' and {len(found) - 2} more' if len(found) > 2 else ''} ({reason})"
        for reason, found in names.items()
        if "normalisation layers" not in reason or len(names) == 1
    )


@contextmanager
def in_mode(model: nn.Module, *, training: bool) -> Iterator[None]:
    """Put every module in train or eval mode for the block; restore the mode of each afterwards."""
    found = {module: module.training for module in model.modules()}
    model.train(training)
    try:
        yield
    finally:
        for module, mode in found.items():
            module.training = mode
