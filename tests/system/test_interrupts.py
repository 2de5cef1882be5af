"""Signals end a command, its processes and what they were writing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

from tinylm.system.interrupts import ended_by_signals

# One job cleans up when it is interrupted; the other hears nothing of it, as one in a library in C.
JOB = """
import itertools, time
from pathlib import Path
from tinylm.system.files import new_folder

def job(name):
    with new_folder(Path(name)) as folder:
        (folder / "half").touch()
        Path(name + ".begun").touch()
        if name == "deaf":
            time.sleep(3600)
        for _ in itertools.repeat(None):
            time.sleep(0.01)
"""
WORKERS = """
import sys
from jobs import job
from tinylm.system.interrupts import ended_by_signals
from tinylm.system.processes import run_side_by_side

try:
    with ended_by_signals():
        run_side_by_side(job, [("polite",), ("deaf",)], workers=2)
except KeyboardInterrupt:
    sys.exit(130)
"""
SAVING = """
import time
from pathlib import Path
from tinylm.system.interrupts import held_back

def job(name):
    with held_back() as interrupted:
        Path(name + ".begun").touch()
        while not interrupted():
            time.sleep(0.01)
        time.sleep(0.1)
        Path(name + ".saved").touch()
"""
ALONE = """
import hashlib
from pathlib import Path
from tinylm.system.files import new_folder
from tinylm.system.interrupts import ended_by_signals

with ended_by_signals(patience=0.1), new_folder(Path("out")) as folder:
    (folder / "half").touch()
    Path("deaf.begun").touch()
    hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1)  # half an hour, in C
"""


def start(script: str, folder: Path, job: str = JOB) -> subprocess.Popen[str]:
    """Run a script in a session of its own until its work has begun."""
    (folder / "jobs.py").write_text(job)
    (folder / "script.py").write_text(script)
    process = subprocess.Popen(
        [sys.executable, "script.py"],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        # Tests that run under nohup ignore this signal, and so would the script.
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),
    )
    waited = [folder / f"{name}.begun" for name in ("polite", "deaf") if name in script]
    while not all(path.exists() for path in waited):
        assert process.poll() is None, process.communicate()[0]
    return process


def ended(process: subprocess.Popen[str], folder: Path) -> int:
    """Its exit code, once all is quiet, gone and cleaned up."""
    out, _ = process.communicate(timeout=120)  # it ends when the last process has closed its output
    if process.returncode != -signal.SIGKILL:  # nobody is left then to tidy up Python's semaphores
        assert out == ""
    assert "Traceback" not in out
    with suppress(ProcessLookupError):  # the last helper processes of Python's take a moment
        for _ in range(600):
            os.killpg(process.pid, 0)
            time.sleep(0.1)
        pytest.fail("a process is left")
    assert not list(folder.glob("*.partial"))
    assert not {"out", "polite", "deaf"} & {path.name for path in folder.iterdir()}
    return process.returncode


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "group", "code"),
    [
        (signal.SIGINT, True, 130),
        (signal.SIGINT, False, 130),
        (signal.SIGTERM, True, 128 + signal.SIGTERM),
        (signal.SIGKILL, False, -signal.SIGKILL),
    ],
)
def test_workers_end_with_their_parent(tmp_path: Path, number: int, group: bool, code: int) -> None:
    process = start(WORKERS, tmp_path)
    (os.killpg if group else os.kill)(process.pid, number)
    assert ended(process, tmp_path) == code


def test_workers_save_before_they_end(tmp_path: Path) -> None:
    process = start(WORKERS, tmp_path, SAVING)
    process.send_signal(signal.SIGINT)
    assert ended(process, tmp_path) == 130
    assert (tmp_path / "polite.saved").exists() and (tmp_path / "deaf.saved").exists()


SLOW_START = """
import sys, time
from pathlib import Path
if any(start in argument for start in ("forkserver import main", "spawn_main") for argument in sys.orig_argv):
    for name in ("polite", "deaf"):  # what the test waits for
        Path(name + ".begun").touch()
    time.sleep(1)
"""


def test_workers_that_are_still_starting_are_quiet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sitecustomize.py").write_text(SLOW_START)  # Python runs it first
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *sys.path]))
    process = start(WORKERS, tmp_path)
    os.killpg(process.pid, signal.SIGINT)
    assert ended(process, tmp_path) == 130


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_process_that_does_not_listen_ends_by_force(tmp_path: Path, number: int) -> None:
    process = start(ALONE, tmp_path)
    process.send_signal(number)
    assert ended(process, tmp_path) == 128 + number


def test_a_thread_leaves_signals_alone() -> None:
    before = signal.getsignal(signal.SIGTERM)
    inside: list[object] = []

    def work() -> None:
        with ended_by_signals():
            inside.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert inside == [before]


QUIET = """
import os, signal, sys
from tinylm.system.interrupts import ended_by_signals

signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    try:
        with ended_by_signals(patience=3600):
            os.kill(os.getpid(), number)
            print("goes on")
    except BaseException as error:
        os.kill(os.getpid(), signal.SIGINT)  # nobody's cleaning up is interrupted
        print(type(error).__name__, error)
        os._exit(0) if number == signal.SIGTERM else None
        break
"""


def test_a_signal_that_is_ignored_stays_so_and_a_second_one_does_no_harm(tmp_path: Path) -> None:
    for order, said in (
        ("SIGINT, signal.SIGTERM, signal.SIGHUP", "KeyboardInterrupt \n"),
        ("SIGTERM, signal.SIGHUP", "SystemExit 143\n"),
        ("SIGHUP, signal.SIGTERM", "goes on\nSystemExit 143\n"),
    ):
        script = QUIET.replace(
            "for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)", f"for number in (signal.{order})"
        )
        out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
        assert (out.stdout, out.stderr) == (said, "")
