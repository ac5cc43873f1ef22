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
            place = place_of(settings, self.store_folder, self.data_root)
        except (OSError, RuntimeError, ValueError) as error:  # such as a loop of links, or a NUL in the path
            raise ConfigError(f"--store or --data-root: no such folder can exist ({error}); name another") from None
        if len(os.fsencode(place.store)) > LONGEST_STORE:
            raise ConfigError(
                f"--store: {place.store} has {len(os.fsencode(place.store))} bytes; SQLite, which keeps two databases "
                f"there, takes at most {LONGEST_STORE}: name a folder with a shorter path"
            )
        choose_device(place.device)
        return place

    @property
    def store_folder(self) -> Path:
        """The store as it was given, or the parameters' folder; never a copy that DVC makes for an experiment."""
        from flows.command_line.dvc_project import own_project

        return self.store or own_project(self.params.parent)

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
        words = shlex.join([*([] if store == Path.cwd() else ["--store", str(store)]), *options])
        return f"uv run dashpipe {command} {words}".rstrip() + self._parameter_options

    @property
    def _parameter_options(self) -> str:
        from flows.command_line.settings import as_options

        return as_options(self.params, self.preset, self.overrides)


ALL_OPTIONS = tuple(option.name for option in dataclasses.fields(SharedOptions))
_ANNOTATIONS = get_type_hints(SharedOptions, include_extras=True)


def shared_options(*names: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return a decorator that gives a command the named shared options, and prints its errors plainly.

    The command takes them as its first argument, one SharedOptions, in which all other options have their defaults. On
    the command line they come after the command's own options.
    """
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
