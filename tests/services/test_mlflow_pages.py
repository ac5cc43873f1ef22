"""MLflow's pages: those of the user's own server, or of a server that is started over the store's database."""

import pytest

from dash_core.errors import ConfigError, DashError, RecordError
from flows.services import mlflow_pages
from flows.services.mlflow_pages import serve_ui
from tasks.tracking import address
from tests.faults import faulty_server
from tests.system.test_prefect_server import _answering


@pytest.fixture
def said(monkeypatch):
    """The lines that are printed, and the pages that a browser opens."""
    monkeypatch.setattr(mlflow_pages, "start_child", lambda *words, **options: pytest.fail("a server was started"))
    monkeypatch.setattr(mlflow_pages.webbrowser, "open", lambda page: lines.append(f"opened {page}"))
    lines = []
    return lines


@pytest.mark.parametrize(("experiment", "page"), [("7", "/#/experiments/7/runs?"), (None, "")])
def test_the_pages_of_the_users_own_server_are_opened_and_none_is_started(
    tmp_path, monkeypatch, said, experiment, page
):
    with faulty_server() as server:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri.replace("//", "//me:secret@"))
        monkeypatch.setattr(mlflow_pages, "find_experiment", lambda uri, comparison: experiment)
        serve_ui(tmp_path, open_browser=True, comparison="mine", say=said.append)
    assert said[-1].startswith(f"opened {server.uri}{page}")
    assert said[-2].startswith(f"MLflow: {server.uri}{page}")
    assert "secret" not in "".join(said)


def test_an_error_of_the_users_server_is_one_message_without_its_password(tmp_path, monkeypatch, said):
    def refuse(uri, comparison):
        raise ValueError(f"no answer of {uri}")

    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:secret@127.0.0.1:9")
    monkeypatch.setattr(mlflow_pages, "find_experiment", refuse)
    with pytest.raises(
        DashError, match=r"MLflow cannot be asked at http://127.0.0.1:9 .*no answer of http://127"
    ) as error:
        serve_ui(tmp_path, comparison="mine", say=said.append)
    assert "secret" not in str(error.value)


@pytest.mark.parametrize(("endless", "pause"), [(b"x" * 100_000, 0.0), (b"x", 0.05)])
def test_an_answer_without_end_is_not_read_on(tmp_path, monkeypatch, said, endless, pause):
    monkeypatch.setattr(address, "ANSWER_SECONDS", 3.0 if pause == 0 else 0.5)
    with _answering(b"OK", endless=endless, pause=pause) as url:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", url)
        with pytest.raises(DashError, match="sends without end: it is no MLflow server"):
            serve_ui(tmp_path, comparison="mine", say=said.append)


def test_a_workspace_has_its_own_pages(tmp_path, monkeypatch, said):
    monkeypatch.setattr(mlflow_pages, "check_uri", lambda uri: None)  # it asks for the client of Databricks
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "databricks")
    with pytest.raises(ConfigError, match="open its pages in the Databricks workspace"):
        serve_ui(tmp_path, say=said.append)


def test_a_damaged_database_is_named_and_an_address_is_no_option_of_a_process(tmp_path, monkeypatch, said):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / "mlflow.db").write_text("this is no database")
    with pytest.raises(
        RecordError, match=r"mlflow\.db is damaged \(file is not a database\): move it away, and `dashpipe sync`"
    ):
        serve_ui(tmp_path, port=0, say=said.append)

    def start(*words, env, cwd, **pipes):
        assert not any("secret" in word for word in words)
        assert env["MLFLOW_BACKEND_STORE_URI"] == "postgresql://me:secret@db/x"
        assert cwd != tmp_path  # uvicorn imports from there
        raise InterruptedError

    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://me:secret@db/x")
    monkeypatch.setattr(mlflow_pages, "check_uri", lambda uri: None)
    monkeypatch.setattr(mlflow_pages, "start_child", start)
    with pytest.raises(InterruptedError):
        serve_ui(tmp_path, port=0, say=said.append)
