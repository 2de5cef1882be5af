"""`tinylm serve`: a classifier or a committee behind HTTP."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import sys
from pathlib import Path
from typing import Annotated

import typer

from tinylm.cli.common import ModelFolder, Settings, need, remark, say
from tinylm.errors import UserError
from tinylm.serve.limits import Limits

TOKEN_VARIABLE = "TINYLM_TOKEN"


def serve_command(
    model: ModelFolder,
    port: Annotated[
        int, typer.Option(help="Port to listen on; 0 chooses a free one.", min=0, max=65535, metavar="PORT")
    ] = 8000,
    host: Annotated[
        str,
        typer.Option(
            help="Address to listen on; 0.0.0.0 accepts connections from all networks.", metavar="ADDRESS"
        ),
    ] = "127.0.0.1",
    token_file: Annotated[
        Path | None,
        typer.Option(
            help="File with a token that requests must carry. The environment variable"
            f" {TOKEN_VARIABLE} can hold the token instead.",
            metavar="FILE",
        ),
    ] = None,
    allow_origin: Annotated[
        list[str] | None,
        typer.Option(
            help="Let web pages of this origin send requests, such as https://www.example.org;"
            " may be repeated, and * is every origin. By default no page but the server's own may.",
            metavar="ORIGIN",
        ),
    ] = None,
    keep_alive: Annotated[
        int,
        typer.Option(
            help="Seconds for which a connection stays open between two requests. Behind a proxy this"
            " must be longer than the proxy keeps its connections (60 seconds in most).",
            min=1,
            metavar="SECONDS",
        ),
    ] = Limits.idle_seconds,
    longest_wait: Annotated[
        float,
        typer.Option(
            help="Seconds for which a request may wait while others are computed; then it gets a 503. A"
            " short time keeps responses quick when more requests come than can be computed.",
            min=0.001,
            metavar="SECONDS",
        ),
    ] = Limits.waiting_seconds,
    workers: Annotated[
        int,
        typer.Option(
            help="Processes that share port, cores and the memory of the model; the limits hold for each.",
            min=1,
            metavar="N",
        ),
    ] = 1,
    settings: Settings = None,
) -> None:
    """Serve a model over HTTP: a page to try it at `/`, and `POST /predict` for programs.

    `/docs` describes the interface, `/healthz` and `/metrics` are for monitoring.

    Example: `tinylm serve model --port 8000`
    """
    need("serve", "fastapi", "uvicorn", "prometheus_client")
    from tinylm.export.runtime import load_predictor
    from tinylm.serve.server import listen, run
    from tinylm.serve.workers import run_workers, shared_metrics

    # uvicorn raises the signal again when it has stopped; that is not a failure.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(0))
    token = _token(token_file)
    origins = allow_origin or []
    for origin in origins:
        if origin != "*" and not re.fullmatch(r"https?://[^/?#\s]+", origin):
            raise UserError(
                f"--allow-origin was {origin!r}; expected an origin such as https://www.example.org."
            )
    listener = listen(host, port)
    classifier = load_predictor(model)
    if token is None and host not in ("127.0.0.1", "localhost", "::1"):
        remark(f"everybody who can reach {host} can use this server; set {TOKEN_VARIABLE} to need a token.")
    limits = Limits(idle_seconds=keep_alive, waiting_seconds=longest_wait)
    address, number = listener.getsockname()[:2]
    say(f"http://{f'[{address}]' if ':' in address else address}:{number} is ready; Ctrl-C stops it")
    with contextlib.suppress(KeyboardInterrupt), shared_metrics(workers):
        from tinylm.serve.app import create_app  # not earlier: it imports prometheus_client

        def serve() -> None:
            run(create_app(classifier, token, limits, origins), listener, limits)

        if workers == 1:
            serve()
        else:
            run_workers(serve, listener, workers)


def _token(file: Path | None) -> str | None:
    if file is None:
        token, source = os.environ.get(TOKEN_VARIABLE), TOKEN_VARIABLE
    else:
        try:
            token, source = file.read_text(encoding="utf-8").strip(), str(file)
        except UnicodeDecodeError as error:
            raise UserError(f"{file} is not UTF-8; expected a file that holds a token.") from error
    if token is not None and not (token.isascii() and token.isprintable() and token and " " not in token):
        raise UserError(f"{source} holds no token; expected ASCII letters, digits and signs without spaces.")
    return token
