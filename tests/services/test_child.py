"""Child processes: found healthy or not, ended with their group, and with their parent however it dies."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import psutil
import pytest

from flows.services import child
from flows.services.child import end_group, start_child, wait_healthy
from flows.services.environment import prepare_environment
from tests.system.shell import within

ROOT = Path(__file__).parents[2]
SLEEP = "import time; time.sleep(60)"
STUBBORN = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); {SLEEP}"
WATCHED = f"from flows.services.child import ParentWatch; ParentWatch(); {SLEEP}"
PARENT = """
    import subprocess, sys, time
    from flows.services.child import start_child
    running = start_child(*sys.argv[1:])
    print(running.pid, flush=True)
    time.sleep(60)
"""


def lives(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_a_child_is_healthy_once_it_says_so_and_not_if_it_ends_or_takes_too_long():
    running = start_child("-c", SLEEP)
    answers = iter([False, False, True])
    assert wait_healthy(running, lambda seconds: next(answers), 30)
    assert not wait_healthy(running, lambda seconds: False, 0.2)
    end_group(running)
    assert not wait_healthy(running, lambda seconds: pytest.fail("asked a process that ended"), 30)


def test_a_child_that_takes_no_notice_is_ended_by_force(monkeypatch):
    monkeypatch.setattr(child, "END_SECONDS", 0.5)
    with start_child("-c", STUBBORN, stdout=subprocess.PIPE) as running:
        running.stdout.readline()
        end_group(running)
    assert running.returncode < 0


@pytest.mark.parametrize("words", [("-c", WATCHED), ("-m", "flows.services.child", "-c", SLEEP)])
def test_a_child_ends_with_its_killed_parent_and_so_does_a_program_that_knows_nothing_of_it(words):
    program = [sys.executable, "-c", textwrap.dedent(PARENT), *words]
    with subprocess.Popen(program, stdout=subprocess.PIPE, text=True, cwd=ROOT) as parent:
        running = psutil.Process(int(parent.stdout.readline()))
        wanted = 1 if "-m" in words else 0
        assert within(30, lambda: len(running.children()) == wanted)
        family = [running.pid, *(process.pid for process in running.children())]
        assert within(30, lambda: running.num_threads() > 1)  # it watches
        parent.kill()
    assert within(30, lambda: not any(map(lives, family)))


def test_a_program_s_exit_code_is_passed_on():
    assert start_child("-m", "flows.services.child", "-c", "raise SystemExit(7)").wait(60) == 7


def test_no_child_imports_from_the_working_folder(tmp_path, monkeypatch):
    (tmp_path / "json.py").write_text("raise SystemExit('theirs')")
    monkeypatch.chdir(tmp_path)
    assert start_child("-c", "import json").wait(60) == 0
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONSAFEPATH"}
    program = [sys.executable, "-c", "import json"]  # how multiprocessing and others start theirs
    assert subprocess.run(program, env=environment, stderr=subprocess.DEVNULL).returncode == 1
    prepare_environment(environment)
    assert subprocess.run(program, env=environment).returncode == 0
    environment["PYTHONPATH"] = f"{os.pathsep}{tmp_path / 'other'}"  # an empty entry stands for the working folder
    assert subprocess.run(program, env=environment, stderr=subprocess.DEVNULL).returncode == 1
    prepare_environment(environment)
    assert environment["PYTHONPATH"] == str(tmp_path / "other")
    assert subprocess.run(program, env=environment).returncode == 0
