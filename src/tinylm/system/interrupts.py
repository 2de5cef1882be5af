"""Ctrl-C and other signals to end: at once, quietly, and with nothing half-written."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from rich.console import Console

from tinylm.system.files import remove_temporaries

SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")  # Ctrl-C, a job scheduler, a terminal that was closed
PATIENCE = 4.0  # seconds

_ending = threading.Event()
_holding = False  # whether a signal waits for the end of a block
_waiting: int | None = None  # the signal that does


@contextmanager
def ended_by_signals(patience: float = PATIENCE) -> Iterator[None]:
    """Let signals end the block by an exception, and the process soon after, whatever it does.

    SIGINT raises `KeyboardInterrupt`, as always; SIGTERM and SIGHUP raise `SystemExit` with 128 and
    their number. Signals that the user or a command has arranged otherwise are left alone.

    Args:
        patience: seconds after which the process ends by force. Python raises the exception when the
            main thread returns from a call into a library in C or Rust, which may take minutes.
    """
    if threading.current_thread() is not threading.main_thread():  # signals are not its business
        yield
        return
    numbers = [
        number
        for name in SIGNALS
        if (number := getattr(signal, name, None)) is not None
        and signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler)
    ]
    mine, pythons = socket.socketpair()
    pythons.setblocking(False)
    wakeup = signal.set_wakeup_fd(pythons.fileno(), warn_on_full_buffer=False)
    before = {number: signal.signal(number, _end) for number in numbers}
    threading.Thread(target=_watch, args=(mine, patience), daemon=True).start()
    try:
        yield
    finally:
        if not _ending.is_set():
            for number, handler in before.items():
                signal.signal(number, handler)
        signal.set_wakeup_fd(wakeup)
        pythons.close()


def _end(number: int, frame: FrameType | None) -> None:
    if _ending.is_set():  # a second one would interrupt the cleaning up
        return
    _ending.set()
    end(number)


def end(number: int) -> None:
    """Raise the exception of a signal, or let it wait where it is held back."""
    global _waiting  # noqa: PLW0603 (signals are a process's own)
    if _holding:
        _waiting = number
    else:
        _raise(number)


def _raise(number: int) -> None:
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    sys.exit(128 + number)


@contextmanager
def held_back() -> Iterator[Callable[[], bool]]:
    """Let signals wait while something is not to be interrupted, such as a step of a training.

    Yields:
        Whether one waits; the block should end soon then. Its exception is raised at the end.
    """
    global _holding, _waiting  # noqa: PLW0603
    _holding = True
    try:
        yield lambda: _waiting is not None
    finally:
        _holding = False
        number, _waiting = _waiting, None
        if number is not None:
            _raise(number)


def _watch(signals: socket.socket, patience: float) -> None:
    """End this process `patience` seconds after the first signal that `_end` is responsible for."""
    with signals:
        while number := signals.recv(1):
            if signal.getsignal(number[0]) is _end:
                time.sleep(patience)
                remove_temporaries()
                Console(stderr=True).show_cursor()
                os._exit(128 + number[0])
