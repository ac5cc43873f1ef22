"""MLflow's registry shows what a stream's ledger says, after any interruption, and never overwrites a person."""

from dataclasses import replace

import numpy as np
import pytest

from tasks.tracking import registry as registry_module
from tasks.tracking.address import artifact_root, tracking_uri
from tasks.tracking.client import client_of
from tasks.tracking.registry import RegisteredModelState, RegistryState, mirror_registry
from tests.exporting.models import NAMES, exported, images
from tests.faults import faulty_server

ONE, TWO, THREE = "a1" * 6, "b2" * 6, "c3" * 6


@pytest.fixture
def uri(place):
    return tracking_uri(place.store)


@pytest.fixture
def no_files(monkeypatch):
    """Write a file instead of a model: the exporter takes seconds."""

    def write(export, folder, model):
        folder.mkdir(parents=True)
        (folder / "MLmodel").write_text(str(export))

    monkeypatch.setattr(registry_module, "write_mlflow_model", write)


def state(place, *models, champion=None, previous=None, challenger=None, owner="f" * 64):
    return RegistryState(
        "photos",
        owner,
        [RegisteredModelState(m, place.store / m, {"dashpipe.chain": "00"}, {"accuracy": 0.9}) for m in models],
        {"champion": champion, "previous": previous, "challenger": challenger},
    )


def mirror(place, uri, wanted):
    return mirror_registry(uri, artifact_root(place.store), wanted)


def shown(uri):
    """Return the model of each version, and the version of each alias."""
    client = client_of(uri)
    versions = client.search_model_versions("name = 'photos'")
    aliases = client.get_registered_model("photos").aliases
    return {int(v.version): v.tags["dashpipe.model"] for v in versions}, {k: int(v) for k, v in aliases.items()}


def test_versions_and_aliases_follow_the_stream_and_a_second_call_changes_nothing(place, uri, no_files):
    first = state(place, ONE, champion=ONE)
    for _ in range(2):
        outcome = mirror(place, uri, first)
        assert (outcome.complete, outcome.versions) == (True, {ONE: 1})
        assert shown(uri) == ({1: ONE}, {"champion": 1})
    second = state(place, ONE, TWO, champion=TWO, previous=ONE)
    assert mirror(place, uri, second).complete
    assert shown(uri) == ({1: ONE, 2: TWO}, {"champion": 2, "previous": 1})
    rolled_back = state(place, ONE, TWO, THREE, champion=ONE, previous=TWO, challenger=THREE)
    assert mirror(place, uri, rolled_back).complete
    assert shown(uri) == ({1: ONE, 2: TWO, 3: THREE}, {"champion": 1, "previous": 2, "challenger": 3})
    assert mirror(place, uri, state(place, ONE, TWO, THREE, champion=ONE, previous=TWO)).complete
    assert shown(uri)[1] == {"champion": 1, "previous": 2}
    version = client_of(uri).get_model_version("photos", "1")
    run = client_of(uri).get_run(version.run_id)
    assert (version.tags["dashpipe.chain"], run.data.metrics["accuracy"], run.info.status) == ("00", 0.9, "FINISHED")
    marked = [replace(model, tags={**model.tags, "dashpipe.retracted": "yes"}) for model in rolled_back.models[:1]]
    wanted = replace(rolled_back, models=[*marked, *rolled_back.models[1:]])
    assert mirror(place, uri, replace(wanted, aliases={**rolled_back.aliases, "challenger": None})).complete
    assert client_of(uri).get_model_version("photos", "1").tags["dashpipe.retracted"] == "yes"


CALLS = (
    "create_registered_model",
    "create_experiment",
    "log_artifacts",
    "create_model_version",
    "set_registered_model_tag",
    "set_registered_model_alias",
)


SOME = [("set_registered_model_alias", False)]  # in the normal suite: each case takes a second of MLflow's database
ALL = [pytest.param(name, after, marks=pytest.mark.slow) for name in CALLS for after in (False, True)]


@pytest.mark.parametrize(("name", "after"), SOME + ALL)
def test_a_call_that_broke_off_is_completed_by_the_next(place, uri, no_files, monkeypatch, name, after):
    if name not in ("create_registered_model", "create_experiment"):
        assert mirror(place, uri, state(place, ONE, champion=ONE)).complete
    wanted = state(place, ONE, TWO, champion=TWO, previous=ONE)
    client = client_of(uri)
    real, broken = getattr(client, name), 0

    def break_off(*given, **named):
        nonlocal broken
        broken += 1
        if after:
            real(*given, **named)
        raise ConnectionError("the server died")

    monkeypatch.setattr(client, name, break_off)
    outcome = mirror(place, uri, wanted)
    assert (outcome.complete, broken) == (False, 1)
    assert outcome.problems == ["MLflow's registry: the server died"]
    monkeypatch.setattr(client, name, real)
    assert mirror(place, uri, wanted).complete
    assert shown(uri) == ({1: ONE, 2: TWO}, {"champion": 2, "previous": 1})


@pytest.mark.slow
def test_every_moment_between_two_calls_is_completed(place, uri, no_files, monkeypatch):
    client, wanted = client_of(uri), state(place, ONE, TWO, champion=TWO, previous=ONE)
    assert mirror(place, uri, state(place, ONE, champion=ONE)).complete
    real = {name: getattr(client, name) for name in CALLS[-2:]}
    left = 0

    def counted(name):
        def call(*given, **named):
            nonlocal left
            left -= 1
            if left < 0:
                raise ConnectionError("the server died")
            return real[name](*given, **named)

        return call

    for name in real:
        monkeypatch.setattr(client, name, counted(name))
    for allowed in range(9):
        left = allowed % 2 + 1  # so that each call breaks off a little later than the one before
        mirror(place, uri, wanted)
    left = 100
    assert mirror(place, uri, wanted).complete
    assert shown(uri) == ({1: ONE, 2: TWO}, {"champion": 2, "previous": 1})


@pytest.mark.parametrize("moved_to", ["1", *(pytest.param(to, marks=pytest.mark.slow) for to in ("3", None))])
def test_an_alias_that_a_person_moved_is_named_and_not_overwritten(place, uri, no_files, moved_to):
    assert mirror(place, uri, state(place, ONE, champion=ONE)).complete
    assert mirror(place, uri, state(place, ONE, TWO, THREE, champion=TWO, previous=ONE)).complete
    client = client_of(uri)
    if moved_to is None:
        client.delete_registered_model_alias("photos", "champion")
    else:
        client.set_registered_model_alias("photos", "champion", moved_to)
    before = shown(uri)
    for wanted in (
        state(place, ONE, TWO, THREE, champion=TWO, previous=ONE),
        state(place, ONE, TWO, THREE, champion=TWO, previous=ONE, challenger=THREE),
    ):
        outcome = mirror(place, uri, wanted)
        (conflict,) = outcome.conflicts
        assert conflict.startswith(
            f"the alias champion of photos was moved in MLflow from version 2 to {moved_to or 'none'}, but the "
            f"stream's champion is {TWO}"
        )
        assert shown(uri)[1].get("champion") == before[1].get("champion")
    client.set_registered_model_alias("photos", "champion", "2")
    assert mirror(place, uri, state(place, ONE, TWO, THREE, champion=TWO, previous=ONE)).complete


@pytest.mark.slow
def test_a_version_that_a_person_deleted_is_named_and_not_made_again(place, uri, no_files):
    wanted = state(place, ONE, TWO, champion=TWO, previous=ONE)
    assert mirror(place, uri, wanted).complete
    client_of(uri).delete_model_version("photos", "2")
    outcome = mirror(place, uri, wanted)
    assert outcome.conflicts[0].startswith(f"version 2 of photos, model {TWO}, was deleted in MLflow")
    assert shown(uri) == ({1: ONE}, {"previous": 1})
    client_of(uri).delete_registered_model_tag("photos", f"dashpipe.version.{TWO}")
    client_of(uri).delete_registered_model_tag("photos", "dashpipe.alias.champion")
    assert mirror(place, uri, wanted).complete
    assert shown(uri)[1] == {"champion": 3, "previous": 1}


@pytest.mark.slow
def test_a_version_that_was_created_twice_is_one_again(place, uri, no_files):
    wanted = state(place, ONE, champion=ONE)
    assert mirror(place, uri, wanted).complete
    client_of(uri).create_model_version("photos", "file:///x", tags={"dashpipe.model": ONE})
    assert mirror(place, uri, wanted).versions == {ONE: 1}
    assert shown(uri) == ({1: ONE}, {"champion": 1})


def test_another_stream_of_the_same_name_is_refused_and_nothing_written(place, uri, no_files):
    assert mirror(place, uri, state(place, ONE, champion=ONE)).complete
    outcome = mirror(place, uri, state(place, TWO, champion=TWO, owner="e" * 64))
    assert "belongs to the stream with the ledger ffffffffffff" in outcome.conflicts[0]
    assert shown(uri) == ({1: ONE}, {"champion": 1})


def test_a_server_that_is_away_or_out_of_order_is_a_problem_and_no_error(place, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with faulty_server() as fault:
        outcome = mirror(place, fault.uri, state(place, ONE, champion=ONE))
    assert (outcome.complete, outcome.conflicts) == (False, ())
    assert outcome.problems[0].startswith("MLflow's registry: ")


@pytest.mark.slow
def test_the_champion_is_loaded_from_the_registry_and_scores_raw_images(place, uri, tmp_path):
    import mlflow

    exported(tmp_path / "export", seed=1)
    wanted = state(place, ONE, champion=ONE)
    wanted = replace(wanted, models=[replace(wanted.models[0], export=tmp_path / "export")])
    assert mirror(place, uri, wanted).complete
    mlflow.set_tracking_uri(uri)
    raw = images().numpy()
    golden = np.load(tmp_path / "export" / "golden.npz")["probabilities"]
    scorer = mlflow.pyfunc.load_model("models:/photos@champion")
    np.testing.assert_allclose(scorer.predict(raw), golden, atol=1e-6)
    assert tuple(scorer.metadata.metadata["class_names"]) == NAMES
    graph = mlflow.pytorch.load_model("models:/photos@champion")
    np.testing.assert_allclose(graph(images()).detach().numpy(), golden, atol=1e-6)
