"""Items of the paper on disk: each has an offline page and a record in `reproduction/<item>/<scale>` of the store."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE

from dash_core.comparison import Params
from dash_core.config import digest_of
from dash_core.errors import RecordError
from dash_core.files import write_atomically
from dash_core.views.reproduction.digest import digest
from dash_core.views.reproduction.items_theory import simulated
from dash_core.views.reproduction.outcome import Measured
from dash_core.views.reproduction.page import item_html
from dash_core.views.reproduction.reproduced import Reproduced
from dash_core.views.rules import FIXED_SEEDS, Rule
from tasks.store.comparison_folder import machines_of
from tasks.store.datasets import open_dataset, open_plan
from tasks.store.evidence import gather
from tasks.store.place import Place
from tasks.store.results import describe
from tasks.store.runs import facts

PAGE_FILE, RESULT_FILE = "index.html", "result.json"


def item_folder(store: Path, item: str, scale: str, overrides: Sequence[str] = (), rule: Rule = FIXED_SEEDS) -> Path:
    """Folder of one item at one scale; with overrides, or verdicts by the sequential rule, it has its own folder."""
    decided = "-until-decided" if rule.sequential else ""
    changed = f"-{digest_of(sorted(overrides))[:8]}" if overrides else ""
    return store / "reproduction" / item / f"{scale}{decided}{changed}"


@task(task_run_name="simulate {key}", cache_policy=NO_CACHE, persist_result=False, retries=0)
def simulate(key: str, params: Params, place: Place) -> Measured:
    """Simulate feature learning with the settings of one comparison."""
    return Measured(params, simulated(params.theory), [facts(place)])


def measured_runs(params: Params, place: Place) -> Measured:
    """Return the runs of a comparison that are complete on its data, without training any."""
    dataset = open_dataset(params.dataset, place)
    label = params.compare.methods[0]
    splits = {seed: open_plan(params.run(label, seed), dataset, place).digest for seed in params.seeds}
    evidence = gather(params, place, splits, describe(dataset))
    return Measured(params, evidence.methods, machines_of(evidence))


@task(task_run_name="publish {reproduced.item.name}", cache_policy=NO_CACHE, persist_result=False, retries=0)
def publish_item(reproduced: Reproduced, place: Place) -> Path:
    """Write the item's page and, last, its record; return the page."""
    folder = item_folder(place.store, reproduced.item.name, reproduced.scale, reproduced.overrides, reproduced.rule)
    write_atomically(folder / PAGE_FILE, item_html(reproduced).encode())
    write_atomically(folder / RESULT_FILE, (json.dumps(reproduced.result(), indent=2) + "\n").encode())
    return folder / PAGE_FILE


def read_results(
    store: Path, items: Sequence[str], scale: str, overrides: Sequence[str] = (), rule: Rule = FIXED_SEEDS
) -> list[dict[str, Any]]:
    """Return the records of the items reproduced at this scale, in the given order; RecordError if one is damaged."""
    records = []
    for item in items:
        path = item_folder(store, item, scale, overrides, rule) / RESULT_FILE
        try:
            records.append(json.loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            continue
        except (OSError, ValueError) as error:
            raise RecordError(f"{path} cannot be read ({error}): reproduce {item} again") from None
    return records


def write_summary(results: Sequence[dict[str, Any]], path: Path) -> None:
    """Write a table of all items as markdown; RecordError if nothing was reproduced."""
    if not results:
        raise RecordError("no item has been reproduced at this scale yet: name some, or all, in the same command")
    write_atomically(path, digest(results).encode())
