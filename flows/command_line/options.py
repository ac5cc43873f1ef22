"""The options that commands share, as one object that opens what they name. Nothing heavy is imported."""

import dataclasses
import inspect
import os
import shlex
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from dash_core.errors import ConfigError
from flows.command_line.errors import plain_errors, traceback_kept

if TYPE_CHECKING:
    from dash_core.comparison import Params
    from tasks.store.place import Place

Again = Annotated[bool, typer.Option("--again", help="Train again what is complete already.")]

Mirror = Annotated[
    str | None,
    typer.Option(
        help="Copy run folders there after each save, and go on from there: s3://bucket/project, or compare.mirror.",
        metavar="URL",
    ),
]


@dataclass(frozen=True)
class SharedOptions:
    """The options of a command: parameters, what is laid over them, and folders. The parameters are read once."""

    params: Annotated[Path, typer.Option("--params", help="The parameters' file.", metavar="FILE")] = Path(
        "params.yaml"
    )
    preset: Annotated[
        str | None, typer.Option(help="A setting of the paper, laid over the parameters (see presets/).")
    ] = None
    overrides: Annotated[
        list[str],
        typer.Option("--set", help="Override a value: section.key=value. Repeatable.", metavar="KEY=VALUE"),
    ] = field(default_factory=list)
    store: Annotated[
        Path | None,
        typer.Option(
            envvar="DASHPIPE_STORE", help="Folder of runs, tables and mlflow.db. Default: the parameters' folder."
        ),
    ] = None
    data_root: Annotated[
        Path | None,
        typer.Option(
            envvar="DASHPIPE_DATA", help="Folder of datasets, as torchvision lays them out. Default: STORE/data."
        ),
    ] = None
    services: Annotated[
        Path | None,
        typer.Option(
            envvar="DASHPIPE_SERVICES",
            help="Folder of databases and logs, on a disk of this machine. Default: the store; if machines share it, "
            "a folder of your own.",
        ),
    ] = None
    results: Annotated[
        Path | None,
        typer.Option("--results", help="Folder of the pipeline's outputs (see dvc.yaml). Default: inside the store."),
    ] = None

    @cached_property
    def settings(self) -> "Params":
        """The checked parameters; ConfigError names what is wrong with them."""
        from flows.command_line.settings import load_params

        return load_params(self.params, self.preset, self.overrides)

    @cached_property
    def place(self) -> "Place":
        """Where the parameters' runs are trained; nothing is created."""
        return self.place_for(self.settings)

    def place_for(self, settings: "Params") -> "Place":
        """Return where the runs of given parameters are trained; ConfigError if the device or a folder cannot exist."""
        from dash_core.device import choose_device
        from tasks.store.place import place_of
        from tasks.store.sqlite_files import LONGEST_STORE

        try:
            place = place_of(settings, self.store_folder, self.data_root, self.services)
        except (OSError, RuntimeError, ValueError) as error:  # such as a loop of links, or a NUL in the path
            raise ConfigError(f"--store or --data-root: no such folder can exist ({error}); name another") from None
        databases = place.databases
        if len(os.fsencode(databases)) > LONGEST_STORE:
            raise ConfigError(
                f"{'--services' if place.given_services else '--store'}: {databases} has {len(os.fsencode(databases))} "
                f"bytes; SQLite, which keeps two databases there, takes at most {LONGEST_STORE}: name a folder with a "
                "shorter path"
            )
        if place.executor == "local":
            choose_device(place.device)
        else:
            from flows.services.clusters import check_installed

            check_installed(place.executor)
        return place

    @property
    def store_folder(self) -> Path:
        """The store as it was given, or the parameters' folder; never a copy that DVC makes for an experiment."""
        from flows.command_line.dvc_project import own_project

        return self.store or own_project(self.params.parent)

    @property
    def services_folder(self) -> Path:
        """The folder of the private Prefect server's database, known before the parameters are read."""
        from tasks import SERVICES_FOLDER
        from tasks.store.shared_disk import local_services

        store = self.store_folder
        return self.services or local_services(store) or store / SERVICES_FOLDER

    @property
    def compare_command(self) -> str:
        """The command line that repeats the comparison."""
        return f"uv run dashpipe compare{self._parameter_options}"

    @property
    def compare_here_command(self) -> str:
        """The command line that does the comparison in this store, with these data."""
        data_root = [] if self.data_root is None else ["--data-root", str(self.place.data_root)]
        return self._in_store("compare", *data_root)

    @property
    def ui_command(self) -> str:
        """The command line that opens the comparison in MLflow's pages."""
        return self._in_store("ui")

    def _in_store(self, command: str, *options: str) -> str:
        store = self.place.store
        services = [] if self.services is None else ["--services", str(self.services.resolve())]
        words = shlex.join([*([] if store == Path.cwd() else ["--store", str(store)]), *services, *options])
        return f"uv run dashpipe {command} {words}".rstrip() + self._parameter_options

    @property
    def _parameter_options(self) -> str:
        from flows.command_line.settings import as_options

        return as_options(self.params, self.preset, self.overrides)


def with_mirror(options: SharedOptions, mirror: str | None) -> SharedOptions:
    """Return the options with the setting that `--mirror` stands for."""
    if mirror is None:
        return options
    return dataclasses.replace(options, overrides=[*options.overrides, f"compare.mirror={mirror}"])


ALL_OPTIONS = tuple(option.name for option in dataclasses.fields(SharedOptions))
_ANNOTATIONS = get_type_hints(SharedOptions, include_extras=True)


def shared_options(*names: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return a decorator that gives a command the named shared options, and prints its errors plainly.

    The command takes them as its first argument, one SharedOptions, in which all other options have their defaults. On
    the command line they come after the command's own options. A command that has a store has `services` too.
    """
    if "store" in names and "services" not in names:
        names = (*names, "services")
    unknown = set(names) - set(ALL_OPTIONS)
    if unknown:
        raise TypeError(f"no shared option {', '.join(sorted(unknown))}; known: {', '.join(ALL_OPTIONS)}")

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = list(inspect.signature(command, eval_str=True).parameters.values())[1:]

        def command_of_options(**values: Any) -> None:
            options = SharedOptions(**{name: values.pop(name) for name in names})
            with plain_errors(), traceback_kept(options.store_folder):
                command(options, **values)

        parameters = [*own, *(_parameter(name) for name in names)]
        command_of_options.__name__, command_of_options.__doc__ = command.__name__, command.__doc__
        command_of_options.__signature__ = inspect.Signature(parameters)
        command_of_options.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return command_of_options

    return decorate


def _parameter(name: str) -> inspect.Parameter:
    """Return a shared option as a parameter of a command, with the annotation that typer reads."""
    default = getattr(SharedOptions(), name)
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=_ANNOTATIONS[name])
