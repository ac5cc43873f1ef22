"""The entry points of prefect.yaml: a deployment names a file, a preset and overrides; the flows take objects."""

from collections.abc import Sequence
from pathlib import Path

from prefect import flow

from flows import compare
from flows.command_line.settings import as_options, load_params
from flows.services.deployments import ARRIVE_FLOW
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


@flow(name=ARRIVE_FLOW, flow_run_name="arrive · {stream}", persist_result=False, retries=0)
def arrive(stream: str, store: str = ".", params_file: str = "params.yaml") -> None:
    """Do one pass over a stream, as `flows.stream.arrive` does; a pass that is under way elsewhere is left alone."""
    from flows.stream import arrive
    from tasks.store.locks import Busy
    from tasks.store.stream.folder import StreamFolder

    params = load_params(Path(params_file))
    try:
        arrive.fn(StreamFolder.of(Path(store), stream), place_of(params, Path(store), None), wait=False)
    except Busy as busy:
        print(busy)
