"""Runs on disk as the flows leave them, a step at a time, and what MLflow shows of them."""

import shutil

from tasks.store.progress import mark_progress
from tasks.store.runs import remove_facts, write_facts
from tasks.tracking.client import client_of
from tasks.tracking.failures import Failures
from tasks.tracking.mirror import Mirror
from tests import toy

DATA = toy.dataset()
PARAMS = toy.params(compare={"methods": ["warm", "cold"]})
RUN, OTHER = PARAMS.runs()
FACTS = {"device": "cpu", "cores": 2}


def mirror_of(place, say=lambda message: None, params=PARAMS):
    return Mirror(params, place, lambda: DATA, Failures(say))


def train(place, run=RUN, experiments=None):
    """Train so many experiments more, or all; return the records."""
    folder = place.run_folder(run)
    trajectory = toy.trajectory(folder, run, DATA)
    if experiments is None:
        remove_facts(folder)
    else:
        write_facts(folder, "split", FACTS)
        mark_progress(folder, "training")
    toy.advance(trajectory, experiments)
    if experiments is None:
        mark_progress(folder, "done")
    return trajectory.records


def train_again(place, run=RUN):
    shutil.rmtree(place.run_folder(run))
    return train(place, run)


def shown(mirror, run=RUN):
    """Return MLflow's one run of a key."""
    comparison = mirror._open()
    (found,) = client_of(mirror.uri).search_runs([comparison.experiment_id], f"tags.run_key = '{run.id}'")
    return found


def points(mirror, run=RUN, metric="steps"):
    history = client_of(mirror.uri).get_metric_history(shown(mirror, run).info.run_id, metric)
    return sorted((point.step, point.timestamp, point.value) for point in history)


def expected(records):
    return [(record.experiment, record.finished_at, record.steps) for record in records]


def files(mirror, run=RUN):
    return {file.path for file in client_of(mirror.uri).list_artifacts(shown(mirror, run).info.run_id)}
