"""Several workers on one port: who answers, who replaces a dead one, and how all end."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from helpers.command import refused, tinylm
from helpers.serving import Server, export_toys, save_counted, serve, toys
from tinylm.infer.committee import Committee

pytestmark = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds workers in /proc")

HEAD = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n"
TEXT = "one two three"


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_toys(tmp_path_factory.mktemp("workers"))


@pytest.fixture(scope="module")
def server(exported: Path) -> Iterator[Server]:
    with serve(exported, "--workers", "2") as server:
        yield server
        assert server.process.poll() is None


def workers(server: Server) -> list[int]:
    """The process numbers of the workers."""
    pid = server.process.pid
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def processor_ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return int(fields[11]) + int(fields[12])


def eventually(what: str, true: object) -> None:
    """Wait until a function gives true."""
    for _ in range(600):
        if true():  # type: ignore[operator]
            return
        time.sleep(0.05)
    raise AssertionError(f"never {what}")


def test_both_workers_answer_as_the_committee_does(server: Server) -> None:
    (label,) = Committee(toys()).predict([TEXT])
    eventually("two workers", lambda: len(workers(server)) == 2)
    before = {pid: processor_ticks(pid) for pid in workers(server)}

    def both_worked() -> bool:
        with ThreadPoolExecutor(8) as clients:
            assert set(clients.map(server.label, [TEXT] * 64)) == {label}
        return all(processor_ticks(pid) > ticks + 10 for pid, ticks in before.items())

    eventually("both at work", both_worked)


def counted(server: Server) -> tuple[float, float]:
    """Requests that were answered, and texts in all batches."""
    page = server.request("/metrics")[1]
    names = ('tinylm_requests_total{path="/predict",status="200"}', "tinylm_batch_texts_sum")
    found = [re.search(rf"^{re.escape(name)} (\S+)$", page, re.MULTILINE) for name in names]
    requests, texts = (float(match.group(1)) if match else 0.0 for match in found)
    assert "tinylm_waiting_texts 0.0" in page
    return requests, texts


def test_the_metrics_are_those_of_all_workers(server: Server) -> None:
    requests, texts = counted(server)
    for _ in range(20):
        assert server.request("/predict", {"texts": [TEXT] * 3})[0] == 200
    assert {counted(server) for _ in range(10)} == {(requests + 20, texts + 60)}


def test_a_worker_that_dies_is_replaced(server: Server) -> None:
    answered = counted(server)[0]
    first, second = workers(server)
    os.kill(first, signal.SIGKILL)
    eventually("replaced", lambda: first not in workers(server) and len(workers(server)) == 2)
    assert second in workers(server)
    assert server.label(TEXT)  # the other one answers meanwhile
    assert counted(server)[0] == answered + 1  # what the dead one counted stays
    assert server.process.poll() is None


def requests_under_way(server: Server, count: int) -> list[socket.socket]:
    body = json.dumps({"texts": [TEXT] * 100}).encode()
    connections = [socket.create_connection(("127.0.0.1", server.port), 30) for _ in range(count)]
    for connection in connections:
        connection.sendall(HEAD % len(body) + body)
    return connections


def responses(connections: list[socket.socket]) -> Iterator[bytes]:
    for connection in connections:
        received = b""
        with contextlib.closing(connection):
            while chunk := connection.recv(1 << 16):
                received += chunk
        yield received


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_all_workers_finish_what_they_have_accepted(exported: Path, number: int) -> None:
    with serve(exported, "--workers", "2") as server:
        assert server.label(TEXT)
        connections = requests_under_way(server, 12)
        time.sleep(0.3)
        for pid in [server.process.pid, *workers(server)]:  # as a terminal or a service manager does
            os.kill(pid, number)
        for response in responses(connections):
            head, body = response.split(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200")
            assert len(json.loads(body)["predictions"]) == 100
        assert server.process.wait(20) == 0
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", server.port))


def test_workers_do_not_outlive_their_parent(exported: Path) -> None:
    with serve(exported, "--workers", "2") as server:
        assert server.label(TEXT)
        orphans = workers(server)
        connections = requests_under_way(server, 4)
        time.sleep(0.3)
        server.process.kill()
        assert all(response.startswith(b"HTTP/1.1 200") for response in responses(connections))
        eventually("gone", lambda: not any(Path(f"/proc/{pid}/exe").exists() for pid in orphans))


def test_a_committee_folder_is_served_by_several_too(tmp_path: Path) -> None:
    save_counted(Committee(toys()[:1]), tmp_path / "committee")
    with serve(tmp_path / "committee", "--workers", "2") as server:
        assert server.label(TEXT) == Committee(toys()[:1]).predict([TEXT])[0]


def test_each_worker_computes_on_its_share_of_the_cores() -> None:
    script = (
        "import os, socket, sys, time\n"
        "from tinylm.system import cores\n"
        "from tinylm.serve.workers import run_workers\n"
        "cores.limit_cores(int(sys.argv[1]))\n"
        "cores.allowed_cores, cores._quotas = lambda: 64, list\n"
        "def serve():\n"
        "    os.write(1, b'%d\\n' % cores.cores())\n"  # at once, beside those of the others
        "    time.sleep(60)\n"
        "run_workers(serve, socket.create_server(('127.0.0.1', 0)), 3)\n"
    )
    for there, share in ((7, 2), (2, 1)):
        process = subprocess.Popen(
            [sys.executable, "-c", script, str(there)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        assert [process.stdout.readline() for _ in range(3)] == [f"{share}\n"] * 3
        process.terminate()
        assert process.wait(20) == 0


def test_no_worker_is_a_mistake(exported: Path) -> None:
    assert "--workers" in refused(tinylm("serve --port 0 --workers 0", exported))
