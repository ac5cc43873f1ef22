"""The entry points of prefect.yaml: a deployment names a file, a preset and overrides; the flows take objects."""

from collections.abc import Sequence
from pathlib import Path

from prefect import flow

from flows import compare
from flows.command_line.settings import as_options, load_params
from tasks.store.place import place_of
from tasks.tracking.publication import Published


@flow(name="compare-methods", flow_run_name="compare methods · {params_file}", persist_result=False, retries=0)
def compare_methods(
    params_file: str = "params.yaml",
    preset: str | None = None,
    overrides: Sequence[str] = (),
    store: str = ".",
    data_root: str | None = None,
    again: bool = False,
) -> Published:
    """Read the parameters once, then train and publish the comparison as `flows.compare.compare_methods` does."""
    params = load_params(Path(params_file), preset, overrides)
    place = place_of(params, Path(store), Path(data_root) if data_root else None)
    command = f"uv run dashpipe compare{as_options(Path(params_file), preset, overrides)}"
    return compare.compare_methods.fn(params, place, command, again)
