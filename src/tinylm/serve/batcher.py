"""Texts of many requests, predicted together.

One thread computes. Texts that arrive meanwhile wait and become the next batch. So a single request
never waits for others to arrive, and batches grow with the load.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class QueueFullError(Exception):
    """More items would wait than the limit allows."""


class Batcher(Generic[Item, Result]):
    """Passes items to `work` in batches, in the order in which they arrive.

    Args:
        work: returns one result for each item; it runs in a thread, one call at a time.
        largest: items in a batch; a request with more of them is a batch of its own.
        waiting_limit: items that may wait.
        observe: called with the size of each batch.
        observe_waiting: called with the number of items that wait, when it changes.
    """

    def __init__(
        self,
        work: Callable[[Sequence[Item]], Sequence[Result]],
        largest: int,
        waiting_limit: int,
        observe: Callable[[int], None],
        observe_waiting: Callable[[int], None],
    ) -> None:
        self._work, self._largest = work, largest
        self._observe, self._observe_waiting = observe, observe_waiting
        self._waiting_limit = waiting_limit
        self._queue: asyncio.Queue[tuple[Sequence[Item], asyncio.Future[Sequence[Result]]]]
        self._queue = asyncio.Queue()
        self.waiting = 0

    async def submit(self, items: Sequence[Item]) -> Sequence[Result]:
        """The results of `items`, in their order. If the caller is cancelled, they are not computed.

        Raises:
            QueueFullError: too many items wait already.
            Exception: what `work` raised for the batch.
        """
        if self.waiting + len(items) > self._waiting_limit:
            raise QueueFullError
        future: asyncio.Future[Sequence[Result]] = asyncio.get_running_loop().create_future()
        self._count_waiting(len(items))
        self._queue.put_nowait((items, future))
        return await future

    async def run(self) -> None:
        """Compute batches until cancelled."""
        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(1) as worker:
            while True:
                requests = [request for request in await self._next() if not request[1].done()]
                items = [item for group, _ in requests for item in group]
                if not items:
                    continue
                self._observe(len(items))
                try:
                    results = await loop.run_in_executor(worker, self._work, items)
                except Exception as error:  # of this batch; the next one may succeed
                    for _, future in requests:
                        if not future.done():
                            future.set_exception(error)
                    continue
                first = 0
                for group, future in requests:
                    if not future.done():
                        future.set_result(results[first : first + len(group)])
                    first += len(group)

    async def _next(self) -> list[tuple[Sequence[Item], asyncio.Future[Sequence[Result]]]]:
        """Wait for a request, then take those behind it that fit into the same batch."""
        requests = [await self._queue.get()]
        size = len(requests[0][0])
        while size < self._largest and not self._queue.empty():
            requests.append(self._queue.get_nowait())
            size += len(requests[-1][0])
        self._count_waiting(-size)
        return requests

    def _count_waiting(self, change: int) -> None:
        self.waiting += change
        self._observe_waiting(self.waiting)
