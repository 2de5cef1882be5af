"""A report as data, written once as Markdown and once as a self-contained HTML page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from matplotlib.figure import Figure

from tinylm.report.format import MINUS
from tinylm.report.page import render_page
from tinylm.report.plots import write_svg

FIGURES = f"0123456789+-{MINUS}"  # how a figure begins


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    kind: ClassVar = "text"  # for the template
    text: str


@dataclass(frozen=True)
class Points:
    """A list."""

    kind: ClassVar = "points"  # for the template
    points: Sequence[str]


@dataclass(frozen=True)
class Grid:
    """A table, with `note` below it."""

    kind: ClassVar = "grid"  # for the template
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""

    @property
    def words(self) -> list[bool]:
        """Of each column, whether it holds words: not all of its cells begin as figures do."""
        columns = zip(self.head, *self.rows, strict=True)
        return [any(cell and cell[0] not in FIGURES for cell in column) for _, *column in columns]


@dataclass(frozen=True)
class Plot:
    """A figure with its caption, and words for those who cannot see it."""

    kind: ClassVar = "plot"  # for the template
    name: str
    figure: Figure
    caption: str
    words: str


Block = Text | Points | Grid | Plot


@dataclass
class Section:
    """A heading and the blocks below it."""

    title: str
    level: int = 2
    blocks: list[Block] = field(default_factory=list)


@dataclass(frozen=True)
class Document:
    """A report."""

    title: str
    lead: str
    sections: Sequence[Section]

    @property
    def plots(self) -> list[Plot]:
        """All plots."""
        return [block for section in self.sections for block in section.blocks if isinstance(block, Plot)]


def write_plots(document: Document, folder: Path) -> None:
    """Write every plot as SVG into an existing folder."""
    for plot in document.plots:
        write_svg(plot.figure, folder / f"{plot.name}.svg")


def markdown(document: Document, plots: str) -> str:
    """The report as Markdown; `plots` leads from its folder to that of the plots."""
    parts = [f"# {document.title}", document.lead]
    for section in document.sections:
        parts.append(f"{'#' * section.level} {section.title}")
        parts += [block_markdown(block, plots) for block in section.blocks]
    return "\n\n".join(parts) + "\n"


def block_markdown(block: Block, plots: str = "") -> str:
    """One block as Markdown; `plots` as in `markdown`."""
    if isinstance(block, Text):
        return block.text
    if isinstance(block, Points):
        return "\n".join(f"- {item}" for item in block.points)
    if isinstance(block, Plot):
        return f"![{block.words}]({plots}/{block.name}.svg)\n\n*{block.caption}*"
    lines = ["| " + " | ".join(row) + " |" for row in (block.head, ["---"] * len(block.head), *block.rows)]
    return "\n".join(lines) + (f"\n\n{block.note}" if block.note else "")


def html(document: Document) -> str:
    """The report as one HTML page that loads nothing."""
    return render_page("paper.html", {plot.name: plot.figure for plot in document.plots}, document=document)
