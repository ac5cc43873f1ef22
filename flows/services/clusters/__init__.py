"""Executors of clusters: runs are trained by processes of other machines, through Ray or Slurm.

The machines see one store, and it is all that connects them: progress, records and results are files there, so
displays, MLflow's mirror and tables are those of one machine. Ray and submitit are extras, and are imported here alone.
"""

import importlib.util
from typing import TYPE_CHECKING

from dash_core.errors import ConfigError

if TYPE_CHECKING:
    from flows.services.clusters.cluster import Cluster
    from tasks.store.place import Crew, Place

PACKAGES = {"ray": "ray", "slurm": "submitit"}  # by executor; the extra has the executor's name


def is_installed(executor: str) -> bool:
    """Tell whether the extra of an executor is installed; the local one needs none."""
    return executor not in PACKAGES or importlib.util.find_spec(PACKAGES[executor]) is not None


def check_installed(executor: str) -> None:
    """Raise ConfigError unless the extra of an executor is installed."""
    if not is_installed(executor):
        raise ConfigError(
            f"compare.executor: {executor} needs the package {PACKAGES[executor]}, which is not installed: "
            f"`uv sync --extra {executor}`, or pip install 'dashpipe[{executor}]', on every machine of the cluster"
        )


def open_cluster(place: "Place", crew: "Crew") -> "Cluster":
    """Return the executor of a place's cluster, which examines the machines when its block begins."""
    check_installed(place.executor)
    if place.executor == "ray":
        from flows.services.clusters.ray_cluster import RayCluster

        return RayCluster(place, crew)
    from flows.services.clusters.slurm_cluster import SlurmCluster

    return SlurmCluster(place, crew)
