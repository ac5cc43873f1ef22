"""A run that waits for Prefect to start a task says so; one that does not wait says nothing."""

import time

import pytest

from flows.experiment import tags_of
from tasks import steps
from tests import toy


@pytest.fixture
def delay(monkeypatch):
    """Stand in for Prefect: a task begins after so many seconds, a mutable list of one number."""
    seconds = [0.0]

    def task(function, **options):
        tags.append(options["tags"])

        def called(*arguments):
            time.sleep(seconds[0])
            return function(*arguments)

        return called

    tags = []
    monkeypatch.setattr(steps, "task", task)
    monkeypatch.setattr(steps, "WAITING_SECONDS", 0.2)
    return seconds, tags


def test_a_task_that_prefect_does_not_start_is_named_once_and_one_that_takes_long_is_not(delay, caplog):
    seconds, tags = delay

    @steps.step("train")
    def work(pause):
        time.sleep(pause)
        return "done"

    assert work(0.5) == "done"
    assert caplog.messages == []
    seconds[0] = 0.6
    assert work(0.0) == "done"
    assert len(caplog.messages) == 1
    assert (
        "Prefect has not started its task train in 0 s. The server may not answer, or a concurrency limit"
        in caplog.messages[0]
    )
    assert tags == [["dashpipe-train"]]


def test_every_tag_of_a_run_is_ours_alone():
    run = toy.params().runs()[0]
    assert all(tag.startswith("dashpipe-") for tag in tags_of(run))
    for made in (steps.intervene, steps.train, steps.evaluate, steps.record):
        assert callable(made)
