"""Questions of many requests, answered together.

While the one worker thread computes, questions pile up; what waits when it is done becomes the
next batch. So a lone request waits for nobody, and under load batches grow by themselves.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

Question = TypeVar("Question")
Answer = TypeVar("Answer")


class QueueFullError(Exception):
    """More questions wait than may."""


class Batcher(Generic[Question, Answer]):
    """Hands questions to `work` in batches, in the order in which they came.

    Args:
        work: answers questions, each with one answer; called in a thread, one call at a time.
        largest: questions in a batch; a request with more of them is a batch of its own.
        waiting_limit: questions that may wait.
        observe: called with the size of each batch.
    """

    def __init__(
        self,
        work: Callable[[Sequence[Question]], Sequence[Answer]],
        largest: int,
        waiting_limit: int,
        observe: Callable[[int], None],
    ) -> None:
        self._work, self._largest, self._observe = work, largest, observe
        self._waiting_limit = waiting_limit
        self._queue: asyncio.Queue[tuple[Sequence[Question], asyncio.Future[Sequence[Answer]]]]
        self._queue = asyncio.Queue()
        self.waiting = 0

    async def ask(self, questions: Sequence[Question]) -> Sequence[Answer]:
        """The answers, in the order of the questions. Whoever stops waiting takes the questions back.

        Raises:
            QueueFullError: too many questions wait already.
            Exception: what `work` raised for the batch.
        """
        if self.waiting + len(questions) > self._waiting_limit:
            raise QueueFullError
        future: asyncio.Future[Sequence[Answer]] = asyncio.get_running_loop().create_future()
        self.waiting += len(questions)
        self._queue.put_nowait((questions, future))
        return await future

    async def run(self) -> None:
        """Answer until cancelled."""
        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(1) as worker:
            while True:
                requests = [request for request in await self._next() if not request[1].done()]
                questions = [question for asked, _ in requests for question in asked]
                if not questions:
                    continue
                self._observe(len(questions))
                try:
                    answers = await loop.run_in_executor(worker, self._work, questions)
                except Exception as error:  # the next batch may fare better
                    for _, future in requests:
                        if not future.done():
                            future.set_exception(error)
                    continue
                first = 0
                for asked, future in requests:
                    if not future.done():
                        future.set_result(answers[first : first + len(asked)])
                    first += len(asked)

    async def _next(self) -> list[tuple[Sequence[Question], asyncio.Future[Sequence[Answer]]]]:
        """Wait for a request, and take those behind it that fit into the batch."""
        requests = [await self._queue.get()]
        size = len(requests[0][0])
        while size < self._largest and not self._queue.empty():
            requests.append(self._queue.get_nowait())
            size += len(requests[-1][0])
        self.waiting -= size
        return requests
