"""The runner on tiny tasks: results, sharing, killed and failing runs, damaged files, two runners."""

from __future__ import annotations

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
import torch
from tests.helpers.inputs import TINY_SPEC
from tests.helpers.runner import Here

from tinylm.errors import UserError
from tinylm.paper import execute, runner
from tinylm.paper.preset import Preset, load_preset
from tinylm.paper.records import Records
from tinylm.paper.report import write_report
from tinylm.paper.results import Results
from tinylm.paper.spec import load_table
from tinylm.system.files import locked, write_json
from tinylm.system.processes import threads
from tinylm.train import loop
from tinylm.train.recipes import RECIPES

SPEC = (
    TINY_SPEC.replace("    rows:", "    plots: [gap, committee, labels]\n    rows:")
    + """\
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
)
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


def plan(home: Path, folder: Path, spec: str = "tiny", **options):
    return runner.plan_tables([str(home / f"{spec}.yaml")], preset_name="smoke", folder=folder, **options)


def run(home: Path, folder: Path, spec: str = "tiny", **options):
    execute._pretrained.cache_clear()  # new processes would know no weights
    with threads(1):
        return runner.run_tables(plan(home, folder, spec, **options), engine=Here())


@pytest.fixture(scope="module")
def ran(home: Path) -> Path:
    folder = home / "results"
    summary = run(home, folder)
    # Pre-trainings 2; trials 2 of four rows, of which `none` is also what the gap is measured
    # against; TF-IDF, the linear SVM and fastText.
    assert (summary.done, summary.failed) == (2 + 2 * 4 + 3, [])
    return folder


def cells(folder: Path) -> dict[str, dict]:
    """All finished cells by their key."""
    found = {key: Results(folder).read(key) for key in Records(folder).names("cells")}
    return {key: cell for key, cell in found.items() if cell is not None}


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
    stored = Results(ran).committees("tiny", "")
    assert stored is not None
    assert stored["numbers"] == [0, 1]
    for keys, accuracy in zip(stored["keys"], stored["trials"], strict=True):
        files = [np.load(ran / "logits" / f"{key}.npz") for key in keys]
        summed = sum(file["test"].astype(float) for file in files)
        assert accuracy == pytest.approx(np.mean(summed.argmax(1) == files[0]["test_labels"]))
    assert len({key for keys in stored["keys"] for key in keys}) == 4  # twins are two models


def test_nothing_finished_is_run_again_and_tables_share(home: Path, ran: Path):
    before = (ran / "tiny.jsonl").stat().st_mtime_ns
    again, other = run(home, ran), run(home, ran, "other")
    assert (again.done, again.found, other.done, other.found) == (0, 11, 0, 11)
    assert (ran / "tiny.jsonl").stat().st_mtime_ns == before


def test_only_the_rows_asked_for_are_run(home: Path, tmp_path: Path):
    summary = run(home, tmp_path / "r", rows=["plain-1"])
    assert summary.done == 2 + 3  # two trials and the three baselines
    with pytest.raises(UserError, match="row 'plain-3' is unknown; tiny has random, none, plain-1, plain-2"):
        run(home, tmp_path / "r", rows=["plain-3"])


def test_only_the_panels_asked_for_are_run(home: Path, tmp_path: Path):
    """Rows of one name in two panels, each with another task, are told apart by the panel."""
    head, rest = TINY_SPEC.split("panels:\n")
    second = rest.replace("- title: topics", "- name: b\n    title: b").replace("[0, 1, 2]", "[3, 4]")
    first = rest.replace("- title: topics", "- name: a\n    title: a")
    (home / "two.yaml").write_text(f"{head}panels:\n{first}{second}")
    both = {job.key for job in plan(home, tmp_path, "two").jobs}
    a, b = ({job.key for job in plan(home, tmp_path, "two", panels=[name]).jobs} for name in "ab")
    # Two pre-trainings, shared by both panels; of each two trials with and two without, three baselines.
    assert (len(a), len(b), len(a & b), len(both)) == (2 + 4 + 3, 2 + 4 + 3, 2, 2 + 2 * (4 + 3))
    assert a | b == both
    with pytest.raises(UserError, match="panel 'c' is unknown; two has a, b"):
        plan(home, tmp_path, "two", panels=["c"])
    with pytest.raises(UserError, match="panel 'a' is unknown; tiny has none with a name"):
        plan(home, tmp_path, panels=["a"])


def test_planning_only_reads(home: Path, ran: Path, tmp_path: Path):
    def content() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in ran.rglob("*") if path.is_file()}

    before = content()
    # Other settings: the cells of these plans are not those that the folder has plans for.
    assert plan(home, ran, trials=3).found == 11 and len(plan(home, ran, corpus="vital", trials=4).jobs)
    assert content() == before
    plan(home, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_what_git_keeps_is_packed_by_table(home: Path, ran: Path):
    run(home, ran, "other")
    ignored = (ran / ".gitignore").read_text().split()
    kept = {path.name for path in ran.iterdir()} - {name.rstrip("/") for name in ignored}
    assert kept == {".gitignore", "preset.json", "tiny.jsonl", "other.jsonl"}
    names = [json.loads(line)["record"] for line in (ran / "tiny.jsonl").read_text().splitlines()]
    assert sorted(names) == sorted(
        [*(f"cells/{key}" for key in cells(ran)), "tables/tiny", "committees/tiny"]
    )
    # The cells that both tables share lie in the first one's file alone.
    other = [json.loads(line)["record"] for line in (ran / "other.jsonl").read_text().splitlines()]
    assert other == ["committees/other", "tables/other"]


def test_a_folder_with_a_file_for_each_cell_is_read_and_packed(home: Path, ran: Path, tmp_path: Path):
    old = tmp_path / "old"
    shutil.copytree(ran, old)
    for packed in old.glob("*.jsonl"):
        for record in map(json.loads, packed.read_text().splitlines()):
            write_json(old / f"{record['record']}.json", record["content"])
        packed.unlink()
    assert cells(old) == cells(ran) and Results(old).planned() == Results(ran).planned()
    summary = run(home, old)
    assert (summary.done, summary.found) == (0, 11)
    assert cells(old) == cells(ran) and not (old / "cells").exists()


def test_damaged_and_foreign_cells_are_set_aside(home: Path, tmp_path: Path):
    folder = tmp_path / "r"
    run(home, folder, rows=["plain-1"])
    before = cells(folder)
    one, two = [key for key, cell in before.items() if cell["identity"]["kind"] == "finetuning"]
    path = folder / "tiny.jsonl"
    lines = path.read_text().splitlines()
    for i, line in enumerate(lines):
        if f"cells/{one}" in line:
            lines[i] = line[: line.index(f"cells/{one}") + 10]  # in the middle of a string
        elif f"cells/{two}" in line:
            foreign = json.loads(line)
            foreign["content"]["identity"]["seed"] = 77
            lines[i] = json.dumps(foreign)
    path.write_text("\n".join(lines) + "\n")
    summary = run(home, folder, rows=["plain-1"])
    assert summary.done == 2
    assert any("is damaged (Unterminated string" in note for note in summary.notes)
    assert any(f"cells/{two} belongs to other settings" in note for note in summary.notes)
    after = cells(folder)
    for name in ("identity", "accuracy", "per_label"):
        assert {key: cell.get(name) for key, cell in after.items()} == {
            key: cell.get(name) for key, cell in before.items()
        }
    assert not any("is not used" in note for note in run(home, folder, rows=["plain-1"]).notes)  # mended


def test_a_folder_of_another_preset_is_refused(home: Path, ran: Path, tmp_path: Path):
    with pytest.raises(UserError, match="holds results of the preset 'smoke', not 'paper'"):
        Results(ran).begin("paper")
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="holds no results"):
        Results(tmp_path).begin("smoke")


def test_with_patience_the_epoch_is_chosen_on_validation_texts(home: Path, tmp_path: Path, monkeypatch):
    changes = {"patience": 4, "finetune_epochs": 20, "finetune_muon_lr": 0.05, "validation_share": 0.2}
    preset = Preset.model_validate(load_preset("smoke").model_dump() | changes)
    monkeypatch.setattr(runner, "load_preset", lambda name: preset)
    # In bf16 an epoch is scored with rounded weights, and the model that is kept has others.
    monkeypatch.setattr(loop, "supports_bf16", lambda device: False)
    folder = tmp_path / "r"
    assert run(home, folder, rows=["plain-1"]).failed == []
    tuned = [cell for cell in cells(folder).values() if cell["identity"]["kind"] == "finetuning"]
    assert len(tuned) == 2
    for cell in tuned:
        assert cell["identity"]["patience"] == 4 and "best_epoch_accuracy" not in cell
        scores = [(epoch["validation_score"], -epoch["validation_loss"]) for epoch in cell["history"]]
        kept = scores.index(max(scores))
        assert cell["kept_epoch"] == kept + 1 and len(scores) in (kept + 1 + 4, 20)
        assert cell["validation_accuracy"] == pytest.approx(scores[kept][0])
    assert write_report(folder).notes == []  # has no best epoch to show


def test_what_the_classifier_reads_belongs_to_the_key(home: Path, tmp_path: Path, monkeypatch):
    def keys() -> set[str]:
        return {job.key for job in plan(home, tmp_path).jobs}

    before = keys()
    monkeypatch.setitem(RECIPES, "sketch", RECIPES["sketch"].model_copy(update={"pooling": "mean"}))
    assert len(before & keys()) == 3  # the baselines


def test_hours_are_judged_by_cells_of_this_processor_alone(home: Path, ran: Path, tmp_path: Path):
    folder = tmp_path / "results"
    shutil.copytree(ran, folder)
    prepared = plan(home, folder)
    cell = next(iter(prepared.plans[0].cells()))
    trainings = [cell for cell in prepared.plans[0].cells() if cell.work]
    assert cell.work == 0 and prepared.hours(trainings) > 0  # baselines take no time
    for key, record in cells(folder).items():
        Results(folder).write(key, record | {"device": "NVIDIA H100"})
    assert plan(home, folder).hours(trainings) is None


@pytest.mark.slow
def test_open_questions_run_at_the_smallest_size(home: Path, tmp_path: Path):
    """Some rows of each: the questions that only larger presets run with `all`."""
    rows = {
        "committee-untrained": ["plain-24heads"],
        "deep-model": ["plain-1"],
        "depth": ["bert1"],
        "overlap-control": ["same-lengths"],
        "overlap-selections": ["5000-random", "5000-4000"],
        "reduced-vocabulary": ["full", "reduced"],
        "reverse-shares": ["share-00", "share-60"],
        "single-head": ["bert1-24heads"],
    }
    for name, chosen in rows.items():
        prepared = runner.plan_tables([name], preset_name="smoke", folder=tmp_path / "r", rows=chosen)
        with threads(1):
            assert runner.run_tables(prepared, engine=Here()).failed == []
    write_report(tmp_path / "r")
    text = (tmp_path / "r" / "report.md").read_text()
    for name in rows:
        title = load_table(name)[1].title
        assert title in text
    assert (
        "| same-lengths | 400 |" in text
        and "| share-60 | 50 |" in text
        and "| bert1 | BERT-1, 1 head |" in text
    )


def test_one_failing_cell_does_not_lose_the_others(home: Path, ran: Path, tmp_path: Path):
    plan = Results(ran).plan("tiny")
    key = plan["panels"][0]["rows"][0]["pretrainings"][0]
    weights = home / "cache" / "paper" / "pretrained" / key / "model.safetensors"
    good = weights.read_bytes()
    weights.write_bytes(good[:100])
    try:
        summary = run(home, tmp_path / "r")
    finally:
        weights.write_bytes(good)
    assert len(summary.failed) == 1 and "damaged or cut short" in summary.failed[0]
    assert summary.done == 13 - 1
    assert run(home, tmp_path / "r").done == 1


def test_a_gpu_that_fails_ends_the_run_before_all_other_cells_fail_on_it(
    home: Path, tmp_path: Path, monkeypatch
):
    cells_begun = []

    def failing(cell, *_):
        cells_begun.append(cell)
        raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered\nSearch for ...")

    monkeypatch.setattr(execute, "_finetune", failing)
    with pytest.raises(
        UserError, match=r"trial 1: the GPU failed \(CUDA error: an illegal memory access"
    ) as raised:
        run(home, tmp_path / "r")
    assert "start the same command again" in str(raised.value) and len(cells_begun) <= 2
    monkeypatch.undo()
    assert run(home, tmp_path / "r").failed == []


def start(home: Path, folder: Path, how: str, *rows: str) -> subprocess.Popen[str]:
    """Another runner; `how` is "here", for cells in its own process, or "workers"."""
    command = [sys.executable, "-m", "tests.helpers.runner", how, str(home / "tiny.yaml"), str(folder), *rows]
    root = Path(__file__).parents[2]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=root)


@pytest.mark.slow
def test_a_killed_run_is_resumed_and_its_workers_end(home: Path, ran: Path, tmp_path: Path):
    folder = tmp_path / "r"
    process = start(home, folder, "workers")
    while len(cells(folder)) < 2:
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    summary = run(home, folder)  # would wait for ever for a lock that an orphan holds
    assert summary.failed == [] and 0 < summary.done <= 11
    assert {key: cell["identity"] for key, cell in cells(folder).items()} == {
        key: cell["identity"] for key, cell in cells(ran).items()
    }


@pytest.mark.slow
def test_two_runners_neither_repeat_nor_corrupt(home: Path, ran: Path, tmp_path: Path):
    folder = tmp_path / "r"
    runners = [start(home, folder, "here") for _ in range(2)]
    done = [int(process.communicate()[0].split()[-1]) for process in runners]
    assert [process.returncode for process in runners] == [0, 0]
    # Each cell was computed by one of them, and both met the other's.
    assert sum(done) >= len(cells(folder))
    assert cells(folder).keys() == cells(ran).keys()  # `cells` trusts none of other settings
    packed = [json.loads(line)["record"] for line in (folder / "tiny.jsonl").read_text().splitlines()]
    assert len(packed) == len(set(packed)) == len(cells(ran)) + 2
    assert not (folder / "cells").exists()


@pytest.mark.slow
def test_a_cell_that_another_runner_holds_is_left_to_it(home: Path, tmp_path: Path):
    folder = tmp_path / "r"
    run(home, folder, rows=["plain-1"])
    key = next(key for key, cell in cells(folder).items() if cell["identity"]["kind"] == "finetuning")
    cell = cells(folder)[key]
    lines = (folder / "tiny.jsonl").read_text().splitlines(keepends=True)
    (folder / "tiny.jsonl").write_text("".join(line for line in lines if f"cells/{key}" not in line))
    with locked(Results(folder).lock(key)):
        process = start(home, folder, "here", "plain-1")
        assert process.stdout is not None and process.stdout.readline() == "busy\n"
        # The other runner finishes it and lets go.
        Results(folder).write(key, cell | {"seconds": 0.5})
    assert process.wait() == 0
    assert cells(folder)[key] == cell | {"seconds": 0.5}


def test_the_report_needs_neither_logits_nor_data(ran: Path, tmp_path: Path, monkeypatch):
    clone = tmp_path / "clone"
    shutil.copytree(ran, clone, ignore=shutil.ignore_patterns("logits", ".locks"))
    monkeypatch.setenv("TINYLM_CACHE", str(tmp_path / "empty"))
    with pytest.raises(UserError, match=r"paper.html; expected a Markdown file"):
        write_report(clone, tmp_path / "paper.html")
    assert write_report(clone, tmp_path / "docs" / "paper.md").notes == []
    text = (tmp_path / "docs" / "paper.md").read_text()
    assert "![" in text and "../clone/plots/" in text
    assert {path.suffix for path in (clone / "plots").iterdir()} == {".svg"}
    page = (clone / "report.html").read_text()
    assert "<script" not in page and "<link" not in page
    assert all(target.startswith("#") for target in re.findall(r'(?:src|href)="([^"]*)"', page))
    accuracies = [c["accuracy"] for c in cells(clone).values() if c["identity"].get("seed") in (100, 101)]
    assert f"{np.mean(accuracies):.3f} ± {np.std(accuracies, ddof=1):.3f}" in text  # row plain-2
