"""A stream's models in MLflow's registry: one registered model a stream, a version a model, an alias a role.

The stream's ledger is the truth, and the registry shows it. Mirroring is idempotent: whatever a killed or failed call
left undone, the next one completes. What a person changed in MLflow is found and named, and never overwritten. To know
a person's change from a call that broke off, each alias is set in three steps: the intended version is written to a tag
together with the version before, the alias is moved, and the tag is reduced to the new version.
"""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from dash_core.errors import DashError
from tasks.tracking.client import KIND_TAGS, open_database, open_run, set_status, silence
from tasks.tracking.model_files import write_mlflow_model
from tasks.tracking.reasons import explain

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion, RegisteredModel

ALIASES = ("champion", "previous", "challenger")
OWNER_TAG = "dashpipe.ledger"  # of the registered model: the stream that it belongs to
MODEL_TAG = "dashpipe.model"  # of a version: the stream's model that it is
ALIAS_TAG = "dashpipe.alias."  # of the registered model, with the alias: the version that was set, and the one before
VERSION_TAG = "dashpipe.version."  # of the registered model, with the model: its version
NO_VERSION = "none"
ARTIFACT = "model"  # the folder of a model among the artifacts of its run


class RegistryConflict(DashError):
    """The registered model belongs to another stream."""


@dataclass(frozen=True)
class RegisteredModelState:
    """One model of a stream. export: the folder that `export_model` wrote. tags, metrics: shown in MLflow."""

    model: str
    export: Path
    tags: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class RegistryState:
    """What the registry must show of a stream.

    owner: the identity of its ledger. models: all that were released, and the challenger, oldest first. aliases: the
    model of each alias, None if no model has this role.
    """

    stream: str
    owner: str
    models: Sequence[RegisteredModelState]
    aliases: Mapping[str, str | None]


@dataclass(frozen=True)
class MirrorOutcome:
    """What a call achieved. conflicts: what a person changed. problems: what MLflow refused. versions: by model."""

    conflicts: Sequence[str] = ()
    problems: Sequence[str] = ()
    versions: Mapping[str, int] = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        """Whether MLflow shows what the ledger says."""
        return not self.conflicts and not self.problems


def mirror_registry(uri: str, artifact_root: Path, state: RegistryState) -> MirrorOutcome:
    """Make the registry show a stream; nothing is raised if MLflow is away or refuses.

    artifact_root: for models if MLflow is a database file. One process at a time (`locked_tracking`).
    """
    try:
        with silence():
            return _Registry(open_database(uri), uri, artifact_root, state).mirror()
    except RegistryConflict as error:
        return MirrorOutcome(conflicts=[str(error)])
    except Exception as error:  # of MLflow, the network, the database: the next call completes it
        return MirrorOutcome(problems=[f"MLflow's registry: {explain(error)}"])


class _Registry:
    """One registered model, and what it should show."""

    def __init__(self, client: "MlflowClient", uri: str, artifact_root: Path, state: RegistryState) -> None:
        self._client, self._uri, self._artifact_root, self._state = client, uri, artifact_root, state
        self._conflicts: list[str] = []

    def mirror(self) -> MirrorOutcome:
        registered = self._registered()
        found = self._versions()
        versions = {}
        for model in self._state.models:
            version = self._version(model, found.get(model.model, []), registered)
            if version is not None:
                versions[model.model] = version
        for alias in ALIASES:
            self._alias(alias, versions, registered)
        return MirrorOutcome(conflicts=self._conflicts, versions=versions)

    def _registered(self) -> "RegisteredModel":
        """Return the registered model, created if it is missing; RegistryConflict if another stream has it."""
        from mlflow.exceptions import MlflowException
        from mlflow.protos.databricks_pb2 import RESOURCE_ALREADY_EXISTS, ErrorCode

        name, owner = self._state.stream, self._state.owner
        try:
            self._client.create_registered_model(name, tags={OWNER_TAG: owner})
        except MlflowException as error:
            if error.error_code != ErrorCode.Name(RESOURCE_ALREADY_EXISTS):
                raise
        registered = self._client.get_registered_model(name)
        if (other := registered.tags.get(OWNER_TAG)) != owner:
            whose = f"the stream with the ledger {other[:12]}" if other else "something else"
            raise RegistryConflict(
                f"MLflow's registered model {name} belongs to {whose}, not to this stream with the ledger "
                f"{owner[:12]}: nothing was written; rename one of them, or use another MLflow"
            )
        return registered

    def _versions(self) -> dict[str, list["ModelVersion"]]:
        """Return the versions of each model of the stream, oldest first."""
        found: dict[str, list[ModelVersion]] = {}
        token = None
        while token != "":
            page = self._client.search_model_versions(f"name = '{self._state.stream}'", page_token=token)
            for version in page:
                if model := version.tags.get(MODEL_TAG):
                    found.setdefault(model, []).append(version)
            token = page.token or ""
        for versions in found.values():
            versions.sort(key=lambda version: int(version.version))
        return found

    def _version(
        self, model: RegisteredModelState, found: Sequence["ModelVersion"], registered: "RegisteredModel"
    ) -> int | None:
        """Return a model's version, registered if it never was; None if a person deleted it."""
        name, tag = self._state.stream, VERSION_TAG + model.model
        if not found:
            if before := registered.tags.get(tag):
                self._conflicts.append(
                    f"version {before} of {name}, model {model.model}, was deleted in MLflow; to register it again "
                    f"delete the tag {tag} of the registered model"
                )
                return None
            created = self._register(model)
        else:
            created = int(found[0].version)
            for key, value in model.tags.items():
                if found[0].tags.get(key) != value:  # what is known of the model has changed since
                    self._client.set_model_version_tag(name, str(created), key, value)
            for twin in found[1:]:  # a request repeated to a slow server creates two
                self._client.delete_model_version(name, twin.version)
        if registered.tags.get(tag) != str(created):
            self._client.set_registered_model_tag(name, tag, str(created))
        return created

    def _register(self, model: RegisteredModelState) -> int:
        """Send a model's files to a run of its own, and create the version that points to them."""
        from mlflow.entities import Metric
        from mlflow.models import Model

        stream, tags = self._state.stream, {MODEL_TAG: model.model, **model.tags}
        experiment = self._experiment()
        run_id = open_run(
            self._client, experiment, f"{stream}/{model.model}", model.model, {}, {"kind": "stream", **tags}
        )
        run = self._client.get_run(run_id)
        self._client.log_batch(
            run_id, metrics=[Metric(key, value, run.info.start_time, 0) for key, value in model.metrics.items()]
        )
        with tempfile.TemporaryDirectory() as folder:
            write_mlflow_model(model.export, Path(folder) / ARTIFACT, Model(artifact_path=ARTIFACT, run_id=run_id))
            self._client.log_artifacts(run_id, folder)
        set_status(self._client, run_id, "FINISHED")
        source = f"{run.info.artifact_uri}/{ARTIFACT}"
        return int(self._client.create_model_version(stream, source, run_id=run_id, tags=tags).version)

    def _experiment(self) -> str:
        """Return the id of the stream's experiment."""
        name = f"stream {self._state.stream}"
        experiment = self._client.get_experiment_by_name(name)
        if experiment is None:
            served = self._uri.startswith(("http://", "https://", "databricks"))
            place = None if served else (self._artifact_root.resolve() / name).as_uri()
            return self._client.create_experiment(name, artifact_location=place, tags=KIND_TAGS)
        if experiment.lifecycle_stage == "deleted":
            self._client.restore_experiment(experiment.experiment_id)
        return experiment.experiment_id

    def _alias(self, alias: str, versions: Mapping[str, int], registered: "RegisteredModel") -> None:
        """Move an alias to the version of its model, unless a person moved it since it was set."""
        name, tag = self._state.stream, ALIAS_TAG + alias
        model = self._state.aliases.get(alias)
        if model is not None and model not in versions:
            return  # its version was deleted by a person, which is told already
        target = NO_VERSION if model is None else str(versions[model])
        current = str(registered.aliases.get(alias, NO_VERSION))
        allowed = (registered.tags.get(tag) or NO_VERSION).split()
        if current not in (*allowed, target):
            self._conflicts.append(
                f"the alias {alias} of {name} was moved in MLflow from version {allowed[0]} to {current}, but the "
                f"stream's {alias} is {model or 'no model'}; move it back, or delete the tag {tag} of the registered "
                "model and the alias to let the stream set it"
            )
            return
        if current != target:
            self._client.set_registered_model_tag(name, tag, f"{target} {current}")
            if model is None:
                self._client.delete_registered_model_alias(name, alias)
            else:
                self._client.set_registered_model_alias(name, alias, target)
        if current != target or registered.tags.get(tag) != target:
            self._client.set_registered_model_tag(name, tag, target)
