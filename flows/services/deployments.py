"""Deployments of streams on the user's own Prefect server."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prefect.client.schemas.actions import DeploymentScheduleCreate

ARRIVE_FLOW = "arrive-on-schedule"  # the name of the flow in flows/deployed.py
BACKSTOP = "backstop"  # the schedule's name: without one, a server would switch a paused schedule on
ARRIVED_EVENT = "dashpipe.arrival.landed"  # that a person's program sends to POST /api/events


def deploy_stream(stream: str, store: Path, params_file: Path, cron: str, pool: str) -> str:
    """Register the deployment of a stream on the configured Prefect server, or bring it up to date; return its name.

    Each pass runs in the folder of this command: without a storage, Prefect would copy that folder for each pass, with
    environment and runs. A pass takes all that is pending, so a run that would wait for another is cancelled. Schedules
    of a deployment that exists stay as they are: a person may have paused or changed them.
    """
    from prefect.client.schemas.actions import DeploymentScheduleCreate
    from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy
    from prefect.client.schemas.schedules import CronSchedule
    from prefect.deployments.runner import RunnerDeployment
    from prefect.events import DeploymentEventTrigger
    from prefect.runner.storage import LocalStorage

    name = f"arrive-{stream}"
    trigger = DeploymentEventTrigger(
        expect={ARRIVED_EVENT}, match={"prefect.resource.id": f"dashpipe.stream.{stream}"}, name=f"{name}-event"
    )
    deployment = RunnerDeployment.from_entrypoint(
        "flows/deployed.py:arrive",
        name,
        flow_name=ARRIVE_FLOW,
        schedules=_schedules(name)
        or [DeploymentScheduleCreate(schedule=CronSchedule(cron=cron, timezone="UTC"), active=True, slug=BACKSTOP)],
        parameters={"stream": stream, "store": str(store), "params_file": str(params_file)},
        triggers=[trigger],
        tags=["dashpipe"],
        work_pool_name=pool,
        concurrency_limit=ConcurrencyLimitConfig(limit=1, collision_strategy=ConcurrencyLimitStrategy.CANCEL_NEW),
    )
    deployment.storage = LocalStorage(str(Path.cwd()))
    deployment.apply()
    return f"{ARRIVE_FLOW}/{name}"


def _schedules(name: str) -> "list[DeploymentScheduleCreate]":
    """Return the schedules of a deployment on the server, to be kept; none if there is no such deployment."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import DeploymentScheduleCreate
    from prefect.exceptions import ObjectNotFound

    with get_client(sync_client=True) as client:
        try:
            deployed = client.read_deployment_by_name(f"{ARRIVE_FLOW}/{name}")
        except ObjectNotFound:
            return []
    return [
        DeploymentScheduleCreate(schedule=one.schedule, active=one.active, slug=one.slug or BACKSTOP)
        for one in deployed.schedules
    ]
