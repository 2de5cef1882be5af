"""Progress bars with time left, all of one look, on standard error."""

from __future__ import annotations

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)


def progress_bar() -> Progress:
    """A bar that shows what runs, how far it is, time taken, time left and `info`.

    It goes to standard error, so that results on standard output stay clean, and
    vanishes when done.
    """
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("[dim]{task.fields[info]}"),
        console=Console(stderr=True),
        transient=True,
        refresh_per_second=4,
    )
