"""bench/RESULTS.md: one section for each benchmark and processor. A command replaces its own section only."""

import re
from pathlib import Path

from dash_core.device import cpu_name
from dash_core.files import write_atomically

RESULTS = Path(__file__).parent / "RESULTS.md"
CPUINFO = Path("/proc/cpuinfo")
INSTRUCTION_SETS = {  # the largest first, by the flag that tells of it
    "amx_bf16": "AMX",
    "avx512_bf16": "AVX-512 with bf16",
    "avx512f": "AVX-512",
    "avx2": "AVX2",
}
HEAD = """# Measured

Each section is written by the command it names, one section for each processor. Ratios are ratios of medians, measured
in turns within one run.
"""


def write_section(title: str, command: str, machine: dict, lines: list[str]) -> None:
    """Replace the section with this title and processor, or add it; print it as well."""
    from tasks.store.runs import commit  # needs more than torch, as bench.gpu does not

    write_section_of(commit(), title, command, machine, lines)


def write_section_of(commit: str | None, title: str, command: str, machine: dict, lines: list[str]) -> None:
    """Do what `write_section` does, with the commit given."""
    title = f"{title} · {machine['device'] if machine['device_type'] == 'cuda' else processor()}"
    facts = f"{machine['cores']} cores, torch {machine['torch']}, Python {machine['python']}, commit {commit}"
    body = "\n".join([f"## {title}", "", f"`{command}` · {facts}", "", *lines, ""])
    print(body)
    text = RESULTS.read_text(encoding="utf-8") if RESULTS.exists() else HEAD
    parts = re.split(r"(?m)^(?=## )", text)
    kept = [part.rstrip() + "\n" for part in parts if not part.startswith(f"## {title}\n")]
    write_atomically(RESULTS, "\n".join([*kept, body]).encode())


def processor() -> str:
    """Return the name of this machine's processor in a section's title; without /proc/cpuinfo the bare model name."""
    return processor_in(CPUINFO.read_text(encoding="utf-8")) if CPUINFO.exists() else cpu_name()


def processor_in(cpuinfo: str) -> str:
    """Return model name, family, model, stepping and instruction set of the first processor in /proc/cpuinfo's text.

    The model name alone is not enough: virtual machines on a Zen 3 and on a Zen 4 are both called "AMD EPYC".
    """
    pairs = (line.partition(":") for line in cpuinfo.split("\n\n")[0].splitlines())
    facts = {key.strip(): value.strip() for key, _, value in pairs}
    if "cpu family" not in facts:  # not an x86 processor
        return cpu_name()
    flags = facts["flags"].split()
    best = next((name for flag, name in INSTRUCTION_SETS.items() if flag in flags), "SSE")
    numbers = f"family {facts['cpu family']}, model {facts['model']}, stepping {facts['stepping']}"
    return f"{facts['model name']} ({numbers}; {best})"


def table(headings: list[str], rows: list[list[str]]) -> list[str]:
    """Return a markdown table, its first column to the left, the others to the right."""
    lines = [headings, ["--", *["--:"] * (len(headings) - 1)], *rows]
    return ["| " + " | ".join(line) + " |" for line in lines]
