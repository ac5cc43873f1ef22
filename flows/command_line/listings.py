"""The commands that list methods, diagnostics, datasets, models and the parameters."""

from collections.abc import Callable, Iterator
from typing import Annotated

import typer

from flows.command_line.errors import plain_errors
from flows.command_line.options import SharedOptions, shared_options

OWN_PARTS_PAGE = "docs/guide/own-parts.md"
EMPTY_CELL = "–"  # in a column that a row leaves empty


@shared_options("params", "preset", "overrides")
def params(options: SharedOptions) -> None:
    """Print the parameters as YAML, a preset and overrides laid over them, every default written out."""
    from flows.command_line.settings import complete
    from tasks.store.runs import to_yaml

    print(to_yaml(complete(options.settings)).decode(), end="")


def methods() -> None:
    """List the interventions: name, what it does, source, parameters."""
    from dash_core.interventions import INTERVENTIONS, Intervention, intervention_class
    from dash_core.parts import METHODS

    def row(name: str, kind: type[Intervention], source: str) -> tuple[str, ...]:
        defaults = ", ".join(f"{key}={field.default}" for key, field in kind.model_fields.items())
        summary = getattr(kind, "summary", None) or (kind.__doc__ or "").strip().partition("\n")[0]
        return name, summary, defaults or EMPTY_CELL, source

    rows = [row(name, kind, kind.source) for name, kind in INTERVENTIONS.items()]
    for name, path, problem in _installed(METHODS, intervention_class):
        rows.append((name, problem, EMPTY_CELL, path) if problem else row(name, intervention_class(name), path))
    rows.append(("module:Class", "your own: a subclass of Intervention, by import path", EMPTY_CELL, OWN_PARTS_PAGE))
    _print_columns(("method", "what it does", "parameters", "source"), rows)


def diagnostics() -> None:
    """List the diagnostics: name, what it measures, source."""
    from dash_core.diagnostics import DIAGNOSTICS

    rows = [(diagnostic.name, diagnostic.summary, diagnostic.source) for diagnostic in DIAGNOSTICS.values()]
    _print_columns(("diagnostic", "what it measures", "source"), rows)


def datasets() -> None:
    """List the datasets: name, size, what it is, where it comes from."""
    from dash_core.data import DATASETS, dataset_spec
    from dash_core.parts import DATASETS as OWN_DATASETS

    rows = []
    for name, spec in DATASETS.items():
        sizes = f"{spec.train_size:,} + {spec.test_size:,}" if spec.train_size and spec.test_size else EMPTY_CELL
        rows.append((name, sizes, spec.origin, spec.summary, spec.source))
    for name, path, problem in _installed(OWN_DATASETS, dataset_spec):
        rows.append((name, EMPTY_CELL, "own", problem or "of an installed package", path))
    rows.append(("module:function", EMPTY_CELL, "own", "your own, by import path", OWN_PARTS_PAGE))
    _print_columns(("dataset", "train + test", "origin", "what it is", "source"), rows)


def models(
    size: Annotated[int, typer.Option(min=1, help="Image side in pixels, for the figures.")] = 32,
    classes: Annotated[int, typer.Option(min=2, help="Classes, for the figures.")] = 10,
    width: Annotated[
        int | None, typer.Option(min=1, max=1024, help="Channels of a ResNet's first stage. Default: each model's own.")
    ] = None,
) -> None:
    """List the models: name, parameters, FLOPs of a forward pass, what it is, source."""
    with plain_errors():
        from dash_core.models import MODELS, build_model, forward_flops, model_spec, parameter_count
        from dash_core.parts import MODELS as OWN_MODELS

        rows = []
        for name, spec in MODELS.items():
            if size < spec.smallest:
                figures = (EMPTY_CELL, f"needs {spec.smallest}x{spec.smallest}")
            else:
                model = build_model(name, (3, size, size), classes, seed=0, width=width if spec.width else None)
                figures = (f"{parameter_count(model):,}", f"{forward_flops(model, (3, size, size)) / 1e6:,.1f}")
            summary = f"{spec.summary}; model.width={width or spec.width}" if spec.width else spec.summary
            rows.append((name, *figures, summary, spec.source))
        rows.append(("torchvision:<name>", "", "", "any classification model of torchvision", "torchvision.models"))
        for name, path, problem in _installed(OWN_MODELS, model_spec):
            rows.append((name, "", "", problem or "of an installed package", path))
        rows.append(("module:function", "", "", "your own, by import path", OWN_PARTS_PAGE))
        _print_columns(("model", "parameters", f"MFLOPs, 3x{size}x{size}", "what it is", "source"), rows)


def _installed(kind: str, load: Callable[[str], object]) -> Iterator[tuple[str, str, str]]:
    """Yield name, import path and problem ("" if there is none) of each own part that an installed package offers."""
    from dash_core.errors import ConfigError
    from dash_core.parts import entry_point_parts

    for name, paths in sorted(entry_point_parts(kind).items()):
        try:
            load(name)
            problem = ""
        except ConfigError as error:
            problem = f"cannot be used: {error}"
        yield name, " or ".join(paths), problem


def _print_columns(headings: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    """Print one line a row, in columns and never cut, so that `grep` finds whole entries."""
    lines = [headings, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(headings))]
    for line in lines:
        print("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip())
