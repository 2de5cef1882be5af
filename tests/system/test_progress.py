"""What a log says of long work."""

from __future__ import annotations

import io
from collections.abc import Callable

import pytest

from tinylm.system import progress
from tinylm.system.progress import EVERY_LINE, Bars, progress_bars, progress_log, show_progress, write_log


class Clock:
    """Waits for nothing and counts; the log ends after a number of seconds."""

    def __init__(self, end: float, at: dict[float, Callable[[], object]] | None = None) -> None:
        self.now, self.end, self.at = 0.0, end, at or {}

    def __call__(self, seconds: float) -> bool:
        self.now += seconds
        if self.now in self.at:
            self.at[self.now]()
        return self.now > self.end


def log_of(clock: Clock) -> list[str]:
    lines: list[str] = []
    write_log(clock, lines.append)
    return lines


@pytest.fixture(autouse=True)
def in_a_file(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """Standard error is a file, and no thread writes to it by itself."""
    file = io.StringIO()
    monkeypatch.setattr("sys.stderr", file)
    monkeypatch.setattr(progress, "_send", None)
    return file


def test_a_line_after_twenty_seconds_and_then_every_minute() -> None:
    clock = Clock(181)
    assert log_of(clock) == [f"{time}: still at work" for time in ("20 s", "1 min", "2 min", "3 min")]
    assert clock.now == 240
    assert log_of(Clock(19)) == []


def test_a_line_tells_how_far_all_open_bars_are() -> None:
    with progress_bars() as bars, progress_bars(in_bytes=True) as others:
        first, second = bars.add("member 1: pre-training", 2000), bars.add("member 2: fine-tuning", 10)
        others.add("file.bin", None)
        bars.update(first, completed=500, info="epoch 1 loss 4.310")
        bars.update(second, completed=10)  # full: nothing to tell
        clock = Clock(60, at={60.0: lambda: bars.remove(first)})
        (early, late) = log_of(clock)
    assert early.startswith("20 s: member 1: pre-training, 500 of 2,000 (25%), epoch 1 loss 4.310")
    assert early.endswith("; file.bin")
    assert late == "1 min: file.bin"
    assert log_of(Clock(20)) == ["20 s: still at work"]


def test_bars_of_other_processes_are_in_the_log() -> None:
    lines: list[str] = []

    def messages() -> progress.Message | None:
        if not lines:
            lines.append("")
            return "show", (7, 0), {"description": "member 1", "total": 4, "completed": 1}
        lines.extend(log_of(Clock(20)))
        return None

    show_progress(messages)
    assert lines[1:] == ["20 s: member 1, 1 of 4 (25%)"]


def test_there_is_one_log_and_it_ends_with_the_outermost_block(monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[Callable[[float], bool]] = []
    monkeypatch.setattr(progress, "write_log", lambda stopped, write: begun.append(stopped))
    with progress_log():
        with progress_log(), Bars():
            pass
        assert len(begun) == 1
        assert not begun[0](0)
    assert begun[0](0)
    with Bars():  # of the library, without the command line
        assert len(begun) == 2
    assert begun[1](EVERY_LINE)


def test_a_terminal_and_a_worker_have_no_log(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "write_log", lambda *_: pytest.fail("a log has begun"))
    monkeypatch.setattr(progress, "_send", lambda _: None)
    with progress_log():
        pass
    monkeypatch.setattr(progress, "_send", None)
    monkeypatch.setattr(progress, "_draws", lambda _: True)
    with progress_log():
        pass
