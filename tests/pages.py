"""The blocks of code in README.md and docs/**/*.md."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "packaging" / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCED = re.compile(
    r"(?:^<!-- (?P<mark>[^\n]*) -->\n)?^```(?P<language>\w*)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL
)

LANGUAGES = ("", "python", "text", "toml", "yaml", "json", "mermaid")


@dataclass(frozen=True)
class Block:
    """A block of code, with the comment above it: `needs: LIBRARY`, `not run: WHY`, `run smaller`, or nothing."""

    language: str  # one of LANGUAGES; empty: commands for a shell
    mark: str
    code: str
    line: int  # lines of the page before the code

    @property
    def needs(self) -> str | None:
        """The library that the block imports and that is an extra."""
        return self.mark.removeprefix("needs: ") if self.mark.startswith("needs: ") else None

    @property
    def file(self) -> str | None:
        """The reader's file that the block is, as its first line says: `# mypackage/nets.py`."""
        found = re.match(r"# (\S+/\S+\.py)\n", self.code)
        return found and found[1]

    @property
    def is_run(self) -> bool:
        return not self.mark.startswith("not run: ")


def blocks(page: Path, *languages: str) -> Iterator[Block]:
    """Yield the blocks of a page in these languages, or all of them."""
    text = page.read_text(encoding="utf-8")
    for found in FENCED.finditer(text):
        if not languages or found["language"] in languages:
            line = text.count("\n", 0, found.start("code"))
            yield Block(found["language"], found["mark"] or "", found["code"], line)


def page_name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()
