"""The entry points of prefect.yaml: a deployment names a file, a preset and overrides; the flows take objects."""

from collections.abc import Sequence
from pathlib import Path

from prefect import flow

from flows import compare
from flows.command_line.settings import as_options, load_params
from tasks.store.place import place_of
from tasks.tracking.publication import Published

ARRIVED_EVENT = "dashpipe.arrival.landed"  # that a person's program sends to POST /api/events


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


@flow(name="arrive-on-schedule", flow_run_name="arrive · {stream}", persist_result=False, retries=0)
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


def deploy_stream(stream: str, store: Path, params_file: Path, cron: str, pool: str) -> str:
    """Register the deployment of a stream on the configured Prefect server, or bring it up to date; return its name.

    Each pass takes all that is pending, so a run that would wait for another is cancelled. A schedule that a person
    paused stays paused.
    """
    from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy
    from prefect.deployments.runner import RunnerDeployment
    from prefect.events import DeploymentEventTrigger

    name = f"arrive-{stream}"
    trigger = DeploymentEventTrigger(
        expect={ARRIVED_EVENT}, match={"prefect.resource.id": f"dashpipe.stream.{stream}"}, name=f"{name}-event"
    )
    deployment = RunnerDeployment.from_entrypoint(
        "flows/deployed.py:arrive",
        name,
        flow_name=arrive.name,
        cron=None if _is_deployed(name) else cron,
        parameters={"stream": stream, "store": str(store), "params_file": str(params_file)},
        triggers=[trigger],
        tags=["dashpipe"],
        work_pool_name=pool,
        concurrency_limit=ConcurrencyLimitConfig(limit=1, collision_strategy=ConcurrencyLimitStrategy.CANCEL_NEW),
    )
    deployment.apply()
    return f"{arrive.name}/{name}"


def _is_deployed(name: str) -> bool:
    """Tell whether the server has the deployment, whose schedule then is a person's."""
    from prefect.client.orchestration import get_client
    from prefect.exceptions import ObjectNotFound

    with get_client(sync_client=True) as client:
        try:
            client.read_deployment_by_name(f"{arrive.name}/{name}")
        except ObjectNotFound:
            return False
    return True
