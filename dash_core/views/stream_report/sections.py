"""The parts of a stream's page: sentences, tables and charts, each made from the content alone."""

import time
from collections.abc import Callable, Sequence

from markupsafe import Markup

from dash_core.stream.state import Arrival, ModelEntry, StreamState
from dash_core.views.stream_report.charts import Line, interval_picture, line_chart
from dash_core.views.stream_report.content import StreamContent, suspects_of
from dash_core.views.tables import Cell, Table

MOST_ARRIVALS = 20  # in the table, the newest
MOST_SUSPECTS = 20
NOTHING = "–"
BOUND = "\N{NO-BREAK SPACE}"  # keeps a date from being broken
HOW = {
    "first": "the first model",
    "gate": "passed the gate",
    "person": "released by a person",
    "rollback": "taken back to this model",
    "harm": "taken back to this model by itself",
    "retract": "a delivery was retracted",
}
RESULTS = {"pass": "passed", "fail": "failed", "hold": "waits for a person"}


def moment(at: float) -> str:
    """Return a time of the ledger, Unix time in seconds, as a person reads it."""
    date, clock = (time.strftime(form, time.gmtime(at)).replace(" ", BOUND) for form in ("%d %b %Y", "%H:%M UTC"))
    return f"{date}, {clock}"


def headline(content: StreamContent) -> str:
    """Return what is served since when, and how good it is, in a paragraph."""
    state, champion = content.state, content.champion
    arrived = f"{len(state.arrivals)} deliver{'y' if len(state.arrivals) == 1 else 'ies'} arrived so far."
    if champion is None:
        return f"No model has been released yet. {arrived}"
    release = state.releases[-1]
    return (
        f"Model {champion.id} is served since {moment(release.at)}: {HOW.get(release.by, release.by)}. It was trained "
        f"on {champion.images:,} images, and was right on {_percent(champion.accuracy)} of the hold-out images when it "
        f"was trained. {arrived}"
    )


def to_do(content: StreamContent) -> list[tuple[str, str]]:
    """Return what waits for a person: a sentence and the command."""
    state, name, found = content.state, content.state.name, []
    newest = content.newest_verdict
    if newest is not None and newest[1]["verdict"] == "hold" and newest[0].id == state.challenger:
        command = f'dashpipe stream release {name} --because "..."'
        found.append((f"Model {newest[0].id} waits for your decision. To release it:", command))
    if (seen := content.harm) and seen.shown:
        found.append((f"{seen.sentence} To take it back:", f'dashpipe stream rollback {name} --because "..."'))
    if state.champion in state.tainted:
        sentence = "The champion was trained on a delivery that was retracted. The next pass trains one that was not:"
        found.append((sentence, f"dashpipe stream arrive {name}"))
    if content.undecided > 0:
        sentence = f"{_images(content.undecided)} set aside wait{'s' * (content.undecided == 1)} for your decision:"
        found.append((sentence, f"dashpipe stream quarantine {name}"))
    if state.looks_left <= 0:
        found.append(
            ("The hold-out has no look left; this says what a new one needs:", f"dashpipe stream status {name}")
        )
    return found


def arrivals_table(content: StreamContent) -> Table:
    """Return the newest arrivals, one a row."""
    arrivals = content.state.arrivals
    rows = [
        (
            Cell(f"{one.number}\n{one.source}"),
            Cell(moment(one.at)),
            Cell(f"{one.images:,}"),
            Cell(f"{one.train:,}"),
            Cell(f"{one.held_out:,}"),
            Cell(f"{one.known:,}"),
            Cell(f"{sum(one.set_aside.values()):,}"),
            Cell(_became(content, one)),
        )
        for one in reversed(arrivals[-MOST_ARRIVALS:])
    ]
    older = len(arrivals) - MOST_ARRIVALS
    notes = (f"{older} older deliveries are in ledger.jsonl",) if older > 0 else ()
    headings = ("Delivery", "Arrived", "Images", "To train on", "Held out", "Known already", "Set aside", "Became")
    return Table("Deliveries, the newest first", headings, tuple(rows), notes)


def _became(content: StreamContent, arrival: Arrival) -> str:
    if arrival.retracted is not None:
        return f"retracted: {arrival.retracted}"
    if arrival.chunk is None:
        return {"duplicate": "nothing new", "set aside": "nothing usable"}.get(arrival.outcome, NOTHING)
    models = content.state.models.values()
    model = next((model for model in reversed(models) if model.chunk == arrival.chunk), None)
    if model is None:
        later = any(model.chunk > arrival.chunk for model in models)
        return f"chunk {arrival.chunk}" + ("" if later else ", not trained yet")
    return f"chunk {arrival.chunk}, model {model.id}\n{_became_of(content.state, model)}"


def _became_of(state: StreamState, model: ModelEntry) -> str:
    """Return what the gate or a person decided on a model."""
    verdict = next((one.verdict for one in reversed(state.verdicts) if one.model == model.id), None)
    if verdict != "pass" and any(one.model == model.id and one.by == "person" for one in state.releases):
        return "released by a person"
    if verdict is None:
        return "not judged yet" if model == state.unjudged else "replaced before it was judged"
    return RESULTS[verdict] if verdict != "hold" or state.challenger == model.id else "not released"


def guards(content: StreamContent) -> list[str]:
    """Return what the champion said of the newest arrival before it was trained on."""
    if not content.inspections:
        return []
    found = content.inspections[max(content.inspections)]
    seen = [content.harm.sentence] if content.harm else []
    return [found["drift"]["sentence"], found["suspects"]["sentence"], *seen]


def suspects_table(content: StreamContent) -> Table:
    """Return the labels of the newest arrival that look most wrong."""
    rows = [
        (Cell(one["file"]), Cell(one["given"]), Cell(one["suggested"]), Cell(f"{one['score']:.2f}"))
        for one in suspects_of(content.inspections, MOST_SUSPECTS)
    ]
    notes = ("score: probability of the label minus that of the suggestion, by the champion; nothing was removed",)
    return Table("Labels that look wrong", ("File", "Label", "Looks like", "Score"), tuple(rows), notes)


def set_aside_table(content: StreamContent) -> Table:
    """Return how many images were set aside for which reason."""
    rows = tuple((Cell(reason), Cell(f"{count:,}")) for reason, count in content.set_aside.items())
    return Table("Set aside, by reason", ("Reason", "Images"), rows, ())


def comparison_picture(content: StreamContent) -> Markup:
    """Return the newest difference between challenger and champion with its interval; nothing if there is none."""
    if content.newest_verdict is None:
        return Markup("")
    numbers = content.newest_verdict[1].get("numbers", {})
    if not {"low", "high", "difference", "margin"} <= set(numbers):
        return Markup("")
    return interval_picture(numbers["low"], numbers["high"], numbers["difference"], numbers["margin"])


def looks(content: StreamContent) -> str:
    """Return how often the hold-out may still be used, and why that is limited."""
    state, allowed = content.state, content.state.contract["gate"]["looks"]
    images = state.generation.images if state.generation else 0
    return (
        f"This hold-out has {images:,} images and {max(state.looks_left, 0)} of {allowed} looks left. Each comparison "
        "uses one: a hold-out that is asked too often says yes by chance."
    )


def releases_table(content: StreamContent) -> Table:
    """Return every change of the champion, the newest first."""
    models = content.state.models
    rows = tuple(
        (
            Cell(str(one.number)),
            Cell(one.model),
            Cell(moment(one.at)),
            Cell(f"{models[one.model].images:,}"),
            Cell(_percent(models[one.model].accuracy)),
            Cell(HOW.get(one.by, one.by) + (f": {one.reason}" if one.reason else "")),
        )
        for one in reversed(content.state.releases)
    )
    headings = ("Release", "Model", "Served since", "Training images", "Right on the hold-out", "Because")
    return Table("Releases, the newest first", headings, rows, ())


def charts(content: StreamContent) -> list[tuple[str, str, Markup]]:
    """Return title, caption and picture of accuracy, computation and time over the chunks."""
    models = list(content.state.models.values())
    if not models:
        return []
    accuracy = [
        Line("each new model", "challenger", _points(models, lambda model: 100 * model.accuracy)),
        Line("the champion then", "champion", _champion_points(content)),
    ]
    flops = [Line("training", "cost", _points(models, lambda model: model.flops / 1e12))]
    seconds = [Line("training", "cost", _points(models, lambda model: model.seconds))]
    return [
        (
            "Right on the hold-out, %",
            "Each point is one trained model, on the hold-out of its time.",
            line_chart("accuracy by chunk", "%", "chunk", accuracy),
        ),
        (
            "TFLOPs of each training",
            "Counted, intervention included.",
            line_chart("TFLOPs by chunk", "TFLOPs", "chunk", flops),
        ),
        (
            "Seconds of each training",
            "As measured beside whatever else the machine did.",
            line_chart("seconds by chunk", "s", "chunk", seconds),
        ),
    ]


def _points(models: Sequence[ModelEntry], value: Callable[[ModelEntry], float]) -> list[tuple[int, float]]:
    return [(model.chunk, value(model)) for model in models]


def _champion_points(content: StreamContent) -> list[tuple[int, float]]:
    models = content.state.models
    return [
        (model.chunk, 100 * models[champion].accuracy)
        for model, champion in content.champions()
        if champion is not None
    ]


def undo(content: StreamContent) -> list[tuple[str, str]]:
    """Return how to undo what happened: a sentence and the command."""
    state, name = content.state, content.state.name
    found = []
    if state.previous and state.previous not in state.tainted:
        since = f"Serve the previous model, {state.previous}, again. It takes effect at once and trains nothing:"
        found.append((since, f'dashpipe stream rollback {name} --because "..."'))
    if any(arrival.chunk and arrival.retracted is None for arrival in state.arrivals[1:]):
        wrong = "Take a delivery that was wrong out of all later training and testing:"
        found.append((wrong, f'dashpipe stream retract {name} DELIVERY --because "..."'))
    found.append(("See which models there are, and what each is made of:", f"dashpipe stream status {name}"))
    return found


def facts(content: StreamContent) -> Table:
    """Return what was agreed when the stream was created, and its identity."""
    state, contract = content.state, content.state.contract
    gate = contract["gate"]
    rows = (
        ("Classes", ", ".join(contract["classes"])),
        ("Images", f"{contract['image_size']} pixels a side, {contract['channels']} channel(s)"),
        ("Model", contract["model"]["name"]),
        ("Method", contract["method"]["label"]),
        ("Held out", f"{100 * contract['hold_out']['share']:g} % of the images"),
        ("Tolerated loss", f"{100 * gate['margin']:g} points"),
        ("Level", f"{gate['alpha']:g} over {gate['looks']} looks"),
        ("Continues from", f"the {contract['parent']} model" if contract["parent"] == "latest" else "the champion"),
        ("Contract", state.contract_digest[:12]),
        ("Ledger", f"{state.ledger_id[:12]} … {state.head[:12]}"),
    )
    return Table("Contract", (), tuple((Cell(name), Cell(str(value))) for name, value in rows), ())


def _percent(share: float) -> str:
    return f"{100 * share:.2f} %"


def _images(count: int) -> str:
    return f"{count:,} image{'s' if count != 1 else ''}"
