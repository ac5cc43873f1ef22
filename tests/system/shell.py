"""The program as a user runs it, in a process of its own, and what it leaves behind."""

import contextlib
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from dash_core.records import ChunkRecord, read_records
from flows.command_line.settings import load_params
from flows.services.prefect_process import DATABASE_FILE

ROOT = Path(__file__).parents[2]
PROGRAM = Path(sys.executable).with_name("dashpipe")
MODEL = "model.name=cnn3_small"  # takes a tenth of the seconds of the model of params.yaml
COMPARED = ("compare.methods=[warm, dash]", "seeds=[0]")
TINY = (MODEL, "chunks=3", "dataset.train_size=150", "training.max_epochs=20", *COMPARED)
LOOK = 0.5  # seconds between two looks at the processes: a look costs milliseconds that the command could use
PATIENCE = 600.0  # seconds for one command on a loaded machine
FOREIGN = ("PREFECT_API_URL", "MLFLOW_TRACKING_URI", "DASHPIPE_STORE", "DASHPIPE_DATA")


@dataclass
class Running:
    """A command under way: its outputs in files, every process it ever started by pid."""

    process: subprocess.Popen
    store: Path
    outputs: tuple[Path, Path]
    started: float
    family: dict[int, psutil.Process] = field(default_factory=dict)

    def look(self) -> None:
        with contextlib.suppress(psutil.NoSuchProcess):
            for child in psutil.Process(self.process.pid).children(recursive=True):
                self.family.setdefault(child.pid, child)

    def until(self, condition, seconds: float = PATIENCE) -> bool:
        """Wait for a condition; False if the command ended before, or the time is over."""
        deadline = time.monotonic() + seconds
        seen = 0.0
        while not condition():
            if time.monotonic() - seen > LOOK:
                self.look()
                seen = time.monotonic()
            if self.process.poll() is not None or time.monotonic() > deadline:
                return condition()
            time.sleep(0.01)
        return True

    def kill(self) -> None:
        self.look()
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def workers(self) -> list[psutil.Process]:
        """Return the worker processes: forks of the fork server, which is itself a child."""
        self.look()
        servers = {pid for pid, child in self.family.items() if _is_fork_server(child)}
        return [child for child in self.family.values() if _alive(child) and child.ppid() in servers]

    def survivors(self) -> list[str]:
        """Return the command lines of those of its processes that still live."""
        return [" ".join(child.cmdline()) for child in self.family.values() if _alive(child)]

    def end(self, seconds: float = PATIENCE) -> "Ended":
        try:
            assert self.until(lambda: self.process.poll() is not None, seconds), "the command does not end"
        finally:
            self.process.kill()
            self.process.wait()
        out, err = (path.read_text(encoding="utf-8") for path in self.outputs)
        return Ended(self.process.returncode, out, err, time.monotonic() - self.started, self)


@dataclass
class Ended:
    code: int
    out: str
    err: str
    seconds: float
    running: Running

    @property
    def store(self) -> Path:
        return self.running.store


def start(store: Path, command: str, *arguments: str, settings=TINY, **environment: str) -> Running:
    """Start `dashpipe COMMAND --store STORE --set ...` in a session of its own; nothing is sent to a terminal."""
    store.mkdir(parents=True, exist_ok=True)
    outputs = store.parent / f"{store.name}.out", store.parent / f"{store.name}.err"
    overrides = [word for setting in settings for word in ("--set", setting)]
    environ = {name: value for name, value in os.environ.items() if name not in FOREIGN}
    environ |= {"PREFECT_HOME": str(store.parent / "prefect-home"), **environment}
    with outputs[0].open("w") as out, outputs[1].open("w") as err:
        process = subprocess.Popen(
            [str(PROGRAM), command, *arguments, "--store", str(store), *overrides],
            cwd=ROOT,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            start_new_session=True,
        )
    return Running(process, store, outputs, time.monotonic())


def dashpipe(store: Path, command: str, *arguments: str, settings=TINY, **environment: str) -> Ended:
    return start(store, command, *arguments, settings=settings, **environment).end()


def params(settings=TINY):
    return load_params(ROOT / "params.yaml", overrides=settings)


def records(store: Path, settings=TINY) -> dict[str, list[ChunkRecord]]:
    """Return the records of every run that has any, by 'label seed'."""
    found = {f"{run.method.label} {run.seed}": read_records(store / "runs" / run.id) for run in params(settings).runs()}
    return {name: some for name, some in found.items() if some}


def results(store: Path, settings=TINY) -> dict[str, list[dict]]:
    return {name: [record.result() for record in some] for name, some in records(store, settings).items()}


def weights(store: Path, settings=TINY) -> dict[str, str]:
    """Return the digest of every complete run's weights."""
    files = {run.id: store / "runs" / run.id / "result.json" for run in params(settings).runs()}
    return {name: json.loads(file.read_text())["weights_sha256"] for name, file in files.items() if file.exists()}


def begun(store: Path) -> list[Path]:
    """Return the folders of runs that have recorded a chunk and are not complete."""
    started = [path.parent for path in store.glob("runs/*/chunks.jsonl") if path.stat().st_size]
    return [folder for folder in started if not (folder / "result.json").exists()]


def sql(store: Path, query: str) -> list[tuple]:
    """Return the rows of a query on the private Prefect server's database."""
    with contextlib.closing(sqlite3.connect(store / ".dashpipe" / DATABASE_FILE)) as database:
        return database.execute(query).fetchall()


def mlflow_client(store: Path):
    from mlflow import MlflowClient

    return MlflowClient(f"sqlite:///{store / 'mlflow.db'}")


def mlflow_runs(store: Path, settings=TINY) -> dict:
    """Return MLflow's runs of the comparison by 'label seed'; the summary run as 'summary'."""
    client = mlflow_client(store)
    experiment = client.get_experiment_by_name(params(settings).name)
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    named = {_name(run.data.tags): run for run in runs}
    assert len(named) == len(runs)
    return named


def processes_of(store: Path) -> list[str]:
    """Return the command lines that name the store."""
    lines = []
    for process in psutil.process_iter(["cmdline", "status"]):
        line = " ".join(process.info["cmdline"] or [])
        if str(store) in line and process.info["status"] != psutil.STATUS_ZOMBIE and process.pid != os.getpid():
            lines.append(line)
    return lines


def within(seconds: float, condition) -> bool:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.1)
    return condition()


def free_port() -> int:
    """Return a port of this machine on which nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


def _name(tags) -> str:
    return "summary" if tags["kind"] == "comparison" else f"{tags['method']} {tags['seed']}"


def _alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _is_fork_server(process: psutil.Process) -> bool:
    try:
        return "multiprocessing.forkserver" in " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return False
