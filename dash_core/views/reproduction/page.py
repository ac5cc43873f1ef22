"""The page of an item: the claims, the figure or table, the verdicts, and their conditions."""

import re

from dash_core.views.holm import holm_words
from dash_core.views.report.offline import bound, drawn, render
from dash_core.views.report.sections import flat
from dash_core.views.reproduction.claims import counted
from dash_core.views.reproduction.item import SCALES
from dash_core.views.reproduction.reproduced import Reproduced
from dash_core.views.tables import Cell, Table

VERDICT_NOTES = (
    "agree: the 95 % interval of the paired differences over seeds lies on the side of the claim; disagree: on the "
    "other; too few seeds: the interval holds the claimed bound (0, or minus a margin), or rests on fewer than 3 pairs",
    "Holm: yes if the verdict survives Holm's correction for all claims on this page, so that a wrong verdict is among "
    "the survivors with probability 5 % at most; –: no test, because a value is held against a printed number, or "
    "there are too few seeds",
    "where a claim is marked as our reading, the paper's own words or numbers are not known",
)


def item_html(made: Reproduced) -> str:
    """Return an item's page: one HTML file that requests nothing; equal contents give equal bytes."""
    view = made.view
    return render(
        "item.html.j2",
        made=made,
        meaning=SCALES[made.scale],
        reading=bound(" ".join(filter(None, (made.item.answer(made.outcome, made.rule), _reading(made))))),
        verdicts=_verdicts(made),
        figures=[drawn(_slug(d.name), d.title, d.caption, d.figure) for d in view.drawings],
        tables=view.tables,
        facts=[*_settings(made), _machines(made)],
    )


def _slug(name: str) -> str:
    """Return the name as an HTML id."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def _reading(made: Reproduced) -> str:
    counts = counted(made.findings)
    if not made.findings:
        return "There is no claim to check: the paper's values are UNKNOWN, or belong to its hardware."
    decided = f"Of {len(made.findings)} claims: " + ", ".join(f"{n} {judgement}" for judgement, n in counts.items())
    return f"{decided}; {sum(made.surviving)} of these verdicts survive Holm's correction."


def _verdicts(made: Reproduced) -> Table:
    rows = tuple(
        (
            Cell(f.claim.text + (f" (our reading: {f.claim.ours})" if f.claim.ours else "")),
            Cell(f.judgement, bold=True),
            Cell("\n".join(f"{v.numbers} → {v.judgement}" for v in f.verdicts)),
            Cell(str(f.seeds)),
            Cell(holm_words(f.p_values is not None, survives)),
        )
        for f, survives in zip(made.findings, made.surviving, strict=True)
    )
    notes = (f"rule: {made.rule.name}", *VERDICT_NOTES)
    return Table("Claims and verdicts", ("Claim", "Verdict", "Numbers", "Seeds", "Holm"), rows, notes)


def _settings(made: Reproduced) -> list[Table]:
    """Return the settings of each comparison, defaults included, one row per value."""
    tables = []
    for key, one in made.outcome.items():
        whole = one.params.model_dump(mode="json")
        settings = whole["theory"] if made.item.simulated else {k: v for k, v in whole.items() if k != "theory"}
        rows = tuple((Cell(name), Cell(_shown(value))) for name, value in flat(settings))
        tables.append(Table(f"Settings: {key}", (), rows, ()))
    return tables


def _machines(made: Reproduced) -> Table:
    rows = tuple((Cell(name), Cell(_shown(value))) for machine in made.machines for name, value in machine.items())
    return Table("Machines, versions and commit", (), rows, ())


def _shown(value: object) -> str:
    return "–" if value is None else str(value)
