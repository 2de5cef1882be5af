"""`tinylm pretrain`, through the real entry point."""

from __future__ import annotations

import importlib.metadata
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from helpers.command import (
    TINY,
    done,
    record_of,
    refused,
    tinylm,
    weights_of,
)
from tinylm.system.files import hash_files
from tinylm.train.checkpoint import Checkpoint


def test_a_record_holds_what_made_the_model(home: Path) -> None:
    record = record_of(home / "pretrained")
    assert (record["kind"], record["seed"]) == ("pretrained", 5)
    assert record["settings"] | {"corpus": "corpus.txt", "epochs": 1, "seed": 5} == record["settings"]
    assert record["corpus"]["fingerprint"] == hash_files([home / "corpus.txt"])
    assert record["corpus"]["w_s"] == 400
    assert record["versions"]["torch"] == importlib.metadata.version("torch")
    assert [epoch["epoch"] for epoch in record["history"]] == [1]


def test_same_command_same_bytes_and_saved_settings_give_them_again(home: Path, tmp_path: Path) -> None:
    done(f"pretrain --corpus corpus.txt {TINY} --seed 5 --out", tmp_path / "again")
    done("pretrain --settings pretrained/tinylm.json --out", tmp_path / "from-record")
    settings = yaml.safe_dump(record_of(home / "pretrained")["settings"] | {"out": str(tmp_path / "yaml")})
    (tmp_path / "settings.yaml").write_text(settings, encoding="utf-8")
    done("pretrain --settings", tmp_path / "settings.yaml")
    done(f"pretrain --corpus corpus.txt {TINY} --seed 6 --out", tmp_path / "other")
    for name in ("again", "from-record", "yaml"):
        assert weights_of(tmp_path / name) == weights_of(home / "pretrained")
    assert weights_of(tmp_path / "other") != weights_of(home / "pretrained")


def test_the_command_line_wins_over_the_settings_file(home: Path, tmp_path: Path) -> None:
    (tmp_path / "corpus.csv").write_text("body\n" + (home / "corpus.txt").read_text(), encoding="utf-8")
    settings = "epochs: 2\nlayers: 1\nheads: 1\nrecipe: fast\nvocabulary: 300\ntext-column: body\nsize: 40\n"
    (tmp_path / "s.yaml").write_text(f"{settings}corpus: {tmp_path / 'corpus.csv'}\n", encoding="utf-8")
    done(f"pretrain --settings {tmp_path / 's.yaml'} --out", tmp_path / "two")
    done(f"pretrain --epochs 1 --settings {tmp_path / 's.yaml'} --out", tmp_path / "one")
    assert [len(record_of(tmp_path / name)["history"]) for name in ("two", "one")] == [2, 1]
    assert record_of(tmp_path / "one")["corpus"]["w_s"] == 40


def test_shape_and_recipe_of_a_model(home: Path, tmp_path: Path) -> None:
    command = "pretrain --corpus corpus.txt --size 32 --vocabulary 300 --epochs 1 --layers 2 --width 128"
    done(f"{command} --convolution 1x2x3x3 --recipe paper --out", tmp_path / "model")
    record = record_of(tmp_path / "model")
    assert record["recipe"]["pretrain"]["learning_rate"] == 5.5e-5
    assert (record["model"]["layers"], record["model"]["heads"], record["model"]["max_tokens"]) == (2, 2, 128)
    assert record["model"]["convolution"] == {"layers": 1, "channels": 2, "kernel": [3, 3]}
    assert json.loads((tmp_path / "model" / "config.json").read_text())["hidden_size"] == 128


STEPS = 7  # of batches of 64 of the 400 lines
# Killed or without room after it has saved a step, the fifth or one of the second part, or told to end in the
# middle of it.
KILLED = """
import os, resource, signal
from tinylm import cli
from tinylm.train.checkpoint import Checkpoint
Checkpoint.due = lambda self: True
save, saves = Checkpoint.save, []
def save_and_die(self, *state):
    save(self, *state)
    saves.append(1)
    if len(saves) == int(os.environ["SAVES"]):
        os.kill(os.getpid(), signal.SIGKILL)
Checkpoint.save = save_and_die
cli.main()
"""
FULL = KILLED.replace(
    "os.kill(os.getpid(), signal.SIGKILL)", "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))"
)
INTERRUPTED = """
import os, signal
from tinylm import cli
from tinylm.train.loop import Run
learn, steps = Run.learn, []
def learn_interrupted(self, inputs):
    steps.append(1)
    if len(steps) == 5:
        os.kill(os.getpid(), signal.{})
    return learn(self, inputs)
Run.learn = learn_interrupted
cli.main()
"""


@pytest.mark.parametrize(
    ("script", "code", "said", "done_steps"),
    [
        (KILLED, -signal.SIGKILL, "", [5, 0]),
        (KILLED, -signal.SIGKILL, "", [STEPS, 3]),
        (FULL, 2, "Error: {checkpoint} could not be written: File too large.\n", [5, 0]),
        (INTERRUPTED.format("SIGINT"), 130, "Interrupted. Start the same command again to resume.\n", [5, 0]),
        (
            INTERRUPTED.format("SIGTERM"),
            143,
            "Interrupted. Start the same command again to resume.\n",
            [5, 0],
        ),
    ],
)
def test_a_killed_run_resumes_and_equals_an_uninterrupted_one(
    home: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    script: str,
    code: int,
    said: str,
    done_steps: list[int],
) -> None:
    monkeypatch.setenv("SAVES", str(sum(done_steps)))
    command = f"pretrain --corpus corpus.txt {TINY} --seed 5 --out {tmp_path / 'model'}"
    killed = subprocess.run(
        [sys.executable, "-c", script, *shlex.split(command)], stderr=subprocess.PIPE, text=True, check=False
    )
    checkpoint = tmp_path / "model.checkpoint"
    assert (killed.returncode, killed.stderr) == (code, said.format(checkpoint=checkpoint))
    assert checkpoint.is_file()
    assert not (tmp_path / "model").exists()
    other = refused(tinylm(command.replace("--seed 5", "--seed 6")))
    assert "model.checkpoint belongs to a run with other settings (seed)" in other
    places = []
    restore = Checkpoint.restore

    def observed(self: Checkpoint, *state: Any) -> Any:
        place = restore(self, *state)
        places.append(place.step)
        return place

    monkeypatch.setattr(Checkpoint, "restore", observed)
    done(command)
    assert places == done_steps
    assert weights_of(tmp_path / "model") == weights_of(home / "pretrained")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.slow
def test_processes_of_torchrun_share_a_training_that_one_resumes(home: Path, tmp_path: Path) -> None:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = f"pretrain --corpus corpus.txt {TINY.replace('--epochs 1', '--epochs 40')} --seed 3 --out"
    out = tmp_path / "together"
    process = subprocess.Popen(
        [*torchrun, "-m", "tinylm", *command.split(), out],
        env=os.environ | {"TINYLM_CHECKPOINT_SECONDS": "0"},
        stderr=subprocess.PIPE,
        text=True,
    )
    checkpoint = tmp_path / "together.checkpoint"
    while not checkpoint.exists():
        assert process.poll() is None
        time.sleep(0.05)
    process.terminate()
    assert process.communicate()[1].count("Interrupted. Start the same command again to resume.") == 1
    assert process.returncode != 0 and checkpoint.exists() and not out.exists()
    done(command, out)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["together"]
    # Undisturbed, and by one process: the same losses within what bf16 rounds.
    done(command, tmp_path / "alone")
    histories = [record_of(tmp_path / name)["history"] for name in ("together", "alone")]
    losses = [[epoch["loss"] for epoch in history] for history in histories]
    assert losses[0] != losses[1] and len(losses[0]) == 40
    assert losses[0] == pytest.approx(losses[1], rel=0.05)


@pytest.mark.slow
def test_torchrun_writes_once(home: Path, tmp_path: Path) -> None:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = f"pretrain --corpus corpus.txt {TINY} --seed 3 --out"
    found = subprocess.run(
        [*torchrun, "-m", "tinylm", *command.split(), tmp_path / "two"], capture_output=True, text=True
    )
    assert found.returncode == 0, found.stderr
    assert found.stdout.count("W_S = 400") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["two"]
    done("verify", tmp_path / "two")
