"""The runner on tiny tasks: results, sharing, killed and failing runs, damaged files, two runners."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tinylm.errors import UserError
from tinylm.paper.report import write_report
from tinylm.paper.results import Results
from tinylm.paper.runner import run_tables
from tinylm.system.files import key_of

SPEC = """\
title: tiny
panels:
  - title: topics
    task: {name: vital-topics, labels: [0, 1, 2], train_per_label: 30, test_per_label: 20}
    finetune: {learning_rate: 1e-3, weight_decay: 1e-2}
    without: {learning_rate: 1e-3, weight_decay: 1e-2}
    plots: [gap, committee, labels]
    rows:
      - name: random
        w_s: {select: random, size: 6400}
      - name: none
        w_s: {select: none}
      - name: plain-1
        role: member
        w_s: {select: none}
        architecture: {layers: 1}
      - name: plain-2
        role: member
        w_s: {select: none}
        architecture: {layers: 1}
"""
OTHER = SPEC.replace("title: tiny", "title: the same rows under other names").replace(
    "name: random", "name: r"
)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory):
    """A folder with a cache of its own and two specs."""
    folder = tmp_path_factory.mktemp("paper")
    before = os.environ.get("TINYLM_CACHE")
    os.environ["TINYLM_CACHE"] = str(folder / "cache")
    (folder / "tiny.yaml").write_text(SPEC)
    (folder / "other.yaml").write_text(OTHER)
    yield folder
    if before is None:
        del os.environ["TINYLM_CACHE"]
    else:
        os.environ["TINYLM_CACHE"] = before


def run(home: Path, folder: Path, spec: str = "tiny", **options):
    return run_tables([str(home / f"{spec}.yaml")], preset_name="smoke", folder=folder, **options)


@pytest.fixture(scope="module")
def ran(home: Path) -> Path:
    folder = home / "results"
    summary = run(home, folder)
    # Pre-trainings 2; trials 2 of four rows, of which `none` is also what the gap is measured
    # against; TF-IDF and fastText.
    assert (summary.done, summary.failed) == (2 + 2 * 4 + 2, [])
    return folder


def cells(folder: Path) -> dict[str, dict]:
    return {path.stem: json.loads(path.read_text()) for path in (folder / "cells").glob("*.json")}


def test_a_cell_holds_what_its_logits_say(ran: Path):
    tuned = {key: cell for key, cell in cells(ran).items() if cell["identity"]["kind"] == "finetuning"}
    assert len(tuned) == 8
    for key, cell in tuned.items():
        with np.load(ran / "logits" / f"{key}.npz") as file:
            right = file["test"].argmax(1) == file["test_labels"]
            assert cell["accuracy"] == pytest.approx(right.mean(), abs=0.02)  # stored in half precision
            per_label = [right[file["test_labels"] == label].mean() for label in range(3)]
            np.testing.assert_allclose(cell["per_label"], per_label, atol=0.06)
        assert cell["best_epoch_accuracy"] >= cell["accuracy"]
        assert {"seconds", "versions", "history", "identity"} <= cell.keys()


def test_coverage_is_counted_on_w_s(ran: Path):
    found = [cell["coverage"] for cell in cells(ran).values() if "coverage" in cell]
    assert len(found) == 2
    for coverage in found:
        assert coverage["paragraphs"] == 64  # 6,400 divided by the preset's 100
        assert coverage["t_m"] == coverage["t_c"] - (coverage["t_w"] - coverage["absent_from_task"])


def test_the_committee_is_the_sum_of_its_members_logits(ran: Path):
    stored = json.loads((ran / "committees" / "tiny.json").read_text())
    assert stored["numbers"] == [0, 1]
    for keys, accuracy in zip(stored["keys"], stored["trials"], strict=True):
        files = [np.load(ran / "logits" / f"{key}.npz") for key in keys]
        field = sum(file["test"].astype(float) for file in files)
        assert accuracy == pytest.approx(np.mean(field.argmax(1) == files[0]["test_labels"]))
    assert len({key for keys in stored["keys"] for key in keys}) == 4  # twins are two models


def test_nothing_finished_is_run_again_and_tables_share(home: Path, ran: Path):
    before = {path: path.stat().st_mtime_ns for path in (ran / "cells").iterdir()}
    again, other = run(home, ran), run(home, ran, "other")
    assert (again.done, again.found, other.done, other.found) == (0, 10, 0, 10)
    assert before == {path: path.stat().st_mtime_ns for path in (ran / "cells").iterdir()}


def test_only_the_rows_asked_for_are_run(home: Path, tmp_path: Path):
    summary = run(home, tmp_path / "r", rows=["plain-1"])
    assert summary.done == 2 + 2  # two trials and the two baselines
    with pytest.raises(UserError, match="row 'plain-3' is unknown; tiny has random, none, plain-1, plain-2"):
        run(home, tmp_path / "r", rows=["plain-3"])


def test_damaged_and_foreign_files_are_set_aside(home: Path, tmp_path: Path):
    folder = tmp_path / "r"
    run(home, folder, rows=["plain-1"])
    one, two = sorted(path for path in (folder / "cells").glob("*.json") if "finetuning" in path.read_text())
    wanted = one.read_text()
    one.write_text(wanted[: len(wanted) // 2])
    foreign = json.loads(two.read_text())
    foreign["identity"]["seed"] = 77
    two.write_text(json.dumps(foreign))
    summary = run(home, folder, rows=["plain-1"])
    assert summary.done == 2
    assert any(f"{one.name} is damaged" in note for note in summary.notes)
    assert any(f"{two.name} belongs to other settings" in note for note in summary.notes)
    assert {path.name for path in (folder / "cells").glob("*.damaged")} == {
        f"{one.name}.damaged",
        f"{two.name}.damaged",
    }
    same = ("identity", "accuracy", "per_label")
    assert [json.loads(one.read_text())[name] for name in same] == [json.loads(wanted)[name] for name in same]


def test_a_folder_of_another_preset_is_refused(home: Path, ran: Path, tmp_path: Path):
    with pytest.raises(UserError, match="holds results of the preset 'smoke', not 'paper'"):
        Results(ran).begin("paper")
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="holds no results"):
        Results(tmp_path).begin("smoke")


def test_one_failing_cell_does_not_lose_the_others(home: Path, ran: Path, tmp_path: Path):
    weights = sorted((home / "cache" / "paper" / "pretrained").glob("*/model.safetensors"))[0]
    good = weights.read_bytes()
    weights.write_bytes(good[:100])
    try:
        summary = run(home, tmp_path / "r")
    finally:
        weights.write_bytes(good)
    assert len(summary.failed) == 1 and "damaged or cut short" in summary.failed[0]
    assert summary.done == 12 - 1
    assert run(home, tmp_path / "r").done == 1


SCRIPT = """
import sys
from pathlib import Path
from tinylm.paper.runner import run_tables
if __name__ == "__main__":
    summary = run_tables([sys.argv[1]], preset_name="smoke", folder=Path(sys.argv[2]))
    print(summary.done)
"""


def start(home: Path, folder: Path) -> subprocess.Popen[str]:
    script = home / "run.py"
    script.write_text(SCRIPT)
    command = [sys.executable, str(script), str(home / "tiny.yaml"), str(folder)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_a_killed_run_goes_on_and_its_workers_end(home: Path, ran: Path, tmp_path: Path):
    folder = tmp_path / "r"
    process = start(home, folder)
    while len(list((folder / "cells").glob("*.json"))) < 2:
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    summary = run(home, folder)  # would wait for ever for a lock that an orphan holds
    assert summary.failed == [] and 0 < summary.done <= 10
    assert {key: cell["identity"] for key, cell in cells(folder).items()} == {
        key: cell["identity"] for key, cell in cells(ran).items()
    }


def test_two_runners_neither_repeat_nor_corrupt(home: Path, ran: Path, tmp_path: Path):
    folder = tmp_path / "r"
    runners = [start(home, folder) for _ in range(2)]
    assert [process.wait() for process in runners] == [0, 0]
    for key, cell in cells(folder).items():
        assert key_of(cell["identity"]) == key
    assert cells(folder).keys() == cells(ran).keys()


def test_a_cell_that_another_runner_holds_is_left_to_it(home: Path, tmp_path: Path):
    folder = tmp_path / "r"
    run(home, folder, rows=["plain-1"])
    key = next(key for key, cell in cells(folder).items() if cell["identity"]["kind"] == "finetuning")
    cell = (folder / "cells" / f"{key}.json").read_text()
    (folder / "cells" / f"{key}.json").unlink()
    with (folder / ".locks" / key).open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        process = start_rows(home, folder)
        time.sleep(3)
        # The other runner finishes it and lets go.
        (folder / "cells" / f"{key}.json").write_text(cell)
    assert process.wait() == 0
    assert (folder / "cells" / f"{key}.json").read_text() == cell


def start_rows(home: Path, folder: Path) -> subprocess.Popen[str]:
    script = home / "rows.py"
    script.write_text(
        SCRIPT.replace("folder=Path(sys.argv[2])", "folder=Path(sys.argv[2]), rows=['plain-1']")
    )
    return subprocess.Popen([sys.executable, str(script), str(home / "tiny.yaml"), str(folder)], text=True)


def test_the_report_needs_neither_logits_nor_data(ran: Path, tmp_path: Path, monkeypatch):
    clone = tmp_path / "clone"
    shutil.copytree(ran, clone, ignore=shutil.ignore_patterns("logits", ".locks"))
    monkeypatch.setenv("TINYLM_CACHE", str(tmp_path / "empty"))
    assert write_report(clone, tmp_path / "docs" / "paper.md") == []
    text = (tmp_path / "docs" / "paper.md").read_text()
    assert "![" in text and "../clone/plots/" in text
    assert (clone / "plots" / "tiny-labels.png").is_file()
    page = (clone / "report.html").read_text()
    assert "<script" not in page and "<link" not in page
    assert all(target.startswith("#") for target in re.findall(r'(?:src|href)="([^"]*)"', page))
    accuracies = [c["accuracy"] for c in cells(clone).values() if c["identity"].get("seed") in (100, 101)]
    assert f"{np.mean(accuracies):.3f} ± {np.std(accuracies, ddof=1):.3f}" in text  # row plain-2
