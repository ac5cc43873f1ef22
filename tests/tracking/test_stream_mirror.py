"""A stream's state in MLflow's registry, asked again only if something changed."""

from dataclasses import replace

import pytest

from tasks.tracking import stream_mirror
from tasks.tracking.registry import MirrorOutcome
from tasks.tracking.stream_mirror import mirror_stream, registry_state
from tests.views.stream_report.streams import identity, stream


@pytest.fixture
def asked(monkeypatch):
    """Answer for MLflow, and keep what it was asked to show."""
    wanted = []

    def mirror(uri, artifact_root, state):
        wanted.append(state)
        return outcomes.pop(0) if outcomes else MirrorOutcome()

    outcomes = []
    monkeypatch.setattr(stream_mirror, "mirror_registry", mirror)
    return wanted, outcomes


def test_released_models_and_an_exported_challenger_have_versions_and_roles(tmp_path):
    state = stream().state
    wanted = registry_state(state, tmp_path)
    assert [model.model for model in wanted.models] == [identity(1), identity(2)]
    assert wanted.aliases == {"champion": identity(2), "previous": identity(1), "challenger": None}
    export = tmp_path / "models" / identity(4) / "export"
    export.mkdir(parents=True)
    (export / "model.json").write_text("{}")
    wanted = registry_state(state, tmp_path)
    assert [model.model for model in wanted.models] == [identity(1), identity(2), identity(4)]
    assert (wanted.aliases["challenger"], wanted.models[2].export) == (identity(4), export)
    assert (wanted.models[2].tags["dashpipe.gate"], wanted.models[1].metrics["accuracy"]) == ("hold", 0.924)
    assert wanted.owner == state.ledger_id


def test_mlflow_is_asked_again_after_a_change_a_failure_or_on_demand(place, asked):
    wanted, outcomes = asked
    folder, state = place.store / "streams" / "photos", stream().state
    outcomes.append(MirrorOutcome(problems=["MLflow's registry: away"]))
    assert not mirror_stream(state, folder, place).complete
    assert mirror_stream(state, folder, place).complete
    assert mirror_stream(state, folder, place).complete
    assert len(wanted) == 2
    assert mirror_stream(state, folder, place, always=True).complete
    assert len(wanted) == 3
    mirror_stream(replace(state, champion=identity(1), previous=identity(2)), folder, place)
    assert len(wanted) == 4
