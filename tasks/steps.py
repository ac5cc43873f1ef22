"""The steps of one experiment as Prefect tasks: intervene, train, evaluate, record.

The trajectory passes between them in memory; Prefect never stores it and caches nothing. The run's folder is the
truth, and a run that starts again continues from it.
"""

from functools import partial

from prefect import task
from prefect.cache_policies import NO_CACHE

from dash_core.evaluation import Evaluation
from dash_core.records import ChunkRecord
from dash_core.trajectory import Intervened, Trained, Trajectory
from tasks.store.progress import ProgressWriter

# no retries, whatever Prefect's settings say: a stop is not a failure, and a failure leaves half-trained weights
step = partial(task, cache_policy=NO_CACHE, persist_result=False, retries=0)


@step(task_run_name="experiment {experiment} · intervene", tags=["intervene"])
def intervene(trajectory: Trajectory, experiment: int) -> Intervened:
    """Change the learner before it trains on a new chunk."""
    return trajectory.intervene(experiment)


@step(task_run_name="experiment {experiment} · train", tags=["train"])
def train(trajectory: Trajectory, experiment: int, intervened: Intervened) -> Trained:
    """Train on the experiment's chunks, until its stop rule or its number of epochs is reached."""
    return trajectory.train(experiment, intervened)


@step(task_run_name="experiment {experiment} · evaluate", tags=["evaluate"])
def evaluate(trajectory: Trajectory, experiment: int) -> Evaluation:
    """Measure the learner on the test set."""
    return trajectory.evaluate(experiment)


@step(task_run_name="experiment {experiment} · record", tags=["record"])
def record(
    trajectory: Trajectory, experiment: int, trained: Trained, evaluation: Evaluation, progress: ProgressWriter
) -> ChunkRecord:
    """Write the experiment's record to disk, then update the run's progress file."""
    chunk_record = trajectory.record(experiment, trained, evaluation)
    progress.after_experiment(chunk_record)
    return chunk_record
