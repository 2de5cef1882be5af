"""Work in other processes gives what it gives in this one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import pytest

from tinylm.errors import UserError
from tinylm.system.processes import in_order, run_side_by_side
from tinylm.system.progress import progress_bars


def square(number: int) -> tuple[int, int, int]:
    with progress_bars() as bars:
        bar = bars.add("squaring", 1)
        bars.update(bar, completed=1, info="done")
    import torch  # here, so that the workers of other tests start faster

    return number**2, os.getpid(), torch.get_num_threads()


def drawn(seed: int) -> Any:
    import torch

    torch.manual_seed(seed)
    return torch.randn(4) @ torch.randn(4, 4)


def refuse(number: int) -> None:
    if number == 2:
        raise UserError(f"number {number} is not wanted.")
    while True:  # until it is interrupted
        time.sleep(0.01)


def killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_results_come_in_the_order_of_the_jobs_from_other_processes() -> None:
    squares, processes, threads = zip(*run_side_by_side(square, [(n,) for n in (5, 3, 4)]), strict=True)
    assert squares == (25, 9, 16)
    assert os.getpid() not in processes
    assert set(threads) == {1}


def test_of_a_stream_of_jobs_a_few_are_under_way_and_their_results_come_in_order() -> None:
    futures: list[Future[int]] = []

    def submit(function: Callable[[int], int], number: int) -> Future[int]:
        futures.append(Future())
        return futures[-1]

    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(next, results := in_order(submit, abs, ((n,) for n in range(100)), 3))
        while len(futures) < 3:
            time.sleep(0.001)
        for number in (2, 1, 0):
            futures[number].set_result(number)
        assert first.result() == 0
        assert [next(results), next(results)] == [1, 2]
    assert len(futures) == 5
    futures[3].set_exception(BrokenProcessPool())
    with pytest.raises(UserError, match="a process that was at work has been killed"):
        next(results)


def test_tensors_come_back_as_they_were() -> None:
    import torch

    for seed, tensor in enumerate(run_side_by_side(drawn, [(0,), (1,)])):
        torch.testing.assert_close(tensor, drawn(seed))


def test_a_mistake_in_a_job_arrives_as_it_is_and_ends_the_others() -> None:
    with pytest.raises(UserError, match="number 2 is not wanted"):
        run_side_by_side(refuse, [(1,), (2,), (3,)])


def test_a_process_that_is_killed_is_one_sentence() -> None:
    with pytest.raises(
        UserError, match="a process that was at work has been killed, perhaps for want of mem"
    ):
        run_side_by_side(killed, [(), ()])


def test_a_script_without_a_guard_does_not_run_again_in_its_workers(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import os\nfrom tinylm.system.processes import run_side_by_side\nprint('from the top')\n"
        "print(len(set(run_side_by_side(os.path.abspath, [('a',), ('b',)], workers=2))))\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=120)
    assert done.stdout == "from the top\n2\n", done.stderr


COPIES = """
import os, sys
sys.path.insert(0, sys.argv[1])
os.environ["SAID"] = "early"
import tinylm.train.masking  # and with it PyTorch
from jobs import seen
from tinylm.system.processes import run_side_by_side

for said in ("early", "late"):
    os.environ["SAID"] = said
    os.chdir(sys.argv[1])
    print(*set(run_side_by_side(seen, [(), ()], workers=2)))
"""
SEEN = """
import os, sys, time

loaded = "tinylm.train.masking" in sys.modules

def seen():
    time.sleep(0.5)  # so that each of two workers takes one job
    return loaded, os.environ["SAID"], os.environ["OMP_NUM_THREADS"], os.getcwd()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere workers start afresh")
def test_workers_have_loaded_what_their_parent_has_and_live_in_its_surroundings(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/jobs.py").write_text(SEEN)
    (tmp_path / "script.py").write_text(COPIES)
    here = str(tmp_path / "elsewhere")
    command = [sys.executable, tmp_path / "script.py", here]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.stdout.splitlines() == [str((True, said, "1", here)) for said in ("early", "late")], (
        done.stderr
    )


def test_one_worker_is_this_process() -> None:
    assert run_side_by_side(os.getpid, [(), ()], workers=1) == [os.getpid()] * 2
