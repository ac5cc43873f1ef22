"""What the pipeline's stages do. Each reads the outputs of earlier stages and writes one of its own.

With a results folder (dvc.yaml), outputs have fixed paths there, and complete runs are copied into it. Their resume
state stays in the store, because DVC deletes a stage's outputs before it runs. Without a results folder everything
is in the store.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from dash_core.comparison import Params
from dash_core.data import ChunkPlan, Dataset
from dash_core.errors import ConfigError, RecordError
from dash_core.files import make_writable_folder, write_atomically
from flows.command_line import compare, session
from flows.command_line.options import SharedOptions
from flows.command_line.output import say
from tasks.store.code import code_digest
from tasks.store.datasets import open_dataset, open_plan, plan_path
from tasks.store.evidence import Evidence, gather
from tasks.store.place import Place
from tasks.store.results import Results, check_dataset, describe, keep, kept_plans, read_description, write_description
from tasks.store.runs import is_complete

if TYPE_CHECKING:
    from dash_core.views.figures import PlotlyFigure
    from tasks.tracking.failures import Failures
    from tasks.tracking.mirror import Mirror
    from tasks.tracking.publication import Published


@dataclass(frozen=True)
class Stages:
    """One pipeline: its parameters, where its runs are trained, its options, and its folder of outputs."""

    settings: Params
    place: Place
    options: SharedOptions
    results: Results | None
    console: Console

    @classmethod
    def of(cls, settings: Params, place: Place, options: SharedOptions, console: Console) -> "Stages":
        """Return the pipeline over its results folder, if the options name one."""
        if options.results is None:
            return cls(settings, place, options, None, console)
        results = Results(folder=options.results.resolve())
        make_writable_folder("--results", results.folder)
        inputs = {"given_splits": results.splits, "given_code": code_digest()}
        return cls(settings, place.model_copy(update=inputs), options, results, console)

    def prepare(self) -> None:
        """Decode the dataset; describe it in the results."""
        dataset = session.decoded(self.settings, self.place, self.console)
        if self.results:
            write_description(dataset, self.results.dataset)
        shape = "×".join(map(str, dataset.train.image_shape))
        self._print(
            f"{dataset.name}: {len(dataset.train):,} training and {len(dataset.test):,} test images of {shape}, "
            f"{dataset.train.classes} classes, content {dataset.train.digest[:8]}"
        )
        for sentence in dataset.noticed.sentences if dataset.noticed else ():
            self._print(f"note     {sentence}")

    def split(self) -> None:
        """Make and save the chunk plan of every seed."""
        dataset = session.check_data(self.settings, self.place, self.console)
        self._check_described(dataset)
        for seed in self.settings.seeds:
            plan = ChunkPlan.split(
                dataset.train, self.settings.dataset, self.settings.chunks, seed, self.settings.protocol
            )
            plan.save(plan_path(self.place.splits, self.settings, seed, dataset.train.digest))
            self._print(_plan_line(plan))

    def check_splits(self) -> None:
        """Verify that the plan of every seed belongs to the dataset, is disjoint and covers it."""
        dataset = session.check_data(self.settings, self.place, self.console)
        for seed, plan in kept_plans(self.settings, self.place.splits, dataset.train.digest).items():
            if plan.seed != seed or len(plan) != self.settings.chunks:
                raise RecordError(
                    f"{plan_path(self.place.splits, self.settings, seed, dataset.train.digest)} holds the plan of "
                    f"seed {plan.seed} in {len(plan)} chunks; make the split again"
                )
            plan.check(dataset.train, self.settings.dataset)
            self._print(f"{_plan_line(plan)}: belongs to {dataset.name}, disjoint, covering")

    def train(self, method: str) -> None:
        """Train every seed of a method; copy the complete runs to the results."""
        runs = [self.settings.run(method, seed) for seed in self.settings.seeds]
        dataset = session.check_data(self.settings, self.place, self.console)
        splits = {}
        if self.results:
            self._check_described(dataset)
            plans = kept_plans(self.settings, self.place.splits, dataset.train.digest)
            splits = {seed: plan.digest for seed, plan in plans.items()}
        if all(is_complete(run, self.place, splits.get(run.seed), self.place.given_code) for run in runs):
            self._print(f"{method}: {len(runs)} runs, complete already")
        else:
            compare.train_method(self.settings, method, self.place, self.console)
        if self.results:
            for run in runs:
                keep(run, self.place, self.results)
            self._print(f"{method}: {len(runs)} complete runs in {self.results.method_folder(method)}")

    def tables(self) -> None:
        """Write and print the comparison's table."""
        from flows.command_line.live import print_table
        from tasks.store.comparison_folder import write_plots_page, write_tables

        folder = self.results.folder / "tables" if self.results else self.place.comparison_folder(self.settings)
        if self.results:
            write_plots_page(folder / "plots.html")
        print_table(write_tables(self._evidence(), folder), self.console)
        self._print(f"\ntables   {folder}")

    def figures(self) -> None:
        """Draw the comparison's figures."""
        from dash_core.views import figures

        evidence = self._evidence()
        parent = self.results.folder if self.results else self.place.comparison_folder(self.settings)
        self._draw(figures.draw(evidence.methods, evidence.data["class_names"]), parent / "figures")

    def report(self) -> None:
        """Write the comparison's page; in MLflow, send what is missing and close the comparison."""
        from flows.services.announce import warned_failures

        _, _, published = self._complete(self._evidence(), warned_failures())
        path = published.folder / "report.html"
        if self.results:
            write_atomically(self.results.folder / "report.html", path.read_bytes())
            path = self.results.folder / "report.html"
        self._print(f"report   {path}")
        self._print(f"MLflow   {self.options.ui_command}")

    def sync(self) -> None:
        """Complete the comparison in MLflow from what is on disk; TrackerAway if MLflow fails."""
        from tasks.tracking.failures import Failures

        if not self.results:
            for seed in self.settings.seeds:  # the command `run` makes only the plan of its own seed
                open_plan(self.settings.run(self.settings.compare.methods[0], seed), self._dataset(), self.place)
        evidence = self._evidence()
        mirror, added, _ = self._complete(evidence, Failures())
        left = len(self.settings.runs()) - len(evidence.runs)
        mirror.failures.check()
        for run_id in added:
            self._print(f"added    {run_id}")
        present = len(evidence.runs) - len(added)
        self._print(f"MLflow   {mirror.address}: {len(added)} runs added, {present} were there, {left} not complete")

    def theory(self) -> None:
        """Simulate discrete feature learning, write its numbers and draw figure 3."""
        from dash_core.theory import simulate, to_csv
        from dash_core.views import figures
        from flows.command_line.live import progress_bar

        folder = (self.results.folder if self.results else self.place.store) / "theory"
        config = self.settings.theory
        with progress_bar(self.console) as show:
            points = simulate(config, lambda seed: show("seeds", config.seeds.index(seed) + 1, len(config.seeds)))
        write_atomically(folder / "theory.csv", to_csv(points).encode())
        self._draw({"theory": figures.theory_figure(points)}, folder)
        for point in points[-3:]:
            self._print(
                f"{point.method:7}experiment {point.experiment}: test accuracy {point.test_accuracy.mean:.2f} % "
                f"({point.test_accuracy.std:.2f}), {point.learned_features.mean:.1f} features learned"
            )

    def _evidence(self) -> Evidence:
        """Return the evidence of the complete runs; RecordError if no run is complete."""
        if self.results:
            data = read_description(self.results.dataset)
            self.results.prune(self.settings.compare.methods)
        else:
            data = describe(session.decoded(self.settings, self.place, self.console))
        plans = kept_plans(self.settings, self.place.splits, data["train_digest"])
        splits = {seed: plan.digest for seed, plan in plans.items()}
        evidence = gather(self.settings, self.results or self.place, splits, data)
        if not evidence.runs:
            remedy = "dvc repro" if self.results else self.options.compare_here_command
            raise RecordError(f"no run of {self.settings.name} is complete: `{remedy}` trains them")
        return evidence

    def _complete(self, evidence: Evidence, failures: "Failures") -> tuple["Mirror", list[str], "Published"]:
        """Complete the comparison in MLflow, write its page; return its mirror, the ids of runs added, and the page."""
        from tasks.tracking.mirror import Mirror
        from tasks.tracking.publication import publish_comparison

        mirror = Mirror(self.settings, self.place, self._dataset, failures, self.results)
        added = [run.id for run in evidence.runs if mirror.bring(run, wait=True)]
        return mirror, added, publish_comparison(evidence, self.place, mirror, self._command(), failed=False)

    def _command(self) -> str:
        return "uv run dvc repro" if self.results else self.options.compare_command

    def _dataset(self) -> Dataset:
        return open_dataset(self.settings.dataset, self.place)

    def _check_described(self, dataset: Dataset) -> None:
        if self.results:
            check_dataset(dataset, read_description(self.results.dataset), self.results.dataset)

    def _draw(self, plots: Mapping[str, "PlotlyFigure"], folder: Path) -> None:
        """Write figures as HTML, and as SVG and PNG where a browser draws them; say so if none does."""
        from dash_core.views.figures import write_figures

        written = write_figures(plots, folder, static=False)
        try:
            written = write_figures(plots, folder, static=True)
        except ConfigError as error:
            self._print(f"note     the figures are HTML only: {error}")
        self._print(f"figures  {folder} ({len(written)} files)")

    def _print(self, line: str) -> None:
        say(self.console, line)


def _plan_line(plan: ChunkPlan) -> str:
    sizes = sorted({len(chunk) for chunk in plan.chunks})
    between = "to" if len(sizes) > 2 else "or"
    images = f"{sizes[0]}" if len(sizes) == 1 else f"{sizes[0]} {between} {sizes[-1]}"
    return f"seed {plan.seed}: {len(plan)} chunks of {images} images, split {plan.digest[:8]}"
