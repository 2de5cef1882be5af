"""`tinylm serve`: a classifier or a committee behind HTTP."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from tinylm.cli.common import Settings, need, remark, say
from tinylm.errors import UserError

TOKEN_VARIABLE = "TINYLM_TOKEN"


def serve_command(
    model: Annotated[Path, typer.Argument(help="Folder of a classifier, a committee or its ONNX export.")],
    port: Annotated[int, typer.Option(help="Port; 0 takes a free one.", min=0, max=65535)] = 8000,
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 is every network.")] = "127.0.0.1",
    token_file: Annotated[
        Path | None, typer.Option(help=f"File with a token that askers must show; or set {TOKEN_VARIABLE}.")
    ] = None,
    settings: Settings = None,
) -> None:
    """Answer over HTTP: a page at `/`, `POST /predict`, `/docs`, `/healthz`, `/metrics`.

    Example: `tinylm serve committee --port 8000`
    """
    need("serve", "fastapi", "uvicorn", "prometheus_client", "onnx", "onnxruntime")
    from tinylm.export.runtime import DECISION, load_onnx
    from tinylm.serve.app import create_app
    from tinylm.serve.limits import Limits
    from tinylm.serve.server import listen, run

    # uvicorn hands the signal on when it has stopped; that is then no failure.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(0))
    token = _token(token_file)
    listener = listen(host, port)
    with tempfile.TemporaryDirectory() as temporary:
        if not (model / DECISION).is_file():
            from tinylm.export.onnx import export_onnx

            export_onnx(model, Path(temporary))
            remark(f"{model} was exported to ONNX for this server alone; 'tinylm export' keeps the result.")
            model = Path(temporary)
        classifier = load_onnx(model)
        if token is None and host not in ("127.0.0.1", "localhost", "::1"):
            remark(f"anyone who reaches {host} may ask; set {TOKEN_VARIABLE} to ask for a token.")
        limits = Limits()
        address, number = listener.getsockname()[:2]
        say(f"http://{f'[{address}]' if ':' in address else address}:{number} answers; Ctrl-C stops it")
        with contextlib.suppress(KeyboardInterrupt):
            run(create_app(classifier, token, limits), listener, limits)


def _token(file: Path | None) -> str | None:
    if file is None:
        token, source = os.environ.get(TOKEN_VARIABLE), TOKEN_VARIABLE
    else:
        try:
            token, source = file.read_text(encoding="utf-8").strip(), str(file)
        except UnicodeDecodeError as error:
            raise UserError(f"{file} is not UTF-8; expected a token.") from error
    if token is not None and not (token.isascii() and token.isprintable() and token and " " not in token):
        raise UserError(f"{source} holds no token; expected letters, digits and signs without spaces.")
    return token
