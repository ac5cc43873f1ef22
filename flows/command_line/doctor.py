"""The command `doctor`: what this machine offers, and what is missing."""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import typer

from dash_core.errors import ConfigError, public_address, without_password
from flows.command_line.errors import FAILED_EXIT
from flows.command_line.options import SharedOptions, shared_options

if TYPE_CHECKING:
    from tasks.store.place import Place

LEAST_FREE_BYTES = 2 * 2**30  # on the disk; a comparison at the paper's scale needs more
CPU_FEATURES = {"avx512": "AVX-512", "avx512_bf16": "AVX-512 BF16", "amx_tile": "AMX"}
MARKS = {"ok": "[green]ok     [/]", "note": "[yellow]note   [/]", "missing": "[bold red]missing[/]"}


@shared_options("params", "store", "data_root")
def doctor(options: SharedOptions) -> None:
    """Say what this machine offers (torch, CPU, GPUs, stores, disk) and what is missing."""
    from rich.console import Console

    findings = list(examine(options))
    console = Console(soft_wrap=True, highlight=False, emoji=False)
    for finding in findings:
        console.print(MARKS[finding.verdict], end=" ", markup=True)
        line = f"{finding.subject:14}{finding.words}" + (f" → {finding.remedy}" if finding.remedy else "")
        console.print(without_password(line), markup=False)
    if any(finding.verdict == "missing" for finding in findings):
        raise typer.Exit(FAILED_EXIT)


@dataclass(frozen=True)
class Finding:
    """One line of the report. remedy: what to do or to type."""

    verdict: Literal["ok", "note", "missing"]
    subject: str
    words: str
    remedy: str = ""


def examine(options: SharedOptions) -> Iterator[Finding]:
    """Yield the findings, the quickest first."""
    from dash_core.comparison import Params

    place = options.place_for(Params())
    yield _params(options)
    yield from _executors(options, place)
    yield from _versions()
    yield from _processors()
    yield _browser()
    yield from _stores(place)
    yield _disk(place)
    yield _data(place)


def _params(options: SharedOptions) -> Finding:
    from flows.command_line.settings import load_params

    try:
        load_params(options.params)
    except ConfigError as error:
        return Finding("missing", "params.yaml", str(error), "mend it; every other command needs it")
    return Finding("ok", "params.yaml", "valid")


def _executors(options: SharedOptions, place: "Place") -> Iterator[Finding]:
    from flows.command_line.cluster_findings import executor_findings
    from flows.command_line.settings import load_params

    with contextlib.suppress(ConfigError):  # `_params` says what is wrong
        compared = load_params(options.params).compare
        place = place.model_copy(
            update={"executor": compared.executor, "cluster": compared.cluster, "device": compared.device}
        )
    yield from (Finding(*words) for words in executor_findings(place))


def _versions() -> Iterator[Finding]:
    from importlib import metadata

    for name in ("torch", "torchvision", "scikit-learn", "prefect", "mlflow", "dvc"):
        try:
            yield Finding("ok", name, metadata.version(name))
        except metadata.PackageNotFoundError:
            yield Finding("missing", name, "not installed", "uv sync")


def _processors() -> Iterator[Finding]:
    import torch

    from dash_core.device import cpu_name, usable_cores

    cores, kind = usable_cores(), torch.backends.cpu.get_cpu_capability()
    yield Finding("ok", "CPU", f"{cpu_name()}, {cores} core(s) for us, {kind}")
    features = {name: bool(getattr(torch.cpu, f"_is_{name}_supported", lambda: False)()) for name in CPU_FEATURES}
    supported = ", ".join(words for name, words in CPU_FEATURES.items() if features[name]) or "none"
    yield Finding("ok", "CPU features", f"matrix units torch can use: {supported}")
    if not torch.cuda.is_available():
        yield Finding("note", "GPU", "none that torch can use; runs train on the CPU")
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        properties = torch.cuda.get_device_properties(index)
        yield Finding("ok", f"GPU cuda:{index}", f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB")


def _browser() -> Finding:
    from dash_core.views.figures import find_browser

    if path := find_browser():
        return Finding("ok", "browser", f"{path} draws figures as SVG and PNG")
    words = "no Chrome or Chromium: figures are written as HTML only"
    return Finding("note", "browser", words, "apt install chromium, or uv run plotly_get_chrome, or set BROWSER_PATH")


def _stores(place: "Place") -> Iterator[Finding]:
    from flows.services.prefect_server import check_api, configured_url
    from tasks.tracking.address import tracking_uri

    uri = tracking_uri(place.databases)
    kind = "set by MLFLOW_TRACKING_URI" if os.environ.get("MLFLOW_TRACKING_URI") else "embedded"
    yield Finding("ok", "MLflow", f"{public_address(uri)} ({kind})")
    url = configured_url()
    if url is None:
        yield Finding("ok", "Prefect", f"a private server for each command, database in {place.services}")
        return
    try:
        check_api(url)
    except ConfigError as error:
        yield Finding("missing", "Prefect", str(error))
    else:
        yield Finding("ok", "Prefect", f"your server at {public_address(url)} answers")


def _disk(place: "Place") -> Finding:
    import shutil

    if not os.access(_existing(place.store), os.W_OK):
        return Finding("missing", "store", f"{place.store} cannot be written", "choose another with --store")
    free = shutil.disk_usage(_existing(place.store)).free
    words = f"{place.store}, {free / 2**30:.1f} GiB free"
    return Finding("ok", "store", words) if free > LEAST_FREE_BYTES else Finding("note", "store", words, "make room")


def _data(place: "Place") -> Finding:
    from dash_core.data import DATASETS

    folders = (
        ", ".join(sorted(path.name for path in place.data_root.iterdir())) if place.data_root.is_dir() else "empty"
    )
    embedded = ", ".join(name for name, spec in DATASETS.items() if spec.origin == "embedded")
    return Finding("ok", "data root", f"{place.data_root} ({folders}); embedded: {embedded}")


def _existing(path: Path) -> Path:
    return next(parent for parent in (path, *path.parents) if parent.exists())
