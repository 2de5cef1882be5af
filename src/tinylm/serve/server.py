"""uvicorn with limits for slow clients; when it stops, it still accepts requests that are on their way.

uvicorn has no limit on the time until the first request on a connection, until the rest of a request,
or until a client takes its response. Therefore its protocol class is subclassed here. The methods
below are not part of its public interface, so `pyproject.toml` bounds its version.

We also tried hypercorn 0.18. It limits the head of a request only by the time that an idle connection
stays open, which must be long (see `Limits`), and has no limit until a client takes its response.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import socket
from collections.abc import Iterator
from typing import Any, cast

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from tinylm.errors import UserError
from tinylm.serve.limits import Limits

LATE_SECONDS = 1.0  # how long a stopping server waits for the request of a client that has connected


class _State(ServerState):
    """What the connections of a server share.

    Attributes:
        stopping: whether each is to be closed after its request.
    """

    stopping = False


class Server(uvicorn.Server):
    """A server that stops without losing connections that the system has made and asyncio not yet met."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.server_state = _State()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept what has connected, then listen no more and wait until the requests have their responses.

        uvicorn would close the sockets at once; the system resets connections that wait there.
        """
        loop = asyncio.get_running_loop()
        cast(_State, self.server_state).stopping = True
        late = [
            asyncio.ensure_future(loop.connect_accepted_socket(self._protocol, connection))
            for listener in sockets or []
            for connection in _connected(listener)
        ]
        await super().shutdown(sockets)
        await asyncio.gather(*late, return_exceptions=True)

    def _protocol(self) -> asyncio.Protocol:
        protocol: asyncio.Protocol = cast(Any, self.config.http_protocol_class)(
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )
        return protocol


def _connected(listener: socket.socket) -> Iterator[socket.socket]:
    """The connections that wait to be accepted."""
    with contextlib.suppress(OSError):
        while True:
            connection, _ = listener.accept()
            connection.setblocking(False)
            yield connection


class _Protocol(H11Protocol):
    """A connection that is closed when the client takes too long to send a request or to take a response."""

    def __init__(self, *args: Any, limits: Limits, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self._limits = limits
        self._deadline: asyncio.TimerHandle | None = None  # until the head of a request is there
        self._patience: asyncio.TimerHandle | None = None  # until a response is taken
        self._stopping = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(cast(asyncio.Transport, transport))
        if cast(_State, self.server_state).stopping:
            self.shutdown()
        else:
            self._expect_request(self._limits.header_seconds)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._expect_nothing()
        elif self._deadline is None:
            self._expect_request(self._limits.header_seconds)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._stopping:
            self.transport.close()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._patience = self.loop.call_later(self._limits.response_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._patience is not None:
            self._patience.cancel()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._expect_nothing()
        if self._patience is not None:
            self._patience.cancel()

    def shutdown(self) -> None:
        """The server stops: close, unless a first request may be on its way."""
        self._stopping = True
        if self.cycle is None:
            self._expect_nothing()
            self._expect_request(LATE_SECONDS)
        else:
            super().shutdown()

    def _expect_request(self, seconds: float) -> None:
        self._deadline = self.loop.call_later(seconds, self.transport.close)

    def _expect_nothing(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


def listen(host: str, port: int) -> socket.socket:
    """A socket on `host` and `port`; port 0 is a free one.

    Raises:
        UserError: the port is taken, or the host is not this machine's.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(cast(tuple[str, int], address[:2]), family=family)
    except OSError as error:
        raise UserError(
            f"cannot listen on {host}, port {port} ({error.strerror}); give another `port` or `host`."
        ) from error


def run(app: ASGIApp, listener: socket.socket, limits: Limits) -> None:
    """Serve until SIGTERM or SIGINT; requests that have arrived by then get their responses."""
    _allow_many_files()
    Server(server_config(app, limits)).run(sockets=[listener])


def server_config(app: ASGIApp, limits: Limits) -> uvicorn.Config:
    """The settings of uvicorn."""
    return uvicorn.Config(
        app,
        http=cast(Any, functools.partial(_Protocol, limits=limits)),
        ws="none",
        lifespan="on",
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_keep_alive=limits.idle_seconds,
        timeout_graceful_shutdown=int(limits.body_seconds + limits.response_seconds),
    )


def _allow_many_files() -> None:
    """Raise the limit on open files: each connection is one, and many systems allow 1,024 at first."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
