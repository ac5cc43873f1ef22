"""The one table of all items: the paper's claim, the verdict, the numbers, and their conditions."""

from collections.abc import Mapping, Sequence
from typing import Any

HEADINGS = ("Item", "The paper's claim", "Verdict", "Numbers", "Scale", "Seeds", "Seconds", "Command")
NO_CLAIM = "no claim to check: the paper's values are UNKNOWN, or belong to its hardware"
MACHINE = ("device", "cores", "workers", "threads", "python", "torch")
EXPLAINED = (
    "The verdict `agree` means that the 95 % interval of the paired differences over seeds is on the side of the "
    "claim, `disagree` that it is on the other side, and `too few seeds` that it contains the claimed bound (0, or "
    "minus the margin where the claim is that nothing is lost) or rests on fewer than 3 pairs. A number that the paper "
    "prints agrees if ours is within two of its standard deviations. A claim of several comparisons agrees if each of "
    "them does, and disagrees if any does, each at 95 %: of many true claims, some will disagree by chance. "
    "Seconds are the sum over all runs; items share runs. "
    "An asterisk marks a claim in our reading, because the paper's exact words are not known: the item's page says why."
)


def digest(results: Sequence[Mapping[str, Any]]) -> str:
    """Return the results of items (`Reproduced.result`) as one page of GitHub markdown."""
    rows = [row for result in results for row in _rows(result)]
    lines = ["| " + " | ".join(HEADINGS) + " |", "|:--|:--|:--|:--|:--|--:|--:|:--|"]
    lines += ["| " + " | ".join(text.replace("|", "\\|") for text in row) + " |" for row in rows]
    parts = ["# The paper, item by item", *_hardware(results), _counts(results), EXPLAINED, "\n".join(lines)]
    parts += _stand_ins(results)
    return "\n\n".join(parts) + "\n"


def _rows(result: Mapping[str, Any]) -> list[tuple[str, ...]]:
    shared = (result["scale"], f"`{result['command']}`")
    name, seconds = result["item"], f"{result['seconds']:,.0f}"
    if not result["claims"]:
        return [(name, NO_CLAIM, "–", "–", shared[0], str(result["seeds"]), seconds, shared[1])]
    return [
        (
            name,
            claim["text"] + (" *" if claim["ours"] else ""),
            f"**{claim['verdict']}**",
            claim["numbers"],
            shared[0],
            str(claim["seeds"]),
            seconds,
            shared[1],
        )
        for claim in result["claims"]
    ]


def _hardware(results: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return one line per machine on which runs were trained."""
    lines = {
        "Measured on {device}, {cores} cores, {workers} run(s) at once of {threads} thread(s), Python {python}, "
        "torch {torch}.".format(**{name: machine.get(name, "unknown") for name in MACHINE})
        for result in results
        for machine in result["machines"]
    }
    return sorted(lines)


def _counts(results: Sequence[Mapping[str, Any]]) -> str:
    verdicts = [claim["verdict"] for result in results for claim in result["claims"]]
    words = ", ".join(f"{verdicts.count(v)} {v}" for v in ("agree", "disagree", "too few seeds"))
    return f"{len(results)} items, {len(verdicts)} claims: {words}."


def _stand_ins(results: Sequence[Mapping[str, Any]]) -> list[str]:
    lines = [f"- {r['item']}, {r['scale']}: {r['stands_in']}" for r in results if r["stands_in"]]
    failed = [f"- {r['item']}, {r['scale']}: {len(r['failures'])} runs failed" for r in results if r["failures"]]
    parts = ["## What stands in for the paper's setting\n\n" + "\n".join(lines)] if lines else []
    return parts + (["## Runs that failed\n\n" + "\n".join(failed)] if failed else [])
