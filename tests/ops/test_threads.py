"""Work shared out among threads: every part once, also in a forked process."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Callable, Iterator

import pytest
import torch

from tinylm.ops.threads import most_parts, parallel

SECONDS = 60  # a child that has not answered by then hangs


@pytest.fixture(autouse=True)
def _two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("rows", [1, 7, 1000])
def test_every_row_is_worked_on_once(rows: int) -> None:
    ranges: list[tuple[int, int, int]] = []
    parallel(lambda part, lo, hi, _: ranges.append((part, lo, hi)), rows, None)
    ranges.sort()
    assert [part for part, _, _ in ranges] == list(range(len(ranges)))
    assert [row for _, lo, hi in ranges for row in range(lo, hi)] == list(range(rows))
    assert len(ranges) == min(most_parts(), rows)


def test_an_error_in_a_thread_is_raised() -> None:
    def fail(part: int, lo: int, hi: int) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        parallel(fail, 100)


def work() -> float:
    """Something that uses our threads and OpenMP's."""
    square = torch.linspace(0, 1, 1_000_000).view(1000, 1000)
    rows: list[int] = []
    parallel(lambda part, lo, hi, _: rows.extend(range(lo, hi)), 4, None)
    return sum(rows) + (square @ square).exp().mean().item()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_process_works_on() -> None:
    """The parent's threads are not there in the child, which must not wait for them."""
    expected = work()
    assert in_child(work) == pytest.approx(expected, rel=1e-4)
    assert work() == expected  # and the parent still has its threads


def in_child(function: Callable[[], float]) -> float:
    """What a function gives in a fork of this process."""
    readable, writable = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writable, str(function()).encode())
        os._exit(0)
    answered = select.select([readable], [], [], SECONDS)[0]
    if not answered:
        os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert answered, "the forked process hangs"
    return float(os.read(readable, 100))
