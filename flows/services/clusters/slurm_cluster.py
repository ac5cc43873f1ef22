"""Runs as Slurm jobs, through submitit: one job a run, which Slurm queues, and which goes on without this process.

A job that is preempted or reaches its time limit gets SIGUSR2 before: it saves its state and is queued again. A job
whose process was killed is submitted again by the caller. With the address `local` jobs are processes of this machine.
"""

import json
import os
import signal
import subprocess
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from dash_core.errors import ConfigError, DashError, StopRequested
from dash_core.files import write_atomically
from flows.services.clusters.cluster import GPU_SHARE, Cluster, say
from flows.services.clusters.node import Answer, Question, examine
from flows.services.clusters.remote import Call, Outcome, work
from flows.services.executor import Ended, WorkerDied
from tasks.store import stopping
from tasks.store.attempts import saved_steps

POLL_SECONDS = 2.0  # between two looks at a job's files; Slurm itself is asked by submitit, less often
NOTICE_SECONDS = 120  # before a time limit, at which a job is told to save its state
MOST_REQUEUES = 10_000  # of a job at its time limit: only one that makes no progress is given up
LEAST_PROGRESS = 2  # attempts at a run without a new saved state, after which it fails
NOT_OVER = {"READY", "PENDING", "RUNNING", "UNKNOWN", "REQUEUED", "COMPLETING", "PREEMPTED", "CONFIGURING", "SUSPENDED"}
SIGNAL = "SUBMITIT_PREEMPT_SIGNAL"  # submitit's name of the variable


class SlurmCluster(Cluster):
    """An executor whose calls are Slurm jobs. A job that an earlier command submitted for a run is taken up again."""

    def _connect(self) -> None:
        os.environ[SIGNAL] = "USR2"  # read by submitit's import
        import submitit

        if self.settings.address not in (None, "local"):
            raise ConfigError(
                f"compare.cluster.address: {self.settings.address} means nothing to Slurm, which this machine knows; "
                "set it to null, or to local to try jobs on this machine"
            )
        self._local = self.settings.address == "local"
        self.gpus = float(self.gpus_asked(1 if self.place.device.startswith("cuda") else 0))
        if self.gpus != int(self.gpus):
            raise ConfigError(
                f"compare.cluster.gpus: {self.gpus:g}, and Slurm gives a job whole GPUs: set a whole number, or "
                f"executor: ray, which gives a run {GPU_SHARE} of one"
            )
        self._folder = self.place.common_services / "slurm"
        self._folder.mkdir(parents=True, exist_ok=True)
        try:
            executor = submitit.AutoExecutor(
                self._folder,
                cluster="local" if self._local else "slurm",
                **({} if self._local else {"slurm_max_num_timeout": MOST_REQUEUES}),
            )
            executor.update_parameters(**self._parameters())
        except (RuntimeError, ValueError) as error:
            raise ConfigError(
                f"compare.executor: Slurm cannot be used here ({error}); start the command on a machine that has "
                "sbatch and srun, such as the cluster's login node"
            ) from None
        self._executor = executor
        self._submitit = submitit
        self._lock = threading.Lock()
        self._jobs: dict[str, Any] = {}  # under way, by id

    def _parameters(self) -> dict[str, Any]:
        settings = self.settings
        common: dict[str, Any] = {
            "timeout_min": settings.time,
            "cpus_per_task": self.cpus,
            "tasks_per_node": 1,
            "nodes": 1,
        }
        if self.gpus:
            common["gpus_per_node"] = int(self.gpus)
        if settings.memory_gib:
            common["mem_gb"] = settings.memory_gib
        if self._local:
            return common
        return {
            **common,
            "name": "dashpipe",
            "slurm_signal_delay_s": NOTICE_SECONDS,
            "slurm_setup": [f"export {SIGNAL}=USR2"],
            "slurm_additional_parameters": {"requeue": True},
            **({"slurm_partition": settings.partition} if settings.partition else {}),
        }

    def _disconnect(self) -> None:
        """Leave the jobs to Slurm: nothing is connected."""

    def _survey(self, question: Question) -> list[Answer]:
        """Ask one machine, in a job of its own; Slurm names the others as late as a job begins there."""
        job = self._submit(_Job(Call.of(examine, (question,), self.crew.threads)))
        outcome = self._wait(job)
        if outcome.error is not None:
            raise ConfigError(
                f"a Slurm job cannot train ({outcome.error}); install the same environment on all machines"
            )
        return [outcome.value]

    def _do(self, call: Call, arguments: tuple) -> Outcome:
        run = next((argument for argument in arguments if hasattr(argument, "digest")), None)
        place = next((argument for argument in arguments if hasattr(argument, "run_folder")), None)
        note = self._folder / "jobs" / f"{run.id}.json" if run and place else None
        folder = str(place.run_folder(run)) if run and place else None
        with self._lock:
            self._check_open()
            job = note and self._earlier(note)
            if job is not None:
                say(f"{run.id}: Slurm job {job.job_id} of an earlier command is still there, and is waited for")
            else:
                job = self._submit(_Job(call, folder))
                if note:
                    write_atomically(note, json.dumps({"job": job.job_id, "local": self._local}).encode())
            self._jobs[job.job_id] = job
        try:
            outcome = self._wait(job)
            if isinstance(outcome.error, StopRequested) and not self._closed.is_set():
                raise WorkerDied(f"Slurm job {job.job_id} was asked to stop by another than this command")
            return outcome
        finally:
            with self._lock:
                self._jobs.pop(job.job_id, None)
            if note and not self._is_alive(job):
                note.unlink(missing_ok=True)

    def _submit(self, job: "_Job") -> Any:
        try:
            return self._executor.submit(job)
        except (self._submitit.core.utils.FailedJobError, subprocess.CalledProcessError, OSError) as error:
            raise DashError(f"Slurm did not take a job ({' '.join(str(error).split())[:500]})") from None

    def _earlier(self, note: Path) -> Any:
        """Return the job that an earlier command submitted for the run, if it is not over."""
        try:
            noted = json.loads(note.read_text(encoding="utf-8"))
            kind = self._submitit.LocalJob if noted["local"] else self._submitit.SlurmJob
            job = kind(self._folder, str(noted["job"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return job if self._is_alive(job) else None

    def _is_alive(self, job: Any) -> bool:
        """Tell whether a job has no result yet and may still get one."""
        if job.paths.result_pickle.exists():
            return False
        if not self._local:
            return job.state.split(" ")[0].upper() in NOT_OVER
        if getattr(job, "_process", None) is not None:
            return job._process.poll() is None
        return _names_job(job.job_id, self._folder)

    def _wait(self, job: Any) -> Outcome:
        """Return a job's outcome; WorkerDied if it ended without, Ended if this command is over."""
        while self._is_alive(job):
            if self._closed.wait(POLL_SECONDS) and not self._settled(job):
                raise Ended("the comparison was stopped while this run trained, or before it")
        try:
            kind, result = job._get_outcome_and_result()
        except self._submitit.core.utils.UncompletedJobError as error:
            if self._closed.is_set():
                raise Ended("the comparison was stopped while this run trained") from None
            state = "" if self._local else f", state {job.state}"
            raise WorkerDied(f"Slurm job {job.job_id} ended without a word{state}: see {job.paths.stderr}") from error
        if kind == "success":
            return result
        last = str(result).strip().splitlines()[-1]
        raise WorkerDied(f"Slurm job {job.job_id} failed ({last[:300]}): see {job.paths.stderr}")

    def _settled(self, job: Any) -> bool:
        """Wait for a job that was asked to stop; return whether it has ended by itself."""
        deadline = time.monotonic() + self.saving_seconds
        while time.monotonic() < deadline:
            if not self._is_alive(job):
                return True
            time.sleep(0.2)
        self._signal(job, "KILL")
        return False

    def _stop(self) -> None:
        with self._lock:
            jobs = list(self._jobs.values())
        if jobs:
            say("stopping: the jobs under way save their state …")
        for job in jobs:
            self._signal(job, "TERM")

    def _signal(self, job: Any, name: str) -> None:
        """Send a job's processes a signal, or take a job that waits out of the queue."""
        if self._local:
            with suppress(ProcessLookupError, PermissionError, ValueError):
                pid = int(job.job_id)
                if name == "KILL" and _names_job(job.job_id, self._folder):
                    os.kill(pid, signal.SIGKILL)
                elif _names_job(job.job_id, self._folder):
                    os.kill(pid, signal.SIGTERM)  # the job's controller passes it on
            return
        waiting = job.state.split(" ")[0].upper() in ("PENDING", "REQUEUED", "UNKNOWN", "CONFIGURING")
        words = [] if waiting or name == "KILL" else [f"--signal={name}"]
        with suppress(OSError, subprocess.SubprocessError):
            subprocess.run(["scancel", *words, job.job_id], capture_output=True, timeout=30, check=False)


class _Job:
    """A call as submitit's jobs do it. When the job is queued again, it takes along what it has seen of progress."""

    def __init__(self, call: Call, folder: str | None = None) -> None:
        self._call, self._folder = call, folder
        self._saved, self._futile = -1, 0

    def __call__(self) -> Outcome:
        """Do the call. Asked by submitit's signal to stop, hand over to submitit, which queues the job again."""
        requeue = signal.getsignal(signal.SIGUSR2)
        outcome = work(self._call)
        if isinstance(outcome.error, StopRequested) and stopping.asked_by() == signal.SIGUSR2 and callable(requeue):
            requeue(signal.SIGUSR2, None)  # does not return
        return outcome

    def checkpoint(self) -> Any:
        """Return the job to queue again; None gives it up, if it twice made no progress."""
        import submitit

        if self._folder is not None:
            saved = saved_steps(Path(self._folder))
            self._futile = 0 if saved > self._saved else self._futile + 1
            self._saved = max(saved, self._saved)
            if self._futile >= LEAST_PROGRESS:
                return None
        return submitit.helpers.DelayedSubmission(self)

    __submitit_checkpoint__ = checkpoint  # its name in later versions of submitit


def _names_job(pid: str, folder: Path) -> bool:
    """Tell whether the process `pid` of this machine is the controller of a local job in a folder."""
    try:
        words = Path(f"/proc/{int(pid)}/cmdline").read_bytes().split(b"\0")
        state = Path(f"/proc/{int(pid)}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
    except (OSError, ValueError, IndexError):
        return False
    return state != "Z" and b"submitit.local._local" in words and os.fsencode(folder) in words
