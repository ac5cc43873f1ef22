"""Deployments of streams on the user's own Prefect server."""

from pathlib import Path

ARRIVE_FLOW = "arrive-on-schedule"  # the name of the flow in flows/deployed.py
ARRIVED_EVENT = "dashpipe.arrival.landed"  # that a person's program sends to POST /api/events


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
        flow_name=ARRIVE_FLOW,
        cron=None if _is_deployed(name) else cron,
        parameters={"stream": stream, "store": str(store), "params_file": str(params_file)},
        triggers=[trigger],
        tags=["dashpipe"],
        work_pool_name=pool,
        concurrency_limit=ConcurrencyLimitConfig(limit=1, collision_strategy=ConcurrencyLimitStrategy.CANCEL_NEW),
    )
    deployment.apply()
    return f"{ARRIVE_FLOW}/{name}"


def _is_deployed(name: str) -> bool:
    """Tell whether the server has the deployment, whose schedule then is a person's."""
    from prefect.client.orchestration import get_client
    from prefect.exceptions import ObjectNotFound

    with get_client(sync_client=True) as client:
        try:
            client.read_deployment_by_name(f"{ARRIVE_FLOW}/{name}")
        except ObjectNotFound:
            return False
    return True
