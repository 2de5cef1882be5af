"""A committee of toys and a really started server, for the tests of export, server and page."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from helpers.toys import TOKENIZERS, make_classifier
from tinylm.export.onnx import export_onnx
from tinylm.export.runtime import OnnxClassifier, load_onnx
from tinylm.infer.classifier import Classifier
from tinylm.infer.committee import Committee
from tinylm.model.config import Convolution

TOKENIZER = TOKENIZERS[0]
UNKNOWN, SEVEN = TOKENIZER.unk_id, TOKENIZER.vocab.index("seven")
COMMAND = "from tinylm.cli import main; main()"
# A server with other limits than the command's, given as keyword arguments. Its send buffers are small, so
# that a client that takes no response is noticed before megabytes have been sent.
WITH_LIMITS = """
import socket, sys
from tinylm.export.runtime import load_onnx
from tinylm.serve.app import create_app
from tinylm.serve.limits import Limits
from tinylm.serve.server import listen, run
limits = Limits({})
listener = listen("127.0.0.1", 0)
listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
print(f"http://127.0.0.1:{{listener.getsockname()[1]}}", flush=True)
run(create_app(load_onnx(sys.argv[1]), None, limits), listener, limits)
"""


def toys() -> list[Classifier]:
    """One block, three blocks cut to eight tokens, and convolutions with an even kernel."""
    return [
        make_classifier(1),
        make_classifier(2, layers=3, heads=2, max_tokens=8, init_std=0.1),
        make_classifier(
            3, layers=2, max_tokens=16, convolution=Convolution(layers=2, channels=2, kernel=(4, 3))
        ),
    ]


def save_counted(committee: Committee, folder: Path) -> None:
    """Save a committee that saw every token but "seven" and [UNK] often."""
    folder.mkdir()
    committee.save(folder)
    counts = np.full(len(TOKENIZER), 5, np.int64)
    counts[[SEVEN, UNKNOWN]] = 4, 0
    save_file({"counts": counts}, folder / "token_counts.safetensors")


def export_toys(folder: Path) -> Path:
    """The folder of their ONNX export."""
    save_counted(Committee(toys()), folder / "committee")
    out = folder / "onnx"
    out.mkdir()
    export_onnx(folder / "committee", out)
    return out


@dataclass(frozen=True)
class Server:
    url: str
    process: subprocess.Popen[str]

    @property
    def port(self) -> int:
        return int(self.url.rsplit(":", 1)[1])

    def request(
        self,
        path: str,
        body: bytes | object = None,
        headers: Mapping[str, str] | None = None,
        method: str | None = None,
    ) -> tuple[int, Any, Mapping[str, str]]:
        """Status, body and headers of the response.

        A body that is not bytes is sent as JSON, and a response in JSON is parsed.
        """
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, body, dict(headers or {}), method=method)
        try:
            with urllib.request.urlopen(request, timeout=30) as response:
                status, raw, found = response.status, response.read(), response.headers
        except urllib.error.HTTPError as error:
            status, raw, found = error.code, error.read(), error.headers
        is_json = found.get_content_type() == "application/json"
        return status, json.loads(raw) if is_json else raw.decode(), found

    def label(self, text: str) -> str:
        status, response, _ = self.request("/predict", {"text": text})
        assert status == 200, response
        label: str = response["predictions"][0]["label"]
        return label


@contextlib.contextmanager
def serve(
    folder: Path, *options: str, limits: str | None = None, environment: Mapping[str, str] | None = None
) -> Iterator[Server]:
    """`tinylm serve folder` on a free port, as a process of its own; `limits` as in "body_seconds=1"."""
    code = COMMAND if limits is None else WITH_LIMITS.format(limits)
    arguments = ["serve", str(folder), "--port", "0", *options] if limits is None else [str(folder)]
    process = subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"} | dict(environment or {}),
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        address = re.match(r"http://[\d.]+:\d+", line)
        assert address, f"the server said {line!r}"
        yield Server(address.group(), process)
    finally:
        process.kill()
        process.wait()


def exported(committee: Committee, folder: Path, int8: bool = False) -> OnnxClassifier:
    save_counted(committee, folder / "committee")
    (folder / "onnx").mkdir()
    export_onnx(folder / "committee", folder / "onnx", int8)
    return load_onnx(folder / "onnx")
