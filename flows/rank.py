"""The program of one of the processes that train a run together: torchrun starts it (`flows.services.ranks`).

Rank 0 does what a process alone would do: it holds the run's lock, is Prefect's subflow and writes the files. The
others take the same steps beside it.
"""

import os
import pickle
import signal
import sys
import traceback
from pathlib import Path

import torch

from dash_core.config import RunConfig
from dash_core.device import choose_device
from dash_core.errors import DashError, StopRequested, without_password
from dash_core.parallel import joining
from dash_core.parts import use_project
from flows.experiment import RunFailed, read_traceback, train_alongside, train_run_in_worker
from flows.services.child import ParentWatch
from flows.services.notices import Sender, handle_warnings
from flows.services.prefect_settings import is_private, read_environment_alone
from flows.services.ranks import JOB_FILE, STORE_FILE, RankFailed, leave_outcome, say
from tasks.store.place import Place


def main(folder: Path) -> int:
    """Carry the job out; return 0 unless it failed."""
    ParentWatch()
    rank, size, number = (int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
    signal.signal(signal.SIGTERM, lambda *_: _end(folder, rank))  # while it trains it saves its state first
    for other in (signal.SIGUSR1, signal.SIGUSR2):  # Slurm may send them to all; the parent passes on what is meant
        signal.signal(other, signal.SIG_IGN)
    run, place, context = pickle.loads((folder / JOB_FILE).read_bytes())
    use_project(place.project)
    device = choose_device(place.device)
    if device.type == "cuda":
        device = torch.device("cuda", number)
        place = place.model_copy(update={"device": f"cuda:{number}"})
    try:
        with joining(device, folder / STORE_FILE, rank, size) as ranks:
            _train_as_first(run, place, context) if ranks.first else train_alongside(run, place)
    except Exception as error:
        leave_outcome(folder, rank, _meant(error, rank, size, place.run_folder(run)))
        return 0 if isinstance(error, StopRequested) else 1
    leave_outcome(folder, rank, None)
    return 0


def _end(folder: Path, rank: int) -> None:
    """End this process, which torchrun ends: another rank is lost, or the run is to stop before it trains."""
    leave_outcome(folder, rank, RankFailed(f"rank {rank} was ended with the others"))
    os._exit(1)


def _train_as_first(run: RunConfig, place: Place, context: bytes) -> None:
    handle_warnings(Sender(say))
    if place.orchestrated and is_private():
        read_environment_alone()
    train_run_in_worker(run, place, context)


def _meant(error: Exception, rank: int, size: int, run_folder: Path) -> DashError:
    """Return an error that can be sent; one that was not raised on purpose as RankFailed, with its traceback."""
    if isinstance(error, RunFailed):
        return RankFailed(f"rank {rank} of {size}: {error}", read_traceback(run_folder))
    if isinstance(error, DashError):
        return error
    text = without_password("".join(traceback.format_exception_only(error)).strip())
    return RankFailed(f"rank {rank} of {size}: {text}", without_password("".join(traceback.format_exception(error))))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
