"""Progress bars with time left, all of one look, on standard error.

In a worker process (see `parallel.py`) a bar sends what happens to it to the main
process, which draws the bars of all workers together.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

Message = tuple[str, tuple[int, int], dict[str, Any]]
SHOW, HIDE = "show", "hide"

_send: Callable[[Message], None] | None = None


class Bars:
    """The bars of one piece of work; a context that ends with it.

    Each shows what runs, how far it is, time taken, time left and `info`. They vanish
    when done and do not appear where standard error is a file.
    """

    def __init__(self, in_bytes: bool = False) -> None:
        console = Console(stderr=True)
        self._progress = Progress(
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

    def __enter__(self) -> Bars:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def add(self, label: str, total: int | None) -> int:
        """Begin a bar and return its number."""
        return self._progress.add_task(label, total=total, info="")

    def update(self, bar: int, **changes: Any) -> None:
        """Change `completed`, `total` or `info` of a bar, or let it `advance`."""
        self._progress.update(TaskID(bar), **changes)

    def remove(self, bar: int) -> None:
        """Take a bar away."""
        self._progress.remove_task(TaskID(bar))


class _Forwarded(Bars):
    """Bars that the main process draws."""

    _numbers = itertools.count()

    def __init__(self, send: Callable[[Message], None]) -> None:
        self._forward = send
        self._mine: list[tuple[int, int]] = []

    def __enter__(self) -> Bars:
        return self

    def __exit__(self, *_: object) -> None:
        for key in self._mine:
            self._forward((HIDE, key, {}))

    def add(self, label: str, total: int | None) -> int:
        number = next(self._numbers)
        self._mine.append((os.getpid(), number))
        self._forward((SHOW, self._mine[-1], {"description": label, "total": total}))
        return number

    def update(self, bar: int, **changes: Any) -> None:
        self._forward((SHOW, (os.getpid(), bar), changes))


def progress_bars(*, in_bytes: bool = False) -> Bars:
    """Bars for the work of this process."""
    return Bars(in_bytes) if _send is None else _Forwarded(_send)


def forward_progress(send: Callable[[Message], None]) -> None:
    """Make all bars of this process appear where `send` leads."""
    global _send  # noqa: PLW0603 (one per process, as standard error is)
    _send = send


def show_progress(receive: Callable[[], Message | None]) -> None:
    """Draw the bars of other processes until None comes."""
    numbers: dict[tuple[int, int], int] = {}
    with Bars() as bars:
        while (message := receive()) is not None:
            what, key, changes = message
            if what == HIDE:
                bars.remove(numbers.pop(key))
                continue
            if key not in numbers:
                numbers[key] = bars.add(changes["description"], changes["total"])
            bars.update(numbers[key], **changes)
