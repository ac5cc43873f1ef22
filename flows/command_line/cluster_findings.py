"""What `doctor` says of the executors: whether their extras are installed, and what a cluster offers now."""

import shutil
import subprocess
from collections.abc import Iterator
from typing import TYPE_CHECKING

from dash_core.errors import ConfigError
from flows.services.clusters import PACKAGES, is_installed

if TYPE_CHECKING:
    from tasks.store.place import Place

SLURM_SECONDS = 20.0  # for `sinfo` to answer
Words = tuple[str, str, str, str]  # verdict, subject, what was found, what to do


def executor_findings(place: "Place") -> Iterator[Words]:
    """Yield a finding for each executor; a cluster is asked only if the parameters name it."""
    from dash_core.comparison import Params
    from tasks.store.place import Crew

    chosen = place.executor
    if chosen == "local":
        yield "ok", "executor", f"local: {Crew.of(Params(), 2**20).workers} run(s) at once on this machine", ""
    for executor in PACKAGES:
        if not is_installed(executor):
            verdict = "missing" if chosen == executor else "note"
            yield verdict, executor, "not installed: runs are trained on this machine", f"uv sync --extra {executor}"
        elif chosen == executor:
            yield from (_ray if executor == "ray" else _slurm)(place)
        else:
            yield "ok", executor, f"installed; compare.executor={executor} uses it", ""


def _ray(place: "Place") -> Iterator[Words]:
    from flows.services.clusters.ray_cluster import offer_of

    try:
        nodes, slots, share = offer_of(place)
    except ConfigError as error:
        yield "missing", "ray", str(error), ""
        return
    for address, resources in nodes:
        memory = resources.get("memory", 0) / 2**30
        words = f"{resources.get('CPU', 0):g} CPUs, {resources.get('GPU', 0):g} GPUs, {memory:.0f} GiB"
        yield "ok", "ray node", f"{address}: {words}", ""
    remedy = "" if slots else "lower compare.cluster.gpus, cpus or memory_gib, or wait until a node joins"
    yield "ok" if slots else "note", "ray", f"room for {slots} run(s) at once of {share} each", remedy


def _slurm(place: "Place") -> Iterator[Words]:
    if place.cluster.address == "local":
        yield "ok", "slurm", "jobs are processes of this machine (compare.cluster.address: local)", ""
        return
    if missing := [program for program in ("sbatch", "srun", "sacct", "scancel", "sinfo") if not shutil.which(program)]:
        yield "missing", "slurm", f"no {', '.join(missing)} here", "start dashpipe on the cluster's login node"
        return
    try:
        words = ["sinfo", "--noheader", "--format=%P|%D|%c|%G|%l"]
        done = subprocess.run(words, capture_output=True, text=True, timeout=SLURM_SECONDS, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        yield "missing", "slurm", f"sinfo does not answer ({error})", "ask the cluster's administrator"
        return
    for line in done.stdout.splitlines():
        name, nodes, cores, gpus, limit = (line.split("|") + [""] * 5)[:5]
        yield "ok", "slurm", f"partition {name}: {nodes} node(s) of {cores} cores, GPUs {gpus}, at most {limit}", ""
