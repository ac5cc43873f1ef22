"""bench/RESULTS.md: a section a benchmark and processor, written anew by its own command; the others are left."""

import re
from pathlib import Path

from dash_core.files import write_atomically
from tasks.store.runs import commit

RESULTS = Path(__file__).parent / "RESULTS.md"
HEAD = """# Measured

Each section is written by the command it names, one for each processor. Ratios are of medians, taken in turns within
one run.
"""


def write_section(title: str, command: str, machine: dict, lines: list[str]) -> None:
    """Replace the section of that title and processor, or add it; print it as well."""
    title = f"{title} · {machine['device']}"
    facts = f"{machine['cores']} cores, torch {machine['torch']}, Python {machine['python']}, commit {commit()}"
    body = "\n".join([f"## {title}", "", f"`{command}` · {facts}", "", *lines, ""])
    print(body)
    text = RESULTS.read_text(encoding="utf-8") if RESULTS.exists() else HEAD
    parts = re.split(r"(?m)^(?=## )", text)
    kept = [part.rstrip() + "\n" for part in parts if not part.startswith(f"## {title}\n")]
    write_atomically(RESULTS, "\n".join([*kept, body]).encode())


def table(headings: list[str], rows: list[list[str]]) -> list[str]:
    """Return a markdown table, its first column to the left, the others to the right."""
    lines = [headings, ["--", *["--:"] * (len(headings) - 1)], *rows]
    return ["| " + " | ".join(line) + " |" for line in lines]
