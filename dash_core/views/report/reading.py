"""The comparison in words: what the numbers show, with seeds and intervals, and every reason to doubt them."""

from collections.abc import Mapping, Sequence
from typing import Any

from dash_core.config import ModelConfig
from dash_core.views.report.content import ReportContent
from dash_core.views.statistics import (
    CLEAR_SEEDS,
    PairedDifference,
    paired_differences,
    reference_of,
    seed_warnings,
)
from dash_core.views.summary import BY_KEY, COLUMNS, MethodRuns, best, listed, sameness, summarise

ACCURACY, AVERAGE_ACCURACY = BY_KEY["last_accuracy"], BY_KEY["average_accuracy"]
COSTS = {"average_steps": "steps", "teraflops": "TFLOPs", "seconds": "seconds"}


_ALL_SO_FAR = "{model} is trained on all chunks so far, {how}, until {end}"
_BETWEEN = "The methods differ in what they do to the model between two chunks."
DONE = {  # the course of each protocol, as the report describes it
    "standard": f"The training images come in {{chunks}} chunks. After each, {_ALL_SO_FAR}. {_BETWEEN}",
    "two_phase": (
        "First {model} is trained on {share:g} % of the training images, {how}, until {pretrained}; then on all of "
        "them, until {end}. The methods differ in what they do to the model in between."
    ),
    "discarding": (
        "The training images come in {chunks} chunks, and {model} is trained on one after the other, without those "
        "before it, {how}, until {end}. The methods differ in what they do to the model after every {interval} chunks, "
        "up to chunk {last_intervention}."
    ),
    "continuous": (
        "The training images come in {chunks} chunks, one with each epoch in which {model} is trained on all so far, "
        "{how}; {final_epochs} epochs on all follow. The methods differ in what they do to the model after every "
        "{interval} epochs as long as chunks arrive; cold has all of them from the beginning and is not restarted."
    ),
    "class_incremental": (
        "The training images come in {chunks} chunks, a class in each. After each, "
        f"{_ALL_SO_FAR}, and tested on the classes so far. {_BETWEEN}"
    ),
}


def headline(content: ReportContent) -> str:
    """Return a paragraph on the methods, the data and the course of the runs."""
    settings = content.settings
    labels = settings["compare"]["methods"]
    complete = sum(len(method.runs) for method in content.methods)
    return (
        f"{listed(labels)} on {settings['dataset']['name']} ({_training_images(content)}, "
        f"{_test_images(content)}, {len(content.class_names)} classes). {_protocol(settings)} "
        f"{complete} of {len(labels) * content.planned_seeds} runs are complete "
        f"({_seeds(content.planned_seeds)} a method)."
    )


def _protocol(settings: Mapping[str, Any]) -> str:
    """Return the course of the runs, experiment by experiment."""
    training, protocol = settings["training"], dict(settings["protocol"])
    words = {
        **protocol,
        "chunks": settings["chunks"],
        "model": ModelConfig(**settings["model"]).title,
        "how": f"with {settings['optimizer']['name']} and the {training['recipe']} recipe",
        "share": 100 * protocol.get("share", 1),
        "pretrained": _end(training, protocol.get("pretrain_epochs"), protocol.get("pretrain_accuracy")),
        "end": _end(training, protocol.get("epochs")),
    }
    last = settings["experiments"]
    return DONE[protocol["name"]].format(**words) + (f" Each run ends after experiment {last}." if last else "")


def _end(training: Mapping[str, Any], epochs: int | None = None, accuracy: float | None = None) -> str:
    """Return the rule that ends training: the given one, else that of the section `training`."""
    if training.get("stop") == "validation" and not (epochs or accuracy):
        return (
            f"the accuracy on {100 * training['validation_share']:g} % of each chunk, held out, has not risen for "
            f"{training['patience']} epochs (the best epoch is kept) or {training['max_epochs']} epochs are over"
        )
    accuracy = accuracy or training["stop_accuracy"]
    if epochs or accuracy is None:
        return f"{epochs or training['max_epochs']} epochs are over"
    return f"it fits {100 * accuracy:g} % of them or {training['max_epochs']} epochs are over"


def _training_images(content: ReportContent) -> str:
    """Return the number of training images, of used ones, and of labels that are wrong on purpose."""
    dataset = content.settings["dataset"]
    images, noise = _used(content.data["train_images"], dataset["train_size"], "training"), dataset["label_noise"]
    return f"{images}, {100 * noise:g} % of them with a wrong label" if noise else images


def _test_images(content: ReportContent) -> str:
    return _used(content.data["test_images"], content.settings["dataset"]["test_size"], "test")


def _used(found: int, size: int | None, what: str) -> str:
    """Return the number of images of a set, and of used ones if not all are used."""
    return f"{found:,} {what} images" if size in (None, found) else f"{size:,} of {found:,} {what} images"


def reading(content: ReportContent) -> list[str]:
    """Return findings, then warnings, one sentence each."""
    return [*findings(content), *warnings(content)]


def findings(content: ReportContent) -> list[str]:
    """Return the best method, and for each method its differences from the reference and its cost."""
    complete = [method for method in content.methods if method.runs]
    if not complete:
        return ["No run is complete: there are no numbers yet."]
    reference = reference_of(complete)
    if reference is None:
        return [_best(complete), "No run of cold, the reference, is complete: no differences can be given."]
    by_label = {method.label: method for method in complete}
    last, average = (paired_differences(complete, reference, [column]) for column in (ACCURACY, AVERAGE_ACCURACY))
    return [
        _best(complete),
        *(
            f"{_difference(at_last)} Averaged over the experiments: {on_average.write_briefly()}. "
            f"{_cost(at_last, by_label[at_last.label], reference)}"
            for at_last, on_average in zip(last, average, strict=True)
        ),
    ]


def warnings(content: ReportContent) -> list[str]:
    """Return every reason to doubt the numbers: experiments that did not converge, seeds missing or too few."""
    known = {method.label: method for method in content.methods}
    planned = [known.get(label, MethodRuns(label, label, {})) for label in content.settings["compare"]["methods"]]
    stuck = [
        f"{s.label}: {s.not_converged} of {s.experiments} experiments ended at max_epochs before they converged."
        for s in summarise(content.methods)
        if s.not_converged
    ]
    lost = [
        f"{s.label}: the training of {s.diverged} of {s.experiments} experiments diverged (their train loss ended far "
        "above that of a guess): its numbers mean nothing. Lower optimizer.lr."
        for s in summarise(content.methods)
        if s.diverged
    ]
    same = [f"{sentence}." for sentence in sameness(content.methods)]
    return [*lost, *same, *stuck, *seed_warnings(planned, content.planned_seeds), *_conditions(content)]


def _conditions(content: ReportContent) -> list[str]:
    """Return a warning if the runs were timed under different conditions; another commit is no such difference."""
    timed = {tuple(sorted((key, str(value)) for key, value in m.items() if key != "commit")) for m in content.machines}
    if len(timed) < 2:
        return []
    return [f"The runs were made under {len(timed)} different conditions (see Set-up): their seconds do not compare."]


def _best(methods: Sequence[MethodRuns]) -> str:
    summaries = summarise(methods)
    winners = best(summaries, ACCURACY)
    labels = [summary.label for summary in summaries if summary.label in winners]
    mean = next(s.spreads[ACCURACY.key].mean for s in summaries if s.label in winners)
    value = f"{mean * ACCURACY.scale:.{ACCURACY.digits}f} %"
    if len(summaries) == 1:
        return f"Mean last test accuracy of {labels[0]}: {value}."
    return f"Best mean last test accuracy: {listed(labels)}, {value}{' each' if len(labels) > 1 else ''}."


def _difference(difference: PairedDifference) -> str:
    return f"Last test accuracy: {difference.write()}{_verdict(difference)}."


def _verdict(difference: PairedDifference) -> str:
    """Return the conclusion from the interval; nothing if `write` already says that there is no interval."""
    if difference.low is None or difference.high is None or difference.low == difference.high:
        return ""
    if difference.clear:
        return f": {difference.label} is {'more' if difference.mean > 0 else 'less'} accurate"
    if difference.low <= 0 <= difference.high:
        return ": no difference can be told"
    return f": with fewer than {CLEAR_SEEDS} pairs no difference is called clear"


def _cost(difference: PairedDifference, method: MethodRuns, reference: MethodRuns) -> str:
    """Return the cost of whole runs over the paired seeds: mean of the method / mean of the reference.

    Both have the same number of experiments, so the ratio of average steps is the ratio of all steps.
    """
    shares = []
    for column in COLUMNS:
        spent, whole = (sum(column.measure(m.runs[seed]) for seed in difference.seeds) for m in (method, reference))
        if column.key in COSTS and whole:
            shares.append(f"{spent / whole:.2f}× the {COSTS[column.key]}")
    return f"{method.label}’s whole run took {listed(shares)} of {reference.label}’s."


def _seeds(count: int) -> str:
    return f"{count} seed{'s' if count != 1 else ''}"
