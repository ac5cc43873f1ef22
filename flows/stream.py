"""The flow of one pass over a stream: receive, train, judge, until nothing is left to do."""

from pathlib import Path

from prefect import flow

from flows.experiment import train_experiments
from tasks.store.place import Place
from tasks.store.stream.folder import StreamFolder
from tasks.store.stream.passing import Verbs, one_pass
from tasks.stream import judge, open_training, receive, seal

TASKS = Verbs(receive, open_training, train_experiments, seal, judge)


@flow(name="arrive", flow_run_name="arrive · {stream.path.name}", persist_result=False, retries=0)
def arrive(stream: StreamFolder, place: Place, only: Path | None = None, wait: bool = True) -> None:
    """Take everything that is pending through one pass, under the stream's lock; print what happens.

    only: a delivery's folder, in place of the inbox. wait: for deliveries that time alone completes, and for the lock.
    """
    with stream.locked(wait=wait):
        for line in one_pass(stream, place, only, wait=wait, verbs=TASKS):
            print(line, flush=True)
