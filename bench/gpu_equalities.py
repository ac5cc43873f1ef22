"""What must be equal on a card: with the CPU, after a stop, in micro-batches, compiled. Torch and numpy are enough.

`bench.gpu` reports each; tests/test_gpu.py asserts them where a card is present, and on the CPU what a CPU can show.
"""

import itertools
import logging
import math
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from dash_core.comparison import Params
from dash_core.config import RunConfig, merge, parse
from dash_core.data import ChunkPlan, Dataset, ImageSet
from dash_core.errors import StopRequested
from dash_core.interventions import INTERVENTIONS, dash
from dash_core.interventions.dash import Dash
from dash_core.records import ChunkRecord
from dash_core.run_state import Watch
from dash_core.trajectory import Trajectory

CPU = torch.device("cpu")
BASE = {
    "model": {"name": "resnet10"},
    "chunks": 2,
    "optimizer": {"lr": 0.01},
    "training": {"batch_size": 32, "max_epochs": 2, "precision": "exact"},
    "seeds": [0],
}


def made_up(train: int, test: int = 64, side: int = 16, channels: int = 3, classes: int = 4) -> Dataset:
    """Return noisy images whose class is a bright row: they are learned in a few epochs."""
    return Dataset("made up", _images(train, side, channels, classes, 0), _images(test, side, channels, classes, 1))


def _images(count: int, side: int, channels: int, classes: int, seed: int) -> ImageSet:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % classes
    pixels = torch.randint(0, 120, (count, side, side, channels), generator=generator)
    pixels[torch.arange(count), labels % side] += 100
    names = tuple(f"class {number}" for number in range(classes))
    return ImageSet(pixels.to(torch.uint8), labels, names, (0.3,) * channels, (0.2,) * channels)


def run_of(method: str, **changes: object) -> RunConfig:
    """Return a short run of a thin ResNet-10."""
    return parse(Params, merge(BASE, changes)).run(method, 0)


@dataclass(frozen=True)
class Done:
    """A run that has ended: its records and final state, on the CPU."""

    records: list[ChunkRecord]
    state: Mapping[str, Tensor]

    def equals(self, other: "Done") -> bool:
        """Tell whether results and weights are the same bits."""
        results = [[record.result() for record in done.records] for done in (self, other)]
        return results[0] == results[1] and all(torch.equal(self.state[key], other.state[key]) for key in self.state)

    def furthest(self, other: "Done") -> float:
        """Return the largest difference of a floating-point tensor, relative to the tensor's largest entry."""
        return max(
            float((tensor - other.state[key]).abs().max() / tensor.abs().max().clamp_min(1e-12))
            for key, tensor in self.state.items()
            if tensor.is_floating_point()
        )


def train(run: RunConfig, data: Dataset, device: torch.device, stops: tuple[int, ...] = ()) -> Done:
    """Train a run to its end; it is stopped after so many steps each time, and continued by a new Trajectory."""
    plan = ChunkPlan.split(data.train, run.dataset, run.chunks, run.seed, run.protocol)
    with tempfile.TemporaryDirectory() as folder:
        for steps in (*stops, math.inf):
            counted = itertools.count(1)
            watch = Watch(stop=lambda counted=counted, steps=steps: next(counted) >= steps)
            trajectory = Trajectory(run, data, plan, Path(folder), device=device, watch=watch)
            try:
                while trajectory.pending:
                    trajectory.advance()
            except StopRequested:
                continue
        state = {name: tensor.cpu().clone() for name, tensor in trajectory.learner.model.state_dict().items()}
        return Done(list(trajectory.records), state)


def methods(device: torch.device, data: Dataset) -> dict[str, str]:
    """Return, for each method, "ok" after an experiment of two epochs, an intervention and another; else its error."""
    found = {}
    for name in INTERVENTIONS:
        try:
            train(run_of(name), data, device)
            found[name] = "ok"
        except Exception as error:  # reported with the others
            found[name] = repr(error)
    return found


def against_cpu(device: torch.device, data: Dataset) -> float:
    """Return how far the weights of one epoch in fp32 are from the CPU's, relative to a tensor's largest entry."""
    run = run_of("warm", chunks=1, training={"max_epochs": 1})
    return train(run, data, device).furthest(train(run, data, CPU))


def continues(device: torch.device, data: Dataset) -> bool:
    """Tell whether a DASH run that is stopped twice in mid-epoch ends with the bits of one that is not.

    torch's deterministic algorithms are on: an operation without one is an error.
    """
    with _deterministic():
        run = run_of("dash")
        return train(run, data, device).equals(train(run, data, device, stops=(3, 4)))


@contextmanager
def _deterministic() -> Iterator[None]:
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


@dataclass(frozen=True)
class Halved:
    """DASH's gradient with too little memory: the size of the last micro-batches, and how far G is from the whole."""

    size: int
    furthest: float


def halves(device: torch.device, data: Dataset) -> Halved:
    """Let DASH take a gradient that runs out of memory, and compare it with the gradient of whole chunks.

    On CUDA the process may take little more memory than it holds. A CPU has no such limit: there the first two
    attempts raise the error that CUDA would.
    """
    run = run_of("dash", training={"max_epochs": 1})
    plan = ChunkPlan.split(data.train, run.dataset, run.chunks, run.seed, run.protocol)
    with tempfile.TemporaryDirectory() as folder:
        trajectory = Trajectory(run, data, plan, Path(folder), device=device)
        trajectory.advance()
        learner, images = trajectory.learner, trajectory.images.training(2)
        whole = {name: tensor.clone() for name, tensor in Dash().gradient(learner, images).items()}
        sizes: list[int] = []
        with _told(sizes), _little_memory(device, len(data.train) // run.chunks):
            parts = Dash().gradient(learner, images)
    largest = max(float(tensor.abs().max()) for tensor in whole.values())
    furthest = max(float((parts[name] - tensor).abs().max()) for name, tensor in whole.items()) / largest
    return Halved(sizes[-1] if sizes else 0, furthest)


@contextmanager
def _told(sizes: list[int]) -> Iterator[None]:
    """Collect the sizes of the micro-batches that DASH's warnings name."""

    class Sizes(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            sizes.append(record.args[2])

    handler, logger = Sizes(), logging.getLogger(dash.__name__)
    propagated, logger.propagate = logger.propagate, False
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagated


@contextmanager
def _little_memory(device: torch.device, chunk: int) -> Iterator[None]:
    if device.type == "cuda":
        torch.cuda.empty_cache()
        _, total = torch.cuda.mem_get_info(device)
        left = torch.cuda.memory_reserved(device) + _share_of_a_gradient(chunk)
        torch.cuda.set_per_process_memory_fraction(left / total, device)
        try:
            yield
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0, device)
            torch.cuda.empty_cache()
        return
    original, attempts = dash.averaged_gradient, itertools.count(1)

    def short(*given: object, **more: object) -> dict[str, Tensor]:
        if next(attempts) <= 2:
            raise torch.OutOfMemoryError("out of memory, as CUDA would say")
        return original(*given, **more)

    dash.averaged_gradient = short
    try:
        yield
    finally:
        dash.averaged_gradient = original


def _share_of_a_gradient(images: int) -> int:
    """Return a quarter of the bytes that a thin ResNet-10 saves for the gradient of so many 16x16 images, in fp32."""
    return images * 16 * 16 * 16 * 4 * 8 // 4


@dataclass(frozen=True)
class Compiled:
    """A compiled run: graphs that were compiled over all its chunks, and how far it is from the eager run."""

    graphs: int
    furthest: float


def compiles(device: torch.device, data: Dataset) -> Compiled:
    """Return how many graphs three chunks compile, and how far the run's weights are from the eager run's.

    One graph is a forward pass that serves all chunks. On a card it becomes CUDA graphs, by torch's own compiler. That
    needs a C++ compiler on a CPU, so there the graph is only traced, and run as it is.
    """
    training = {"max_epochs": 2}
    eager = train(run_of("dash", chunks=3, training=training), data, device)
    original, graphs = torch.compile, []

    def counting(model: torch.nn.Module, **how: object) -> object:
        def count(graph: torch.fx.GraphModule, inputs: list) -> object:
            graphs.append(graph)
            return _inductor(graph, inputs, how) if device.type == "cuda" else graph.forward

        return original(model, backend=count, dynamic=False)

    torch._dynamo.reset()
    torch.compile = counting
    try:
        quick = train(run_of("dash", chunks=3, training={**training, "compile": True}), data, device)
    finally:
        torch.compile = original
    return Compiled(len(graphs), quick.furthest(eager))


def _inductor(graph: torch.fx.GraphModule, inputs: list, how: Mapping[str, object]) -> object:
    from torch._inductor import list_mode_options
    from torch._inductor.compile_fx import compile_fx

    return compile_fx(graph, inputs, config_patches=list_mode_options(how.get("mode", "default")))
