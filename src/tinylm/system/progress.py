"""Progress of long work on standard error: bars with time left, or a line a minute in a log.

On a terminal all bars have one look. Where standard error is a file, as with `nohup`, `cron` and
on build servers, a line tells now and then how far the work is: some of these end what is silent.

In a worker process (see `processes.py`) a bar sends what happens to it to the main process, which
shows the bars of all workers together.
"""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

Message = tuple[str, tuple[int, int], dict[str, Any]]
SHOW, HIDE = "show", "hide"
FIRST_LINE, EVERY_LINE = 20.0, 60.0  # seconds

_send: Callable[[Message], None] | None = None
_open: list[Bars] = []  # what this process shows at the moment
_log_lock = threading.Lock()
_logs = 0  # blocks of `progress_log` that have begun and not ended


class Bars:
    """The bars of one piece of work; a context that ends with it.

    Each shows what runs, how far it is, time taken, time left and `info`. They vanish when done.
    """

    def __init__(self, in_bytes: bool = False) -> None:
        console = Console(stderr=True)
        self._stack = ExitStack()
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
            disable=not _draws(console),
            refresh_per_second=4,
        )

    def __enter__(self) -> Bars:
        self._stack.enter_context(progress_log())
        self._progress.start()
        _open.append(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _open.remove(self)
        self._progress.stop()
        self._stack.close()

    def add(self, label: str, total: int | None) -> int:
        """Begin a bar and return its number."""
        return self._progress.add_task(label, total=total, info="")

    def update(self, bar: int, **changes: Any) -> None:
        """Change `completed`, `total` or `info` of a bar, or let it `advance`."""
        self._progress.update(TaskID(bar), **changes)

    def remove(self, bar: int) -> None:
        """Take a bar away."""
        self._progress.remove_task(TaskID(bar))

    def lines(self) -> list[str]:
        """What the bars that are not full show, in words."""
        return [_words(task) for task in self._progress.tasks if not task.finished]


def _draws(console: Console) -> bool:
    """Whether bars can be drawn there: not in a file, nor on a terminal that cannot move its cursor."""
    return console.is_terminal and not console.is_dumb_terminal


def _words(task: Task) -> str:
    parts = [task.description]
    if task.total:
        parts.append(f"{task.completed:,.0f} of {task.total:,.0f} ({task.completed / task.total:.0%})")
    elif task.completed:
        parts.append(f"{task.completed:,.0f}")
    if info := task.fields.get("info"):
        parts.append(info)
    if (left := task.time_remaining) is not None:
        parts.append(f"{_duration(left)} left")
    return ", ".join(parts)


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 60 else f"{seconds / 60:.0f} min"


@contextmanager
def progress_log() -> Iterator[None]:
    """Tell in a log how the work of this block goes; blocks within it add nothing. Also a decorator."""
    global _logs  # noqa: PLW0603 (one log per process, as there is one standard error)
    with _log_lock:
        _logs += 1
        first = _logs == 1
    stopped = threading.Event()
    if first and _send is None and not _draws(Console(stderr=True)):
        console = Console(stderr=True)

        def write(line: str) -> None:
            console.print(line, markup=False, highlight=False, soft_wrap=True)

        threading.Thread(target=write_log, args=(stopped.wait, write), daemon=True).start()
    try:
        yield
    finally:
        stopped.set()
        with _log_lock:
            _logs -= 1


def write_log(stopped: Callable[[float], bool], write: Callable[[str], None]) -> None:
    """Write a line after some seconds and then every minute.

    Args:
        stopped: waits for a number of seconds, less if the log ends; returns whether it has.
        write: takes a line.
    """
    elapsed = pause = FIRST_LINE
    while not stopped(pause):
        bars = [line for bars in list(_open) for line in bars.lines()]
        write(f"{_duration(elapsed)}: {'; '.join(bars) or 'still at work'}")
        pause = EVERY_LINE if elapsed > FIRST_LINE else EVERY_LINE - FIRST_LINE
        elapsed += pause


class _Forwarded(Bars):
    """Bars that the main process shows."""

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
    """Show the bars of other processes until None comes."""
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
