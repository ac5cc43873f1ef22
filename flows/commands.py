"""What the commands `compare` and `run` do, from services started to table printed.

Imports wait until they are needed, in the order that uses two cores best: the Prefect server and the workers' fork
server import on their own while this process does.
"""

from pathlib import Path

from rich.console import Console

from dash_core.comparison import Params
from dash_core.config import RunConfig
from tasks.place import Place

Source = tuple[Path, str | None, list[str]]  # the parameters' file, preset and overrides


def compare(settings: Params, place: Place, source: Source, console: Console, again: bool) -> None:
    """Run the comparison's flow under a display, and print its table; ComparisonFailed names the runs that failed.

    source: what `settings` were read from.
    """
    from flows.prefect_server import prefect_api
    from flows.workers import start_early
    from tasks.runs import is_complete

    _check_data(settings, place, console)
    console.print(f"{settings.name}: {len(settings.runs())} runs, starting services …", highlight=False)
    server = _private_server(place)
    if again or not all(is_complete(run, place) for run in settings.runs()):
        start_early()
    from flows.compare import ComparisonFailed, compare_methods
    from flows.display import print_table, watched
    from tasks.tracking import import_mlflow

    import_mlflow()
    failure = None
    with prefect_api(place.services, server), watched(settings.runs(), place, console):
        try:
            params_file, preset, overrides = source
            published = compare_methods.with_options(flow_run_name=settings.name)(
                str(params_file), preset, overrides, str(place.store), str(place.data_root), again
            )
        except ComparisonFailed as error:
            failure, published = error, error.published
    print_table(published.table, console)
    show = f"dashpipe ui --store {place.store}" if place.store != Path.cwd() else "dashpipe ui"
    console.print(f"\ntables   {published.folder}", markup=False, highlight=False, soft_wrap=True)
    console.print(f"records  {place.store / 'runs'}", markup=False, highlight=False, soft_wrap=True)
    console.print(f"MLflow   uv run {show}{_as_options(source)}", markup=False, highlight=False, soft_wrap=True)
    if failure:
        raise failure


def run(settings: Params, one: RunConfig, place: Place, console: Console, again: bool) -> None:
    """Do one run of a comparison in this process; a complete run is trained again only if asked."""
    from flows.prefect_server import prefect_api

    _check_data(settings, place, console)
    server = _private_server(place)
    from flows.display import watched
    from flows.experiment import carry_out
    from tasks.run_tracker import forget, track_comparison
    from tasks.runs import commit, is_complete
    from tasks.tracking import finish_run

    tracked = track_comparison(settings, place, commit())
    if again:
        forget(one, place, tracked)
    elif is_complete(one, place):
        console.print(f"{one.id} is complete; --again trains it again", markup=False, highlight=False, soft_wrap=True)
    with prefect_api(place.services, server), watched([one], place, console):
        carry_out(one, place, tracked)
    finish_run(tracked.uri, tracked.comparison.summary_run_id, status="FINISHED")
    console.print(f"records  {place.run_folder(one)}", markup=False, highlight=False, soft_wrap=True)


def _check_data(settings: Params, place: Place, console: Console) -> None:
    """Have the dataset decoded and cached, and see that chunks and model fit it, before anything is started."""
    from dash_core.data import ChunkPlan, load_dataset
    from dash_core.models import build_model
    from dash_core.trajectory import check_first_chunk
    from flows.display import progress_bar

    with progress_bar(console) as progress:
        dataset = load_dataset(settings.dataset, data_root=place.data_root, cache=place.cache, progress=progress)
    check_first_chunk(ChunkPlan.split(dataset.train, settings.dataset, settings.chunks, settings.seeds[0]))
    build_model(settings.model.name, dataset.train.image_shape, dataset.train.classes, seed=0)


def _private_server(place: Place):
    """Start a private Prefect server, unless the user configured an API; it dies with this process."""
    from flows.prefect_server import PrivateServer, configured_url

    return None if configured_url() else PrivateServer(place.services).start()


def _as_options(source: Source) -> str:
    """Return the options that name the same comparison again, quoted for a shell."""
    import shlex

    params_file, preset, overrides = source
    words = [] if params_file == Path("params.yaml") else ["--params", str(params_file)]
    words += ["--preset", preset] if preset else []
    for override in overrides:
        words += ["--set", override]
    return "".join(f" {shlex.quote(word)}" for word in words)
