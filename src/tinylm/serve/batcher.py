"""Texts of many requests, predicted together.

One thread computes. Texts that arrive meanwhile wait and become the next batch. So a single request
never waits for others to arrive, and batches grow with the load, as long as their requests do not wait
for too long for each other.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class OverloadError(Exception):
    """More items would wait than the limit allows, or these have waited for longer."""


@dataclass(frozen=True)
class _Request(Generic[Item, Result]):
    items: Sequence[Item]
    future: asyncio.Future[Sequence[Result]]
    latest: float  # time of the event loop by which it must have begun


class Batcher(Generic[Item, Result]):
    """Passes items to `work` in batches, in the order in which they arrive.

    Args:
        work: returns one result for each item; it runs in a thread, one call at a time.
        largest: items in a batch; a request with more of them is a batch of its own.
        waiting_limit: items that may wait.
        waiting_seconds: for which they may, and which a batch of several requests may take, as far as the
            batch before it tells.
        observe: called with the size of each batch.
        observe_waiting: called with the number of items that wait, when it changes.
    """

    def __init__(
        self,
        work: Callable[[Sequence[Item]], Sequence[Result]],
        largest: int,
        waiting_limit: int,
        waiting_seconds: float,
        observe: Callable[[int], None],
        observe_waiting: Callable[[int], None],
    ) -> None:
        self._work, self._largest = work, largest
        self._observe, self._observe_waiting = observe, observe_waiting
        self._waiting_limit, self._waiting_seconds = waiting_limit, waiting_seconds
        self._queue: deque[_Request[Item, Result]] = deque()
        self._arrived = asyncio.Event()  # set while the queue holds requests
        self._seconds_each = 0.0  # for an item of the latest batch
        self.waiting = 0

    async def submit(self, items: Sequence[Item]) -> Sequence[Result]:
        """The results of `items`, in their order. If the caller is cancelled, they are not computed.

        Raises:
            OverloadError: too many items wait already, or these have waited for too long.
            Exception: what `work` raised for the batch.
        """
        if self.waiting + len(items) > self._waiting_limit:
            raise OverloadError(f"{self.waiting:,} texts are waiting")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Sequence[Result]] = loop.create_future()
        self._count_waiting(len(items))
        self._queue.append(_Request(items, future, loop.time() + self._waiting_seconds))
        self._arrived.set()
        return await future

    async def run(self) -> None:
        """Compute batches until cancelled."""
        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(1) as worker:
            while True:
                requests = await self._next()
                items = [item for request in requests for item in request.items]
                self._observe(len(items))
                begin = loop.time()
                try:
                    results = await loop.run_in_executor(worker, self._work, items)
                except Exception as error:  # of this batch; the next one may succeed
                    for request in requests:
                        if not request.future.done():
                            request.future.set_exception(error)
                    continue
                self._seconds_each = (loop.time() - begin) / len(items)
                first = 0
                for request in requests:
                    if not request.future.done():
                        request.future.set_result(results[first : first + len(request.items)])
                    first += len(request.items)

    async def _next(self) -> list[_Request[Item, Result]]:
        """Wait for a request, then take those behind it that fit into the same batch."""
        requests: list[_Request[Item, Result]] = []
        size = 0

        def fits(more: int) -> bool:
            seconds = (size + more) * self._seconds_each
            return size + more <= self._largest and seconds <= self._waiting_seconds

        while not requests:
            await self._arrived.wait()
            now = asyncio.get_running_loop().time()
            while self._queue and (not requests or fits(len(self._queue[0].items))):
                request = self._queue.popleft()
                self._count_waiting(-len(request.items))
                if request.future.done():  # the caller is gone
                    continue
                if now > request.latest:
                    request.future.set_exception(OverloadError("the texts have waited for too long"))
                    continue
                requests.append(request)
                size += len(request.items)
            if not self._queue:
                self._arrived.clear()
        return requests

    def _count_waiting(self, change: int) -> None:
        self.waiting += change
        self._observe_waiting(self.waiting)
