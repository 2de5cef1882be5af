"""Limits on the size and the duration of requests, and their metrics; it wraps the application."""

from __future__ import annotations

import asyncio
import time

from prometheus_client import CollectorRegistry, Counter, Histogram
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tinylm.serve.limits import Limits

# A body that is too large is read, and thrown away, up to this multiple of the limit. If the connection
# were closed at once, many clients would see it break and never read the response.
PATIENCE = 16


class Guard:
    """Wraps an application, which then sees only whole bodies.

    Args:
        app: the application.
        limits: of size and duration.
        paths: the paths that the metrics name; all others are counted as "other".
        registry: of the metrics.
    """

    def __init__(
        self, app: ASGIApp, limits: Limits, paths: frozenset[str], registry: CollectorRegistry
    ) -> None:
        self._app, self._limits, self._paths = app, limits, paths
        self._held = 0  # bytes of all bodies
        self._count = Counter(
            "tinylm_requests", "Requests by path and status", ["path", "status"], registry=registry
        )
        self._seconds = Histogram(
            "tinylm_request_seconds",
            "Seconds from the head of a request to its response",
            ["path"],
            registry=registry,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status = time.perf_counter(), 0

        async def watched(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        body = bytearray()
        try:
            refusal = await self._read(receive, body)
            if refusal is not None:
                await refusal(scope, receive, watched)
            else:
                async with asyncio.timeout(self._limits.response_seconds):
                    await self._app(scope, _replay(bytes(body), receive), watched)
        except TimeoutError:
            # If a response has begun, the client does not take it: the connection is closed.
            if not status:
                seconds = self._limits.response_seconds
                late = _refusal(504, f"There was no response within {seconds:g} seconds; try again later.")
                await late(scope, receive, watched)
        except _DisconnectedError:
            status = 499  # as nginx counts them
        finally:
            self._held -= len(body)
            path = scope["path"] if scope["path"] in self._paths else "other"
            self._count.labels(path, status or 500).inc()
            self._seconds.labels(path).observe(time.perf_counter() - started)

    async def _read(self, receive: Receive, body: bytearray) -> JSONResponse | None:
        """Read the body of a request into `body`; return a response that refuses it, if any."""
        limits, size, more = self._limits, 0, True
        try:
            async with asyncio.timeout(limits.body_seconds):
                while more and size <= PATIENCE * limits.body_bytes:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise _DisconnectedError
                    chunk, more = message.get("body", b""), message.get("more_body", False)
                    size += len(chunk)
                    if size > limits.body_bytes:
                        continue
                    if self._held + len(chunk) > limits.held_bytes:
                        return _refusal(503, "Too many requests at once; try again later.")
                    body += chunk
                    self._held += len(chunk)
        except TimeoutError:
            return _refusal(408, f"The body did not arrive within {limits.body_seconds:g} seconds.")
        if size > limits.body_bytes:
            return _refusal(
                413, f"The body has more than {limits.body_bytes:,} bytes, which is the most that is allowed."
            )
        return None


class _DisconnectedError(Exception):
    """The client closed the connection before its request was complete."""


def _refusal(status: int, sentence: str) -> JSONResponse:
    headers = {"connection": "close"} | ({"retry-after": "1"} if status == 503 else {})
    return JSONResponse({"detail": sentence}, status, headers)


def _replay(body: bytes, receive: Receive) -> Receive:
    """A `receive` that gives the whole body first, and then what else arrives."""
    given = False

    async def replay() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay
