"""A comparison: the whole of params.yaml, and its runs, one for each method and seed."""

import re
from collections.abc import Mapping
from functools import cached_property
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from dash_core.config import MethodConfig, RunConfig, Setting, digest_of, distinct, nearest, parse
from dash_core.diagnostics import diagnostics_named
from dash_core.errors import ConfigError
from dash_core.interventions import INTERVENTIONS, build_intervention, is_intervention
from dash_core.parts import METHODS, is_path, source_digest
from dash_core.section import AsTuple, Count, Gibibytes, Label, Positive, Section, Seed, Threads
from dash_core.theory import TheoryConfig

COMPARED = ("cold", "warm", "warm_rm", "shrink_perturb", "dash")  # unless compare.methods says otherwise


class ClusterConfig(Section):
    """What a run is given on a cluster, and how the cluster is reached. A key that an engine does not use is ignored.

    address: of Ray's head, such as `10.0.0.5:6379`; null: RAY_ADDRESS, or the cluster that this machine belongs to. For
    Slurm null, or `local`, which tries everything out on this machine.
    """

    address: Annotated[str, Field(min_length=1, max_length=255)] | None = None
    gpus: Annotated[float, Field(ge=0, le=1024)] | Literal["auto"] = "auto"  # a run; auto: 0.25 where there are GPUs
    cpus: Threads | Literal["auto"] = "auto"  # cores a run; auto: as many as threads
    memory_gib: Gibibytes | None = None  # a run; null: whatever there is
    partition: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.,\-]{1,255}$")] | None = None  # Slurm
    time: Annotated[int, Field(ge=1, le=525_600)] = 240  # Slurm: minutes of a job, which goes on in another one
    preflight: bool = True  # whether each node is examined before anything trains


class CompareConfig(Section):
    """Which methods are compared, and where and how the runs are trained."""

    methods: Annotated[list[str], Field(min_length=1, default_factory=lambda: [*COMPARED])]
    workers: Count | Literal["auto"] = "auto"  # parallel processes; auto: one a core, at most one a run
    gpus_per_run: Annotated[int, Field(ge=1, le=64)] = 1  # each run is divided over so many; on a CPU: processes
    threads: Threads | Literal["auto"] = "auto"  # of torch, a worker; auto: 1, so that bits do not depend on workers
    device: Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:[0-9]{1,2})?)$")] = "auto"
    checkpoint_seconds: Positive = 60.0  # between two saves of a run within a chunk
    resident_gib: Gibibytes | Literal["auto"] = "auto"  # of images a run holds on its device; larger sets are streamed
    keep_weights: Annotated[tuple[Count, ...], AsTuple] = ()  # experiments whose weights are kept, beside the last's
    executor: Literal["local", "ray", "slurm"] = "local"  # processes of this machine, or of a cluster (docs/scale.md)
    cluster: ClusterConfig = ClusterConfig()
    # address below which run folders are copied after each save, as fsspec reads it: s3://bucket/project
    mirror: Annotated[str, Field(pattern=r"^[a-z0-9+.-]+://.*$", max_length=1024)] | None = None

    @field_validator("methods")
    @classmethod
    def _no_repeats(cls, methods: list[str]) -> list[str]:
        return distinct(methods, "methods")

    @field_validator("keep_weights")
    @classmethod
    def _in_order(cls, experiments: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(sorted(distinct(list(experiments), "keep_weights")))


class Params(Setting):
    """The whole of params.yaml: one comparison of methods over seeds. Methods and runs are resolved once and kept."""

    symbols: ClassVar = {
        "lambda": "methods.dash.floor",
        "λ": "methods.dash.floor",
        "alpha": "methods.dash.alpha",
        "α": "methods.dash.alpha",
        "sigma": "methods.shrink_perturb.sigma",
        "σ": "methods.shrink_perturb.sigma",
    }
    methods: dict[Label, dict[str, Any]] = Field(default_factory=dict)
    seeds: Annotated[list[Seed], Field(min_length=1, default_factory=lambda: [0, 1, 2])]
    diagnostics: list[str] = Field(default_factory=list)
    compare: CompareConfig = CompareConfig()
    theory: TheoryConfig = TheoryConfig()

    @model_validator(mode="before")
    @classmethod
    def _label_methods_named_by_import_path(cls, content: object) -> object:
        """Turn compare.methods=[mypackage.methods:Halve] into the label Halve, whose section names the import path."""
        compare = content.get("compare") if isinstance(content, Mapping) else None
        compared = compare.get("methods") if isinstance(compare, Mapping) else None
        sections = content.get("methods") if isinstance(content, Mapping) else None
        sections = dict(sections) if isinstance(sections, Mapping) else {}
        compared = list(compared) if isinstance(compared, list) else []
        paths = list(dict.fromkeys(name for name in [*sections, *compared] if is_path(name)))
        for path in paths:
            own, given = sections.pop(path, {}), sections.get(label_of(path), {})
            if not isinstance(own, Mapping) or not isinstance(given, Mapping):
                return content
            sections[label_of(path)] = section = {"intervention": path, **given, **own}
            if label_of(path) in INTERVENTIONS or section["intervention"] != path:
                raise ValueError(
                    f"{path}: `{label_of(path)}` is another method; give it a label under `methods`, such as "
                    f"my_{label_of(path)}: {{intervention: {path}}}, and name that in compare.methods"
                )
        if not paths:
            return content
        compared = [label_of(name) if is_path(name) else name for name in compared]
        return {**content, "methods": sections, **({"compare": {**compare, "methods": compared}} if compared else {})}

    @field_validator("seeds")
    @classmethod
    def _no_repeats(cls, seeds: list[int]) -> list[int]:
        return distinct(seeds, "seeds")

    @field_validator("diagnostics")
    @classmethod
    def _all_known(cls, diagnostics: list[str]) -> list[str]:
        try:
            diagnostics_named(diagnostics)
        except ConfigError as error:
            raise ValueError(str(error)) from None
        return distinct(diagnostics, "diagnostics")

    def method(self, label: str) -> MethodConfig:
        """Return one method with its parameters resolved, defaults included; ConfigError if there is none.

        label: in `methods`, or the name of an intervention, or an import path.
        """
        label = label_of(label) if is_path(label) and label_of(label) in self.methods else label
        if label not in self._resolved:
            self._resolved[label] = self._resolve(label)
        return self._resolved[label]

    @cached_property
    def _resolved(self) -> dict[str, MethodConfig]:
        return {}

    def _resolve(self, label: str) -> MethodConfig:
        given = dict(self.methods.get(label, {}))
        name, rate = given.pop("intervention", label), given.pop("lr", None)
        source = given.pop("source", None) if isinstance(name, str) and name not in INTERVENTIONS else None
        if not isinstance(name, str) or not is_intervention(name):
            listed = label in self.methods
            what = f"methods.{label}.intervention: unknown intervention" if listed else "unknown method"
            known = sorted(INTERVENTIONS if listed else {*self.methods, *INTERVENTIONS})
            allowed = f"{', '.join(known)}, or an import path such as mypackage.methods:Halve"
            raise ConfigError(f"{what} {name!r}{nearest(str(name), known)}; known: {allowed}")
        parameters = build_intervention(name, given, where=f"methods.{label}").model_dump(mode="json")
        source = source or source_digest(METHODS, name)
        label = label_of(label) if is_path(label) else label
        content = {"label": label, "intervention": name, "parameters": parameters, "lr": rate, "source": source}
        return parse(MethodConfig, content, where=f"methods.{label}")

    def run(self, label: str, seed: int) -> RunConfig:
        """Return the run of one method and seed; ConfigError if there is no such method or seed."""
        if (label, seed) not in self._parsed:
            shared = {name: getattr(self, name) for name in (*Setting.model_fields, "diagnostics")}
            self._parsed[label, seed] = parse(RunConfig, {**shared, "method": self.method(label), "seed": seed})
        return self._parsed[label, seed]

    def runs(self) -> list[RunConfig]:
        """Return every run of the comparison, seed by seed, methods in the given order."""
        return [self.run(label, seed) for seed in self.seeds for label in self.compare.methods]

    @cached_property
    def _parsed(self) -> dict[tuple[str, int], RunConfig]:
        return {}

    @cached_property
    def name(self) -> str:
        """The comparison's name: dataset, model, and a hash of its runs and their labels."""
        digest = digest_of(sorted([run.method.label, run.digest] for run in self.runs()))
        return re.sub(r"[^A-Za-z0-9_.\-]+", "-", f"{self.dataset.name}-{self.model.name}-{digest[:8]}")


def label_of(path: str) -> str:
    """Return the label of a method that is named by its import path alone: mypackage.methods:Halve is Halve."""
    return path.rpartition(":")[2].rpartition(".")[2].lstrip("_") or "method"
