"""Private parts of libraries that docs/private-parts.md lists: each is where we expect it, and can be done without."""

import asyncio
import importlib
import inspect
import json
import multiprocessing
import os
import re
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from operator import attrgetter
from pathlib import Path

import mlflow
import pytest
import torch

from flows.command_line import dvc_project, under_dvc
from flows.services import prefect_process, prefect_server, prefect_settings
from flows.services.prefect_settings import private_environment, private_settings
from flows.services.workers import _processes_of
from tasks.tracking import charts
from tests import jobs

PARTS = {
    "prefect.settings.base": "PrefectBaseSettings.settings_customise_sources",
    "prefect.context": "refresh_global_settings_context GLOBAL_SETTINGS_CONTEXT serialize_context hydrated_context",
    "prefect.logging.configuration": "setup_logging",
    "prefect._internal.concurrency.services": "QueueService.drain_all",
    "prefect.server.database": "provide_database_interface",
    "prefect.server.database.configurations": "AioSqliteConfiguration",
    "prefect.server.database.dependencies": "temporary_database_config",
    "prefect.server.services.task_run_recorder": "record_bulk_task_run_events",
    "prefect.server.utilities.messaging.memory": "METRICS",
    "uvicorn": "Server.capture_signals",
    "multiprocessing.forkserver": "ensure_running",
    "torch": "_foreach_mul_ _foreach_clamp_min_ _foreach_norm _foreach_add_",
    "torch.utils.flop_counter": "_FlopCounterMode.__torch_dispatch__",
    "torch.optim": "Optimizer.zero_grad.__wrapped__ Optimizer.state_dict.__wrapped__",
}
PAGE = Path(__file__).parents[2] / "docs" / "private-parts.md"
PAGES_OF_MLFLOW = Path(mlflow.__file__).parent / "server" / "js" / "build" / "static" / "js"


@pytest.mark.filterwarnings("default")  # Prefect's own, of its server's import
@pytest.mark.parametrize("module", PARTS)
def test_a_private_part_is_where_we_expect_it_and_listed(module):
    page = PAGE.read_text()
    for name in PARTS[module].split():
        attrgetter(name)(importlib.import_module(module))
        assert name.removesuffix(".__wrapped__").split(".")[-1] in page, f"{module}.{name}"


def test_a_recorder_of_prefect_takes_one_batch_of_events():
    from prefect.server.services import task_run_recorder

    recorder = inspect.unwrap(task_run_recorder.record_bulk_task_run_events)
    assert inspect.iscoroutinefunction(recorder)
    assert len(inspect.signature(recorder).parameters) == 1


def test_an_executor_lists_its_processes_and_ours_are_found_without_the_list():
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as executor:
        pid = executor.submit(jobs.whoami).result()
        assert [process.pid for process in _processes_of(executor)] == [pid]
        assert [process.pid for process in _processes_of(object())] == [pid]


def test_pages_of_mlflow_read_the_settings_that_we_write():
    (main,) = PAGES_OF_MLFLOW.glob("main.*.js")
    written = {*json.loads(charts.settings()), "viewStateShareKey", "mlflow.sharedViewState"}
    text = "".join(path.read_text() for path in PAGES_OF_MLFLOW.glob("*.js"))
    assert "sharedViewState" in main.read_text()
    assert {word for word in written if not re.search(rf"\b{re.escape(word)}\b", text)} == set()


def test_dvc_names_the_process_that_runs_a_stage_where_we_look(tmp_path):
    from dvc.fs import localfs
    from dvc.repo.experiments.utils import EXEC_TMP_DIR
    from dvc.rwlock import rwlock

    (tmp_path / ".dvc" / "tmp").mkdir(parents=True)
    assert under_dvc.running_dvc(tmp_path) == set()
    with rwlock(str(tmp_path / ".dvc" / "tmp"), localfs, "dvc repro", [], [str(tmp_path / "results")], False):
        assert under_dvc.running_dvc(tmp_path) == {os.getpid()}
    assert dvc_project.EXPERIMENTS[-1] == EXEC_TMP_DIR


def test_layers_of_torch_call_the_convolution_that_ours_replace():
    class Seen(torch.nn.Conv2d):
        def _conv_forward(self, *arguments):
            raise InterruptedError

    with pytest.raises(InterruptedError):
        Seen(1, 1, 1)(torch.zeros(1, 1, 1, 1))


def test_without_a_way_to_empty_prefects_queues_they_are_waited_for(monkeypatch):
    importlib.import_module("prefect")
    monkeypatch.setattr(prefect_server, "UNDRAINED_SECONDS", 0.2)
    monkeypatch.setattr(prefect_server, "lost_server_error", lambda seconds: None)
    monkeypatch.setitem(sys.modules, "prefect._internal.concurrency.services", None)
    started = time.monotonic()
    prefect_server.send_everything()
    assert time.monotonic() - started >= 0.2


def test_without_prefects_counts_of_events_they_are_waited_for(monkeypatch):
    monkeypatch.setattr(prefect_process, "UNCOUNTED_EVENTS_SECONDS", 0.2)
    monkeypatch.setitem(sys.modules, "prefect.server.utilities.messaging.memory", None)
    started = time.monotonic()
    asyncio.run(prefect_process.wait_until_recorded(20))
    assert 0.2 <= time.monotonic() - started < 10


def test_without_prefects_recorder_of_batches_nothing_is_replaced(monkeypatch):
    from prefect.server.services import task_run_recorder

    monkeypatch.delattr(task_run_recorder, "record_bulk_task_run_events")
    prefect_process.finish_batches_when_stopped()
    assert not hasattr(task_run_recorder, "record_bulk_task_run_events")


def test_without_prefects_list_of_sources_the_environment_is_still_ours(tmp_path, monkeypatch):
    from prefect.settings import Settings

    monkeypatch.setenv("PREFECT_TASKS_DEFAULT_RETRIES", "2")
    monkeypatch.setattr(prefect_settings, "SETTINGS_SOURCES", "moved_elsewhere")
    with private_environment(tmp_path), private_settings():
        assert Settings().tasks.default_retries == 0
