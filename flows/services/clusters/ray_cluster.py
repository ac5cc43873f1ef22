"""Runs on a Ray cluster that is running already: none is started here, and nothing of its settings is changed."""

import gc
import logging
import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from dash_core.errors import ConfigError, DashError
from flows.services.clusters.cluster import GPU_SHARE, Cluster, say
from flows.services.clusters.node import Answer, Question, examine
from flows.services.clusters.remote import Call, Outcome, work
from flows.services.executor import Ended, WorkerDied
from tasks.store.place import Crew, Place

ANSWER_SECONDS = 10.0  # for the port of the head
PROBE_SECONDS = 300.0  # for a machine's answer: its process imports torch, from a slow disk perhaps
REMEDY = "start one (`ray start --head`, and `ray start --address=HEAD:6379` on the others), or set RAY_ADDRESS"


class RayCluster(Cluster):
    """An executor over the nodes of a Ray cluster: one task a run, with its share of a node's CPUs and GPUs.

    Ray never repeats a task. A task is cancelled by SIGINT in its process, at which a run saves its state.
    """

    def _connect(self) -> None:
        with _handlers_kept():
            import ray

            self._ray = ray
            self._own = not ray.is_initialized()
            if self._own:
                self._join()
        self._lock = threading.Lock()
        self._running: set[Any] = set()
        nodes = self._nodes()
        has_gpus = any(node["Resources"].get("GPU") for node in nodes)
        self.gpus = self.gpus_asked(GPU_SHARE if has_gpus and self.place.device != "cpu" else 0.0)
        self.slots = sum(map(self._slots_of, nodes))
        self._task = ray.remote(work).options(max_retries=0, scheduling_strategy="SPREAD", **self._share())
        if not self.slots:
            say(
                f"warning: no node of the Ray cluster has {self._share_in_words()} for a run now: runs wait until one "
                "joins; compare.cluster says what a run is given"
            )

    def _join(self) -> None:
        address = self.settings.address or os.environ.get("RAY_ADDRESS") or "auto"
        if address.startswith("ray://"):
            raise ConfigError(
                f"compare.cluster.address: {address} is a Ray Client address, and runs need the cluster's store here: "
                "start the command on a machine of the cluster, with the address HOST:6379 or without one"
            )
        try:
            _check_listens(address)
            self._ray.init(address=address, log_to_driver=False, logging_level=logging.CRITICAL)
        except (OSError, ValueError, RuntimeError) as error:
            reason = " ".join(str(error).split())
            raise ConfigError(
                f"compare.executor: no Ray cluster can be joined at {address} ({reason}); {REMEDY}"
            ) from None

    def _disconnect(self) -> None:
        if getattr(self, "_own", False):
            gc.collect()  # references in cycles, which are not to be freed while Ray shuts down
            with suppress(Exception):
                self._ray.shutdown()

    def _nodes(self) -> list[dict[str, Any]]:
        """Return the living nodes that can train: those with CPUs."""
        return [node for node in self._ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]

    def _share(self) -> dict[str, float]:
        memory = self.settings.memory_gib
        return {
            "num_cpus": self.cpus,
            "num_gpus": self.gpus,
            **({"memory": int(memory * 2**30)} if memory else {}),
        }

    def _share_in_words(self) -> str:
        memory = f", {self.settings.memory_gib:g} GiB" if self.settings.memory_gib else ""
        return f"{self.cpus} CPU(s), {self.gpus:g} GPU(s){memory}"

    def _slots_of(self, node: dict[str, Any]) -> int:
        """Return how many runs a node has room for."""
        has = node["Resources"]
        slots = int(has.get("CPU", 0) // self.cpus)
        if self.gpus >= 1:
            slots = min(slots, int(has.get("GPU", 0) // self.gpus))
        elif self.gpus:
            slots = min(slots, int(has.get("GPU", 0)) * int(1 / self.gpus + 1e-9))
        if self.settings.memory_gib:
            slots = min(slots, int(has.get("memory", 0) // (self.settings.memory_gib * 2**30)))
        return slots

    def _neighbours(self) -> int | None:
        return super()._neighbours() or max(map(self._slots_of, self._nodes()), default=1) or 1

    def _survey(self, question: Question) -> list[Answer]:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        questions = {}
        for node in self._nodes():
            there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            asked = self._ray.remote(work).options(
                max_retries=0, num_cpus=0, num_gpus=min(self.gpus, 1.0), scheduling_strategy=there
            )
            questions[asked.remote(Call.of(examine, (question,), self.crew.threads))] = node
        done, silent = self._ray.wait(list(questions), num_returns=len(questions), timeout=PROBE_SECONDS)
        answers = []
        for reference in done:
            where = questions[reference]["NodeManagerAddress"]
            try:
                outcome = self._ray.get(reference)
            except self._ray.exceptions.RayError as error:
                raise ConfigError(_unable(where, error)) from None
            if outcome.error is not None:
                raise ConfigError(_unable(where, outcome.error))
            answers.append(outcome.value)
        for reference in silent:  # it is full: each run is examined again where it begins
            self._ray.cancel(reference, force=True)
            say(f"warning: {questions[reference]['NodeManagerAddress']} has not answered in {PROBE_SECONDS:.0f} s")
        return answers

    def _do(self, call: Call, arguments: tuple) -> Outcome:
        with self._lock:
            self._check_open()
            reference = self._task.remote(call)
            self._running.add(reference)
        try:
            return self._ray.get(reference)
        except self._ray.exceptions.RayError as error:
            fault = self._fault_of(error)
        finally:
            with self._lock:
                self._running.discard(reference)
            del reference
        # out of the handler: Ray's error holds references, and one that is freed while Ray shuts down ends the process
        raise fault

    def _fault_of(self, error: Exception) -> Exception:
        """Return what is raised for an error of Ray: the call was ended, its process was lost, or the cluster is."""
        errors = self._ray.exceptions
        if isinstance(error, errors.TaskCancelledError):
            return Ended("the comparison was stopped while this run trained, or before it")
        if isinstance(
            error, errors.WorkerCrashedError | errors.NodeDiedError | errors.OutOfMemoryError | errors.ObjectLostError
        ):
            if self._closed.is_set():
                return Ended("the comparison was stopped while this run trained")
            return WorkerDied(f"its process was lost ({_first_line(error)})")
        if isinstance(error, errors.RayTaskError):  # the process could not even begin the call
            return DashError(f"a process of the Ray cluster could not begin: {_last_line(error)}")
        return DashError(
            f"the Ray cluster is lost ({_first_line(error)}); the same command continues from each run's last saved "
            "state"
        )

    def _stop(self) -> None:
        with self._lock:
            running = list(self._running)
        if not running:
            return
        say("stopping: the runs under way save their state …")
        for reference in running:
            with suppress(Exception):
                self._ray.cancel(reference)
        _, unsaved = self._ray.wait(running, num_returns=len(running), timeout=self.saving_seconds)
        for reference in unsaved:
            with suppress(Exception):
                self._ray.cancel(reference, force=True)
        if unsaved:
            runs = f"{len(unsaved)} of the runs did not finish a step within {self.saving_seconds:.0f} s"
            say(f"{runs}: what they did since their last saved state is lost")


def offer_of(place: Place) -> tuple[list[tuple[str, dict[str, float]]], int, str]:
    """Return what a Ray cluster offers: (address, resources) of each node, runs at once, and a run's share in words.

    ConfigError if it cannot be joined.
    """
    cluster = RayCluster(place, Crew(1, place.threads))
    try:
        cluster._connect()
        nodes = [(node["NodeManagerAddress"], node["Resources"]) for node in cluster._nodes()]
        return nodes, cluster.slots or 0, cluster._share_in_words()
    finally:
        cluster._disconnect()


def _check_listens(address: str) -> None:
    """Raise OSError unless something listens at HOST:PORT: Ray itself would try for many minutes."""
    host, colon, port = address.rpartition(":")
    if colon and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER_SECONDS).close()


@contextmanager
def _handlers_kept() -> Iterator[None]:
    """Leave signal handlers as they are: an import of Ray installs its own for SIGTERM."""
    kept = {}
    if threading.current_thread() is threading.main_thread():
        kept = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)


def _unable(where: str, error: Exception) -> str:
    return (
        f"the Ray node {where} cannot train ({_last_line(error)}): install the same environment there, with "
        "`uv sync --extra ray`, and start Ray from it"
    )


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]


def _last_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[-1][:300]
