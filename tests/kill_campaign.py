"""Kill and stop commands where it hurts most, again and again: `python -m tests.kill_campaign --trials 200 --seed 0`.

Each trial starts a command in a new store, or a new project under DVC, and ends it with SIGKILL, SIGTERM or SIGINT at a
random moment after a chosen event: its start, the appearance of a database, a record, a state. It may be ended several
times. Then the command is given again without disturbance. It must succeed, say nothing on stderr, and leave what an
undisturbed command leaves: the same records and weights, the same rows of the table, one MLflow run for each run with
one point an experiment and one model, no process and no temporary file.

Trials are numbered, and each is drawn from the seed and its number. Results are appended to FOLDER/trials.jsonl: a
campaign that was stopped goes on with the next trial.
"""

import argparse
import collections
import json
import random
import re
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil
import yaml

from dash_core.records import read_records
from tests.system import shell
from tests.system.test_pipeline import Project

SETTINGS = (
    shell.MODEL,
    "chunks=2",
    "seeds=[0]",
    "dataset.train_size=80",
    "training.max_epochs=2",
    "compare.methods=[warm, dash]",
    "compare.checkpoint_seconds=0.2",
)
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
LONGEST = 4.0  # seconds after an event until a command is killed
PATIENCE = 300.0
REPRODUCED = ("figure-1", "--scale", "smoke")


@dataclass(frozen=True)
class Aim:
    """Where a command is hit: after an event in its store, by name. weight: how often it is drawn."""

    name: str
    command: str
    event: Callable[[Path], bool]
    weight: int = 1


def _exists(*names: str) -> Callable[[Path], bool]:
    return lambda store: any(next(store.glob(name), None) is not None for name in names)


AIMS = (
    Aim("start", "compare", lambda store: True, 3),
    Aim("services", "compare", _exists(".dashpipe/*"), 3),
    Aim("prefect's database", "compare", _exists(".dashpipe/prefect.db*"), 3),
    Aim("mlflow's database", "compare", _exists("mlflow.db", ".mlflow-*"), 4),
    Aim("mlflow's artifacts", "compare", _exists("mlartifacts/*/*"), 3),
    Aim("training", "compare", _exists("runs/*/state.ckpt"), 3),
    Aim("a result", "compare", _exists("runs/*/result.json"), 3),
    Aim("the page", "compare", _exists("comparisons/*/table.md"), 1),
    Aim("sync", "sync", lambda store: True, 4),
    Aim("reproduce's start", "reproduce", lambda store: True, 1),
    Aim("reproduce's runs", "reproduce", _exists("runs/*/config.yaml"), 2),
    Aim("dvc's start", "dvc", lambda store: True, 2),
    Aim("dvc's training", "dvc", _exists("runs/*/config.yaml"), 2),
)


class Broken(AssertionError):
    """A trial did not end as an undisturbed command does."""


def draw(seed: int, number: int) -> tuple[Aim, random.Random]:
    chance = random.Random(f"{seed} {number}")
    return chance.choices(AIMS, [aim.weight for aim in AIMS])[0], chance


class Campaign:
    """The trials of one folder, with the undisturbed results that they are compared with."""

    def __init__(self, folder: Path, seed: int, most: int) -> None:
        self.folder, self.seed, self.most = folder, seed, most
        folder.mkdir(parents=True, exist_ok=True)
        self.log = folder / "trials.jsonl"

    def run(self, trials: int) -> int:
        done = [json.loads(line) for line in self.log.read_text().splitlines()] if self.log.exists() else []
        for number in range(len(done), trials):
            aim, chance = draw(self.seed, number)
            started, broke, hits = time.monotonic(), None, []
            try:
                hits = self.trial(number, aim, chance)
            except (Broken, AssertionError) as error:
                broke = str(error)
            except Exception:
                broke = traceback.format_exc()
            row = {"trial": number, "aim": aim.name, "hits": hits, "broke": broke}
            row["seconds"] = round(time.monotonic() - started, 1)
            done.append(row)
            with self.log.open("a") as log:
                log.write(json.dumps(row) + "\n")
            print(f"{number:4} {aim.name:20} {' '.join(hits)}  {'BROKE ' + broke if broke else 'equal'}", flush=True)
        return report(done)

    def trial(self, number: int, aim: Aim, chance: random.Random) -> list[str]:
        """Do one trial, and return its hits; Broken says what is not as it should be. Its store stays if it broke."""
        folder = self.folder / f"trial-{number}"
        shutil.rmtree(folder, ignore_errors=True)
        try:
            way = {"dvc": self._in_dvc, "reproduce": self._reproduced}.get(aim.command, self._in_store)
            hits = way(folder, aim, chance)
        except BaseException:
            end_all(folder)
            raise
        shutil.rmtree(folder)
        return hits

    def _in_store(self, folder: Path, aim: Aim, chance: random.Random) -> list[str]:
        store = folder / "store"
        store.mkdir(parents=True)
        if aim.command == "sync":
            for part in ("runs", "splits"):
                shutil.copytree(self.undisturbed() / part, store / part)
        hits = []
        for _ in range(chance.randint(1, self.most)):
            running = shell.start(store, aim.command, settings=SETTINGS)
            hits.append(hit(running.process, lambda: aim.event(store), chance))
            running.until(lambda: False, seconds=0.1)
            if not shell.within(30, lambda: not processes_of(store)):
                raise Broken(f"processes live on after {hits[-1]}: {processes_of(store)}")
        for command in ("compare", "sync"):
            ended = shell.dashpipe(store, command, settings=SETTINGS)
            if (ended.code, ended.err) != (0, ""):
                raise Broken(f"after {hits}, {command}: exit code {ended.code}: {ended.err[-1500:]}")
        self._compare(store, f"after {hits}")
        return hits

    def _compare(self, store: Path, when: str) -> None:
        whole = self.undisturbed()
        if shell.results(store, SETTINGS) != shell.results(whole, SETTINGS):
            raise Broken(f"{when}: other records")
        if shell.weights(store, SETTINGS) != shell.weights(whole, SETTINGS):
            raise Broken(f"{when}: other weights")
        if table(store) != table(whole):
            raise Broken(f"{when}: another table")
        client, runs = shell.mlflow_client(store), shell.mlflow_runs(store, SETTINGS)
        if {name: run.info.status for name, run in runs.items()} != dict.fromkeys(runs, "FINISHED") or len(runs) != 3:
            raise Broken(f"{when}: MLflow shows {[(name, run.info.status) for name, run in runs.items()]}")
        for name, run in runs.items():
            points = [] if name == "summary" else client.get_metric_history(run.info.run_id, "test_accuracy")
            if name != "summary" and sorted(point.step for point in points) != [1, 2]:
                raise Broken(f"{when}: MLflow has the points {[point.step for point in points]} of {name}")
        models = client.search_logged_models([next(iter(runs.values())).info.experiment_id])
        if len(models) != 2:
            raise Broken(f"{when}: {len(models)} logged models of 2 runs")
        if litter := [str(path) for path in store.rglob(".*.tmp")] + [str(path) for path in store.glob(".mlflow-*")]:
            raise Broken(f"{when}: left behind {litter}")

    def undisturbed(self) -> Path:
        """Return the store of a command that nobody disturbed."""
        store = self.folder / "undisturbed" / "store"
        if not (self.folder / "undisturbed" / "done").exists():
            shutil.rmtree(store, ignore_errors=True)
            ended = shell.dashpipe(store, "compare", settings=SETTINGS)
            assert (ended.code, ended.err) == (0, ""), ended.err
            (self.folder / "undisturbed" / "done").touch()
        return store

    def _reproduced(self, folder: Path, aim: Aim, chance: random.Random) -> list[str]:
        store = folder / "store"
        store.mkdir(parents=True)
        hits = []
        for _ in range(chance.randint(1, self.most)):
            running = shell.start(store, "reproduce", *REPRODUCED, settings=())
            hits.append(hit(running.process, lambda: aim.event(store), chance))
            if not shell.within(30, lambda: not processes_of(store)):
                raise Broken(f"processes live on after {hits[-1]}: {processes_of(store)}")
        whole = self.folder / "reproduced" / "store"
        for place in [store] if (self.folder / "reproduced" / "done").exists() else [whole, store]:
            ended = shell.dashpipe(place, "reproduce", *REPRODUCED, settings=())
            if (ended.code, ended.err) != (0, ""):
                raise Broken(f"after {hits}, reproduce: exit code {ended.code}: {ended.err[-1500:]}")
        (self.folder / "reproduced" / "done").touch()
        if science(store) != science(whole):
            raise Broken(f"after {hits}: other records")
        return hits

    def _in_dvc(self, folder: Path, aim: Aim, chance: random.Random) -> list[str]:
        folder.mkdir(parents=True)
        project = Project.new(folder / "project")
        project.change(**{name: value for name, value in _nested(SETTINGS).items() if name != "compare"})
        project.change(compare={"methods": ["dash"]})
        project.commit("the settings")
        hits = []
        for _ in range(chance.randint(1, self.most)):
            running = project.start("dvc", "repro", "train@dash")
            hits.append(hit(running, lambda: aim.event(project.folder), chance))
            running.communicate()
            if not shell.within(30, lambda: not processes_of(project.folder)):
                raise Broken(f"processes live on after {hits[-1]}: {processes_of(project.folder)}")
        project.run("dvc", "repro", "tables")
        run = shell.params(SETTINGS).run("dash", 0)
        records = read_records(project.results.run_folder(run))
        expected = read_records(self.undisturbed() / "runs" / run.id)
        if [record.result() for record in records] != [record.result() for record in expected]:
            raise Broken(f"after {hits}: other records")
        if project.repro("tables"):
            raise Broken(f"after {hits}: a second repro did something")
        return hits


def hit(process: subprocess.Popen, event: Callable[[], bool], chance: random.Random) -> str:
    """End a command by a random signal at a random moment after an event; return which, and when."""
    number, delay = chance.choice(SIGNALS), chance.uniform(0, LONGEST)
    started = time.monotonic()
    while not event() and process.poll() is None and time.monotonic() - started < PATIENCE:
        time.sleep(0.01)
    try:
        process.wait(delay)
        return "ended before"
    except subprocess.TimeoutExpired:
        process.send_signal(number)
    try:
        process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        raise Broken(f"{number.name} after {delay:.1f} s: the command did not end within {PATIENCE:.0f} s") from None
    return f"{number.name}@{delay:.1f}"


def processes_of(folder: Path) -> list[str]:
    """Return the command lines of processes that name the folder, or work in it."""
    lines = []
    for process in psutil.process_iter(["pid", "cmdline", "cwd", "status"]):
        line = " ".join(process.info["cmdline"] or [])
        inside = (process.info["cwd"] or "").startswith(str(folder))
        if (str(folder) in line or inside) and process.info["status"] != psutil.STATUS_ZOMBIE:
            lines.append(f"{process.info['pid']} {line}")
    return lines


def end_all(folder: Path) -> None:
    for line in processes_of(folder):
        try:
            psutil.Process(int(line.split()[0])).kill()
        except psutil.NoSuchProcess:
            continue


def science(store: Path) -> dict[str, list[dict]]:
    """Return what every run of a store gave."""
    return {path.name: [record.result() for record in read_records(path)] for path in (store / "runs").iterdir()}


def table(store: Path) -> list[list[str]]:
    """Return the rows of the comparison's table without seconds."""
    path = store / "comparisons" / shell.params(SETTINGS).name / "table.csv"
    lines = [line.split(",") for line in path.read_text().splitlines()]
    timed = [number for number, name in enumerate(lines[0]) if re.match("seconds", name)]
    return [[cell for number, cell in enumerate(line) if number not in timed] for line in lines]


def report(rows: list[dict]) -> int:
    """Print how many hits of each aim ended equal, and what broke; return the number of broken trials."""
    broke = [row for row in rows if row["broke"]]
    for aim in AIMS:
        own = [row for row in rows if row["aim"] == aim.name]
        hits = collections.Counter(word.partition("@")[0] for row in own for word in row["hits"])
        equal = sum(not row["broke"] for row in own)
        print(f"{aim.name:20} {equal} of {len(own)} equal; {', '.join(f'{n} {name}' for name, n in hits.items())}")
    print(f"{len(rows)} trials, {sum(len(row['hits']) for row in rows)} hits, {len(broke)} broke")
    for row in broke:
        print(f"  trial {row['trial']} ({row['aim']}): {row['broke']}")
    return len(broke)


def _nested(settings: tuple[str, ...]) -> dict:
    content: dict = {}
    for setting in settings:
        name, _, value = setting.partition("=")
        section, _, key = name.partition(".")
        if key:
            content.setdefault(section, {})[key] = yaml.safe_load(value)
        else:
            content[section] = yaml.safe_load(value)
    return content


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--hits", type=int, default=4, help="the most kills and stops of a trial")
    parser.add_argument("--folder", type=Path, default=Path("kill-campaign"), help="where stores and results are kept")
    given = parser.parse_args()
    return int(Campaign(given.folder.resolve(), given.seed, given.hits).run(given.trials) > 0)


if __name__ == "__main__":
    sys.exit(main())
