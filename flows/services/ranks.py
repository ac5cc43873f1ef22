"""Start the processes that train one run together, with torchrun; pass signals on, and say how they ended.

They find each other in a file of a folder of their own, and talk over the loopback interface: no port is open to
others. torchrun starts them and ends all when one is lost.
"""

import contextlib
import json
import logging
import os
import pickle
import signal
import subprocess
import tempfile
import time
from pathlib import Path

from dash_core.errors import DashError, StopRequested
from dash_core.parallel.ranks import loopback_environment
from flows.services.child import end_group, run_in_background, start_child
from flows.services.executor import WorkerDied
from tasks.store import stopping

RANK_PROGRAM = "flows.rank"
JOB_FILE, STORE_FILE, RENDEZVOUS_FILE, LOG_FILE = "job", "store", "rendezvous", "log"
SHUTDOWN_SECONDS = 120  # for the ranks to save the run's state after they are asked to stop; then they are killed
POLL_SECONDS = 0.05
LOG_LINES = 5  # of torchrun's own output, in the error of ranks that all ended without a word

logger = logging.getLogger("dash_core.parallel")  # warnings of rank 0 are printed like those of this process


def run_ranks(job: bytes, size: int, threads: int) -> None:
    """Have `size` processes carry out a pickled job (`flows.rank`), and raise the error that ended them.

    The signals that ask this process to stop are passed on, and StopRequested is raised when the state is saved.
    WorkerDied if one of them ends without an answer: it was killed, or ran out of memory.
    """
    with tempfile.TemporaryDirectory(prefix="dashpipe-ranks-") as name, stopping.heeding():
        folder = Path(name)
        (folder / JOB_FILE).write_bytes(job)
        torchrun = _start(folder, size, threads)
        listener = run_in_background(lambda: _pass_warnings_on(torchrun))
        asked = False
        try:
            while torchrun.poll() is None:
                if stopping.requested() and not asked:
                    asked = True
                    with contextlib.suppress(ProcessLookupError):
                        os.killpg(torchrun.pid, signal.SIGTERM)
                time.sleep(POLL_SECONDS)
        finally:
            end_group(torchrun)
            listener.join()
            torchrun.stdout.close()
        _raise_outcome(folder, size, asked)


def _start(folder: Path, size: int, threads: int) -> "subprocess.Popen[bytes]":
    """Start torchrun, which ends with this process."""
    environ = {**os.environ, **loopback_environment(), "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    with (folder / LOG_FILE).open("wb") as log:
        return start_child(
            *("-m", "flows.services.child", "-m", "torch.distributed.run"),
            *("--nnodes", "1", "--nproc-per-node", str(size), "--max-restarts", "0"),
            *("--rdzv-backend", "c10d", "--rdzv-endpoint", str(folder / RENDEZVOUS_FILE)),
            *("--rdzv-conf", "store_type=file", "--rdzv-id", "ranks", "--local-addr", "127.0.0.1"),
            *("--shutdown-timeout", str(SHUTDOWN_SECONDS), "-m", RANK_PROGRAM, str(folder)),
            stdout=subprocess.PIPE,
            stderr=log,
            env=environ,
        )


def _pass_warnings_on(torchrun: "subprocess.Popen[bytes]") -> None:
    """Log the warnings that rank 0 prints, a JSON string each; other lines are not for people."""
    for line in torchrun.stdout:
        with contextlib.suppress(ValueError):
            if isinstance(warning := json.loads(line), str):
                logger.warning("%s", warning)


def say(warning: str) -> None:
    """Send a warning from rank 0 to the process that started it."""
    print(json.dumps(warning), flush=True)


def leave_outcome(folder: Path, rank: int, error: DashError | None) -> None:
    """Write how a rank ended."""
    (folder / f"outcome-{rank}").write_bytes(pickle.dumps(error))


def _log_lines(folder: Path) -> list[str]:
    with contextlib.suppress(OSError):
        return (folder / LOG_FILE).read_text(errors="replace").strip().splitlines()
    return []


def _raise_outcome(folder: Path, size: int, asked: bool = False) -> None:
    """Raise the error that ended the ranks; one that was meant for people comes before what it led to elsewhere.

    asked: whether they were asked to stop, which they may have been before they trained.
    """
    outcomes: dict[int, DashError | None] = {}
    for rank in range(size):
        with contextlib.suppress(OSError, EOFError, pickle.UnpicklingError):
            outcomes[rank] = pickle.loads((folder / f"outcome-{rank}").read_bytes())
    errors = [error for _, error in sorted(outcomes.items()) if error is not None]
    meant = [error for error in errors if not isinstance(error, RankFailed)]
    if meant:
        raise meant[0]
    lost = [rank for rank in range(size) if rank not in outcomes]
    if asked and (errors or lost):  # one that still imported ends without leaving an outcome
        raise StopRequested("the run was asked to stop; the same command continues from its last saved state, if any")
    if lost:
        log = _log_lines(folder)
        words = f"; torchrun: {' / '.join(log[-LOG_LINES:])}" if len(lost) == size and log else ""
        raise WorkerDied(
            f"rank {', '.join(map(str, lost))} of the {size} processes of this run died without a word: most likely it "
            "was killed, or memory ran out; the same command continues from the run's last saved state, also with "
            f"another compare.gpus_per_run{words}"
        )
    if errors:
        sentences, tracebacks = dict.fromkeys(map(str, errors)), [error.details for error in errors if error.details]
        raise RankFailed("; ".join(sentences), "\n".join(tracebacks))


class RankFailed(DashError):
    """A rank ended with an error that is not the user's fault; often because another rank was lost.

    details: the tracebacks, by rank; may be empty.
    """

    def __init__(self, message: str, details: str = "") -> None:
        super().__init__(message)
        self.details = details
