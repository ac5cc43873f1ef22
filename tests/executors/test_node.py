"""The preflight of a machine: what it must have in common with the command, refused by name and with the remedy."""

import os
import shutil
import subprocess
import sys
from dataclasses import replace

import pytest

from flows.services.clusters import node
from flows.services.clusters.node import Answer, examine, fault_of, question_of
from flows.services.clusters.remote import Call, work
from tests import jobs
from tests.system.shell import ROOT

ASK = """
import pickle, sys
from flows.services.clusters.node import examine
question = pickle.loads(bytes.fromhex(sys.stdin.read()))
sys.stdout.write(pickle.dumps(examine(question)).hex())
"""


@pytest.fixture
def question(tmp_path):
    with question_of(tmp_path / "store" / ".dashpipe" / "locks", "cpu", None) as question:
        yield question


@pytest.fixture
def answer(question) -> Answer:
    return Answer(
        host="node-7",
        token=question.token,
        excluded=True,
        code=question.code,
        versions=question.versions,
        device_type="cpu",
        device_name="a processor",
        bf16=False,
        api_answers=False,
    )


def test_another_process_of_the_same_code_sees_the_store_and_is_kept_out(question):
    import pickle

    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    words = [sys.executable, "-c", ASK]
    sent = pickle.dumps(question).hex()
    done = subprocess.run(words, input=sent, capture_output=True, text=True, env=environment, timeout=300, check=True)
    answer = pickle.loads(bytes.fromhex(done.stdout))
    assert (answer.token, answer.excluded, answer.code) == (question.token, True, question.code)
    assert fault_of(question, answer) is None
    assert (answer.device_type, answer.api_answers) == ("cpu", False)


def test_a_machine_with_one_changed_line_of_training_code_is_refused(question, tmp_path):
    import pickle

    for package in ("dash_core", "tasks", "flows"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    with (tmp_path / "dash_core" / "learner.py").open("a") as file:
        file.write("# changed\n")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    sent = pickle.dumps(question).hex()
    words = [sys.executable, "-P", "-c", ASK]
    done = subprocess.run(words, input=sent, capture_output=True, text=True, env=environment, timeout=300, check=True)
    answer = pickle.loads(bytes.fromhex(done.stdout))
    assert answer.token == question.token
    assert "has other training code" in fault_of(question, answer)


def test_nothing_is_left_in_the_store_after_the_question(tmp_path):
    with question_of(tmp_path / "locks", "cpu", None) as question:
        assert question.token_file.exists()
    assert list((tmp_path / "locks").iterdir()) == []


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"token": None, "reason": "No such file"}, r"node-7 does not see the store .*store \(No such file\).*--store"),
        ({"token": "another"}, r"node-7 does not see the store .*another file is there"),
        ({"excluded": False}, r"a lock on .* does not keep node-7 out.*NFS: without nolock.*--store"),
        ({"code": "f" * 64}, r"node-7 has other training code \(ffffffffff\).*the same commit without changes"),
        ({"device_name": None}, r"compare.device: cpu is not on node-7"),
    ],
)
def test_a_machine_that_differs_is_refused_by_name_with_the_remedy(question, answer, changed, words):
    assert fault_of(question, answer) is None
    import re

    assert re.search(words, fault_of(question, replace(answer, **changed)))


@pytest.mark.parametrize("name", ["torch", "Python"])
def test_another_version_is_named_with_both_numbers(question, answer, name):
    other = replace(answer, versions={**answer.versions, name: "0.1"})
    fault = fault_of(question, other)
    assert f"node-7 has {name} 0.1, and this machine {question.versions[name]}" in fault


def test_a_file_system_without_locks_keeps_nobody_out(question, monkeypatch):
    class NoLock:
        def __init__(self, *given, **named) -> None:
            pass

        def acquire(self, timeout) -> None:
            raise OSError(38, "Function not implemented")

    monkeypatch.setattr(node, "FileLock", NoLock)
    assert examine(question).excluded is False


def test_one_changed_line_of_training_code_is_refused_before_the_call(question, monkeypatch):
    monkeypatch.setattr("tasks.store.code.code_digest", lambda: "0" * 64)
    outcome = work(Call.of(jobs.whoami, (), 1, question))
    assert outcome.value is None
    assert "has other training code (0000000000)" in str(outcome.error)


def test_a_call_returns_its_value_or_error_with_the_warnings_of_the_science(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    assert work(Call.of(jobs.threads, (), 3)).value[0] == "3"
    refused = work(Call.of(jobs.refuse, ("no",), 1))
    assert (type(refused.error).__name__, str(refused.error)) == ("ConfigError", "refused: no")
    divided = work(Call.of(jobs.divide, (1, 0), 1))
    assert "ZeroDivisionError: division by zero\nTraceback" in str(divided.error)
    assert work(Call.of(jobs.warn, ("careful",), 1)).warnings == ("careful",)


def test_relative_paths_are_those_of_the_folder_in_which_the_command_was_started(tmp_path, monkeypatch):
    (tmp_path / "command").mkdir()
    monkeypatch.chdir(tmp_path / "command")
    call = Call.of(os.getcwd, (), 1)
    monkeypatch.chdir(tmp_path)  # as a process of the cluster starts elsewhere
    assert work(call).value == str(tmp_path / "command")
    (tmp_path / "command").rmdir()
    os.chdir(tmp_path)
    assert work(call).value == str(tmp_path)  # a machine that lacks the folder
