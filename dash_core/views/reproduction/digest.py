"""The one table of all items: the claim, the verdict, the numbers, and their conditions."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from dash_core.views.holm import holm_words, surviving
from dash_core.views.rules import FIXED_SEEDS, PValues

HEADINGS = ("Item", "Claim", "Verdict", "Numbers", "Holm", "Scale", "Seeds", "Seconds", "Command")
NO_CLAIM = "no claim to check: the paper's values are UNKNOWN, or belong to its hardware"
MACHINE = ("device", "cores", "threads", "python", "torch")
VARIED = ("workers", "precision")  # from run to run
EXPLAINED = (
    "The verdict `agree` means that the 95 % interval of the paired differences over seeds is on the side of the "
    "claim, `disagree` that it is on the other side, and `too few seeds` that it contains the claimed bound (0, or "
    "minus the margin where the claim is that nothing is lost), has no width because all pairs are equal, or rests on "
    "fewer than 3 pairs. An order of methods is tested between neighbours alone. A number that the paper "
    "prints agrees if ours is within two of its standard deviations. A claim of several comparisons agrees if each of "
    "them does, and disagrees if any does, each at 95 %: of many true claims, some will disagree by chance. "
    "`Holm` says whether a verdict survives Holm's correction for all claims of this page: a wrong verdict is among "
    "the survivors with probability 5 % at most. A dash means that nothing was tested, because a value is held against "
    "a printed number or there are too few seeds. "
    "Seconds are the sum over all runs; items share runs. "
    "An asterisk marks a claim in our reading, because the paper's exact words are not known: the item's page says why."
)


def digest(results: Sequence[Mapping[str, Any]]) -> str:
    """Return the results of items (`Reproduced.result`) as one page of GitHub markdown."""
    holm = _survival(results)
    rows = [row for result in results for row in _rows(result, holm)]
    lines = ["| " + " | ".join(HEADINGS) + " |", "|:--|:--|:--|:--|:--|:--|--:|--:|:--|"]
    lines += ["| " + " | ".join(text.replace("|", "\\|") for text in row) + " |" for row in rows]
    parts = [
        "# The paper, item by item",
        *_hardware(results),
        _counts(results, holm),
        *_rules(results),
        EXPLAINED,
        "\n".join(lines),
    ]
    parts += _stand_ins(results)
    return "\n\n".join(parts) + "\n"


def _survival(results: Sequence[Mapping[str, Any]]) -> Mapping[tuple[str, str], str]:
    """Return, by item and claim, whether the verdict survives Holm's correction for all claims of the results."""
    claims = {(result["item"], claim["text"]): claim for result in results for claim in result["claims"]}
    # records of earlier versions have no p-values
    p_values = [PValues(**p) if (p := claim.get("p_values")) else None for claim in claims.values()]
    survivors = zip(claims, p_values, surviving(p_values), strict=True)
    return {key: holm_words(p is not None, survives) for key, p, survives in survivors}


def _rules(results: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return one line per rule by which differences were judged."""
    rules = {}
    for result in results:
        if result["claims"]:
            rules.setdefault(result.get("rule", FIXED_SEEDS.name), []).append(result["item"])
    if len(rules) == 1:
        return [f"Rule of all intervals: {next(iter(rules))}."]
    return [f"Rule of the intervals of {', '.join(items)}: {rule}." for rule, items in rules.items()]


def _rows(result: Mapping[str, Any], holm: Mapping[tuple[str, str], str]) -> list[tuple[str, ...]]:
    shared = (result["scale"], f"`{result['command']}`")
    name, seconds = result["item"], f"{result['seconds']:,.0f}"
    if not result["claims"]:
        return [(name, NO_CLAIM, "–", "–", "–", shared[0], str(result["seeds"]), seconds, shared[1])]
    return [
        (
            name,
            claim["text"] + (" *" if claim["ours"] else ""),
            f"**{claim['verdict']}**",
            claim["numbers"],
            holm[name, claim["text"]],
            shared[0],
            str(claim["seeds"]),
            seconds,
            shared[1],
        )
        for claim in result["claims"]
    ]


def _hardware(results: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return one line per machine on which runs were trained, with all numbers of runs at once and precisions there."""
    alike = defaultdict(list)
    for machine in (machine for result in results for machine in result["machines"]):
        alike[tuple(machine.get(name) for name in MACHINE)].append(machine)
    return sorted(
        "Measured on {device}, {cores} cores, {workers} run(s) at once of {threads} thread(s), precision {precision}, "
        "Python {python}, torch {torch}.".format(**{name: _all_of(machines, name) for name in (*MACHINE, *VARIED)})
        for machines in alike.values()
    )


def _all_of(machines: Sequence[Mapping[str, Any]], name: str) -> str:
    """Return the values of a fact; simulations have no precision, and records of earlier versions lack facts."""
    return " or ".join(sorted({str(machine[name]) for machine in machines if machine.get(name)})) or "unknown"


def _counts(results: Sequence[Mapping[str, Any]], holm: Mapping[tuple[str, str], str]) -> str:
    verdicts = [claim["verdict"] for result in results for claim in result["claims"]]
    words = ", ".join(f"{verdicts.count(v)} {v}" for v in ("agree", "disagree", "too few seeds"))
    survivors = sum(survives == "yes" for survives in holm.values())
    return f"{len(results)} items, {len(verdicts)} claims: {words}; {survivors} verdicts survive Holm's correction."


def _stand_ins(results: Sequence[Mapping[str, Any]]) -> list[str]:
    lines = [f"- {r['item']}, {r['scale']}: {r['stands_in']}" for r in results if r["stands_in"]]
    left = [f"- {r['item']}, {r['scale']}: {r['left']} runs" for r in results if r.get("left")]
    failed = [f"- {r['item']}, {r['scale']}: {len(r['failures'])} runs failed" for r in results if r["failures"]]
    parts = ["## What stands in for the paper's setting\n\n" + "\n".join(lines)] if lines else []
    if left:
        parts.append("## Runs that are left: the same command continues\n\n" + "\n".join(left))
    return parts + (["## Runs that failed\n\n" + "\n".join(failed)] if failed else [])
