"""Work shared out among PyTorch's number of threads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any, TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")


@lru_cache(maxsize=1)
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads)


def most_parts() -> int:
    """Parts into which `parallel` cuts rows, at most."""
    threads = torch.get_num_threads()
    return 4 * threads if threads > 1 else 1


def parallel(function: Any, rows: int, *arguments: Any, together: int = 1) -> None:
    """Run a kernel over `range(rows)` on PyTorch's threads.

    Each thread takes the next part when it is done with one, since parts take unequal times and
    waking a thread takes as long as some of them. Which rows form a part does not depend on that.

    Args:
        function: the kernel.
        rows: how many there are.
        arguments: the kernel's, after `part, lo, hi`.
        together: rows that gain by being in one part.
    """
    count = max(1, min(most_parts(), -(-rows // together)))
    bounds = [rows * part // count for part in range(count + 1)]
    left = iter(range(count))

    def work() -> None:
        for part in left:
            function(part, bounds[part], bounds[part + 1], *arguments)

    threads = torch.get_num_threads()
    others = [_pool(threads - 1).submit(work) for _ in range(1, min(threads, count))]
    work()
    for other in others:
        if not other.cancel():
            other.result()


def in_threads(function: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    """`function` of each item, shared out among PyTorch's threads."""
    threads = torch.get_num_threads()

    def share(part: int) -> list[Result]:
        return [function(item) for item in items[part::threads]]

    others = [_pool(threads - 1).submit(share, part) for part in range(1, min(threads, len(items)))]
    shares = [share(0), *(other.result() for other in others)]
    return [shares[number % threads][number // threads] for number in range(len(items))]
