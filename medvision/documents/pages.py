"""Pages that say the same as HTML and as Markdown: sections of facts, tables and notes, whatever they are about.

The HTML has the look of the evaluation report, holds everything within, and fetches and runs nothing. All texts are
escaped, in both.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, TypeAlias

from medvision.evaluation.html_report import make_environment

TEMPLATES = Path(__file__).parent / "templates"
# What Markdown, or HTML within it, would take for more than text.
_SPECIAL = re.compile(r"([\\`*_{}\[\]#|~])")


@dataclass(frozen=True)
class Gap:
    """What is not known, and what would make it known: it is marked."""

    text: str
    kind: ClassVar[str] = "gap"


@dataclass(frozen=True)
class Link:
    """A file beside the page."""

    text: str
    href: str
    kind: ClassVar[str] = "link"


@dataclass(frozen=True)
class Mark:
    """A word that is coloured: ``state`` is passed, failed or insufficient_evidence."""

    text: str
    state: str
    kind: ClassVar[str] = "mark"


@dataclass(frozen=True)
class Value:
    """A figure with its interval, "" if it has none."""

    text: str
    interval: str
    kind: ClassVar[str] = "value"


@dataclass(frozen=True)
class Code:
    """A fingerprint or a name that is shown letter by letter."""

    text: str
    kind: ClassVar[str] = "code"


Inline: TypeAlias = "str | Gap | Link | Mark | Value | Code"
# Several stand below each other.
Cell: TypeAlias = "Inline | tuple[Inline, ...]"


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    text: Inline
    kind: ClassVar[str] = "text"


@dataclass(frozen=True)
class Bullets:
    """A list of sentences."""

    items: tuple[Inline, ...]
    kind: ClassVar[str] = "bullets"


@dataclass(frozen=True)
class Facts:
    """Terms, and what is said of each."""

    facts: tuple[tuple[str, Cell], ...]
    kind: ClassVar[str] = "facts"


@dataclass(frozen=True)
class Grid:
    """A table; each row is named by its first cell. The columns in ``texts`` hold sentences, the others figures.

    ``widths``: of each column in percent of the page, so that several tables stand in line; none: as the cells need.
    """

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    texts: tuple[str, ...] = ()
    note: str = ""
    widths: tuple[int, ...] = ()
    kind: ClassVar[str] = "grid"


Block: TypeAlias = "Text | Bullets | Facts | Grid"


@dataclass(frozen=True)
class Section:
    """A part of a page; ``id`` is the place that a link can name."""

    id: str
    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class Decision:
    """What a page says first: passed, failed, insufficient_evidence, or "" where nothing was decided."""

    state: str
    title: str
    text: str


@dataclass(frozen=True)
class KeyFigure:
    """A figure that is seen at a glance."""

    title: str
    value: Value
    note: str = ""


@dataclass(frozen=True)
class Page:
    """A page: what it is (``what``), of which ``title``, the decision, facts and key figures, then its sections."""

    what: str
    title: str
    decision: Decision
    facts: tuple[tuple[str, str], ...]
    figures: tuple[KeyFigure, ...]
    sections: tuple[Section, ...]


def render_html(page: Page) -> str:
    """Return a page as one HTML file."""
    return make_environment(TEMPLATES).get_template("page.html").render(page=page)


def render_markdown(page: Page) -> str:
    """Return a page as Markdown."""
    blocks = [
        f"# {_plain(page.what)}: {_plain(page.title)}",
        f"**{_plain(page.decision.title)}** {_plain(page.decision.text)}".strip(),
        "\n".join(f"- {_plain(name)}: {_plain(value)}" for name, value in page.facts),
    ]
    if page.figures:
        rows = [(each.title, each.value, each.note) for each in page.figures]
        blocks.append(_table(("key figure", "value (95 % interval)", ""), rows))
    for section in page.sections:
        blocks.append(f"## {_plain(section.title)}")
        blocks += [_block(block) for block in section.blocks]
    return "\n\n".join(block for block in blocks if block) + "\n"


def _block(block: Block) -> str:
    if isinstance(block, Text):
        return _inline(block.text)
    if isinstance(block, Bullets):
        return "\n".join(f"- {_inline(item)}" for item in block.items)
    if isinstance(block, Facts):
        return "\n".join(f"- **{_plain(term)}:** {_cell(said)}" for term, said in block.facts)
    note = f"\n\n{_plain(block.note)}" if block.note else ""
    return f"### {_plain(block.title)}{note}\n\n{_table(block.header, block.rows)}"


def _table(header: Sequence[str], rows: Sequence[Sequence[Cell]]) -> str:
    lines = [[_plain(name) for name in header], ["---"] * len(header), *([_cell(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(cell: Cell) -> str:
    return "; ".join(_inline(part) for part in cell) if isinstance(cell, tuple) else _inline(cell)


def _inline(part: Inline) -> str:
    if isinstance(part, str):
        return _plain(part)
    if isinstance(part, Link):
        return f"[{_plain(part.text)}]({part.href})"
    if isinstance(part, Gap):
        return f"*{_plain(part.text)}*"
    if isinstance(part, Mark):
        return f"**{_plain(part.text)}**"
    if isinstance(part, Code):
        return f"`{_one_line(part.text).replace('`', '')}`"
    return f"{part.text} ({part.interval})" if part.interval else part.text


def _plain(text: str) -> str:
    """Return a text of which Markdown, and HTML within it, make nothing but itself, on one line."""
    escaped = _one_line(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _SPECIAL.sub(r"\\\1", escaped)


def _one_line(text: str) -> str:
    return " ".join(text.split())
