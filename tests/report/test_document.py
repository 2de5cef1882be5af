"""A report as HTML: columns of words are written from the left, those of figures from the right."""

from __future__ import annotations

import re

from tinylm.report.document import Document, Grid, Section, html

GRID = Grid(
    ["row", "Acc.", "gap", "architecture", "answer"],
    [
        ["all", "0.580 (1 of 5)", "\u22120.010", "BERT-1, 2 heads", "2 are enough."],
        ["0", "", "+0.010", "", "None of the trials shows that it helps, or harms."],
    ],
)


def test_columns_of_words_are_told_from_those_of_figures() -> None:
    assert GRID.words == [True, False, False, True, True]
    page = html(Document("title", "lead", [Section("section", blocks=[GRID, Grid(["row"], [])])]))
    assert re.findall(r'<th scope="col"(.*?)>(.*?)</th>', page)[:5] == [
        (' class="words"', "row"),
        ("", "Acc."),
        ("", "gap"),
        (' class="words"', "architecture"),
        (' class="words"', "answer"),
    ]
    assert "<td>+0.010</td>" in page and '<td class="words">BERT-1, 2 heads</td>' in page
    assert '<td class="words long">None of the trials shows' in page
