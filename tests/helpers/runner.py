"""A runner of the paper's tables whose cells run in its own process, also as a program.

    python -m tests.helpers.runner here|workers SPEC FOLDER [ROW ...]

As a program it prints "busy" whenever another runner holds a cell, and at last the number of cells
that it ran.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tinylm.paper import runner
from tinylm.system.processes import LOCAL, LocalEngine, Submit


class Here(LocalEngine):
    """This process, as an engine: each of the local one's has to load PyTorch first."""

    @contextmanager
    def workers(self, most: int, gpu: float = 0) -> Iterator[Submit]:
        def submit(function: Callable[..., Any], *arguments: Any) -> Future[Any]:
            future: Future[Any] = Future()
            try:
                future.set_result(function(*arguments))
            except Exception as error:
                future.set_exception(error)
            else:
                if future.result().busy and __name__ == "__main__":
                    print("busy", flush=True)
            return future

        yield submit


if __name__ == "__main__":
    how, spec, folder, *rows = sys.argv[1:]
    runner.BUSY_SECONDS = 0.1
    prepared = runner.plan_tables([spec], preset_name="smoke", folder=Path(folder), rows=rows or None)
    print(runner.run_tables(prepared, engine=Here() if how == "here" else LOCAL).done)
