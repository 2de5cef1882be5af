"""Progress bars with time left, all of one look, on standard error."""

from __future__ import annotations

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)


def progress_bar(*, in_bytes: bool = False) -> Progress:
    """A bar that shows what runs, how far it is, time taken, time left and the field `info`.

    It goes to standard error, so that results on standard output stay clean, vanishes
    when done, and does not appear where standard error is a file.
    """
    console = Console(stderr=True)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        DownloadColumn() if in_bytes else MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("[dim]{task.fields[info]}"),
        console=console,
        transient=True,
        disable=not console.is_terminal,
        refresh_per_second=4,
    )
