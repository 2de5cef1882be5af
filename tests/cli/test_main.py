"""The program as a whole: its help, its installed script, its manners."""

from __future__ import annotations

import contextlib
import importlib.metadata
import io
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.command import (
    NOUNS,
    TINY,
    Outcome,
    done,
    record_of,
    refused,
    tinylm,
    weights_of,
    write_table,
)
from tinylm.cli import main
from tinylm.cli.common import console
from tinylm.errors import UserError
from tinylm.system.paths import TEMPORARY

COMMANDS = (
    "demo",
    "fit",
    "corpus",
    "coverage",
    "pretrain",
    "finetune",
    "evaluate",
    "committee",
    "distill",
    "predict",
    "export",
    "serve",
    "verify",
    "bench",
)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_an_example(command: str) -> None:
    assert f"Example: tinylm {command} " in " ".join(done(f"{command} --help").out.split())


def test_no_command_shows_all(home: Path) -> None:
    out = done("").out
    assert all(command in out for command in COMMANDS)


def program(*arguments: str | bytes, **environment: str) -> Outcome:
    """Run the console script in a process of its own."""
    script = Path(sys.executable).with_name("tinylm")
    result = subprocess.run(
        [script, *arguments], capture_output=True, text=True, check=False, env=os.environ | environment
    )
    return Outcome(result.returncode, result.stdout, result.stderr)


def test_the_program_predicts(home: Path) -> None:
    outcome = program("predict", "classifier", "the cow needs the hay")
    assert (outcome.code, outcome.out.split("\t")[0], outcome.err) == (0, "farm", "")


def test_the_program_refuses(home: Path) -> None:
    assert "not UTF-8" in refused(program("predict", "classifier", b"caf\xe9"))
    assert "Missing argument" in refused(program("predict"))


def test_no_network_for_a_corpus_of_the_hub(home: Path, tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    command = shlex.split(f"pretrain {TINY} --corpus hf:someone/texts --out")
    message = refused(program(*command, out, HF_ENDPOINT="http://127.0.0.1:9"))
    assert "someone/texts cannot be read from the HuggingFace hub" in message
    assert list(tmp_path.iterdir()) == []


IMPATIENT = "import time; time.sleep = lambda seconds: None; from tinylm.cli import main; main()"


def test_no_network_for_the_vocabulary_of_bert(home: Path, tmp_path: Path) -> None:
    command = f"pretrain --corpus corpus.txt --out {tmp_path / 'out'}"
    result = subprocess.run(
        [sys.executable, "-c", IMPATIENT, *shlex.split(command)],  # the hub's client waits between attempts
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"HF_ENDPOINT": "http://127.0.0.1:9"},
    )
    message = refused(Outcome(result.returncode, result.stdout, result.stderr))
    assert "put its vocab.txt at" in message and "bert-base-uncased" in message
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", [*COMMANDS, "paper run", "paper report", "recipe run"])
def test_every_command_takes_a_settings_file(command: str) -> None:
    assert "--settings" in done(f"{command} --help").out


# --- manners ---


def test_version(home: Path) -> None:
    version = f"tinylm {importlib.metadata.version('tinylm')}\n"
    assert done("--version").out == version
    result = subprocess.run([sys.executable, "-m", "tinylm", "--version"], capture_output=True, text=True)
    assert (result.returncode, result.stdout, result.stderr) == (0, version, "")


@pytest.mark.parametrize("encoding", ["cp1252", "ascii"])
@pytest.mark.parametrize("command", ["predict classifier", "evaluate classifier"])
def test_what_the_console_cannot_show_is_replaced(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, encoding: str
) -> None:
    write_table(tmp_path / "odd.csv", [("海 the cow needs the hay", label) for label in NOUNS])  # a mistake
    monkeypatch.setattr(sys, "argv", ["tinylm", *command.split(), str(tmp_path / "odd.csv")])
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding=encoding) for _ in range(2))
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    with pytest.raises(SystemExit) as end:
        main()
    assert not end.value.code
    out.flush()
    assert "? the cow needs the hay" in out.buffer.getvalue().decode(encoding)


def test_a_pipe_that_is_closed_is_no_mistake(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As in `tinylm predict model texts.txt | head -1`, where `head` ends first."""
    (tmp_path / "in.txt").write_text("the cow needs the hay\n" * 2000, encoding="utf-8")
    for command in (["predict", "classifier", str(tmp_path / "in.txt")], ["--version"], ["--help"]):
        reading, writing = os.pipe()
        os.close(reading)
        pipe = os.fdopen(writing, "w", encoding="utf-8")
        with monkeypatch.context() as patch:
            # Typer wraps both streams, and rich silences its console: not for the tests that follow.
            patch.setattr(sys, "stdout", pipe)
            patch.setattr(sys, "stderr", sys.stderr)
            patch.setattr(console, "quiet", False)
            patch.setattr(sys, "argv", ["tinylm", *command])
            with pytest.raises(SystemExit) as end:
                main()
        assert end.value.code == 1
        assert capsys.readouterr().err == ""
        with contextlib.suppress(BrokenPipeError):  # what was never read
            pipe.close()


def test_a_text_that_begins_with_a_dash(home: Path) -> None:
    said = refused(tinylm("predict classifier", "-5 degrees and the hay froze"))
    assert "'-5 degrees and the hay froze' begins with a dash" in said and "put -- in front" in said
    assert done("predict classifier --", "-5 degrees and the hay froze").out.endswith("the hay froze\n")
    assert "No such option: --probabilites" in refused(tinylm("predict classifier text --probabilites"))
    assert "No such option: -x" in refused(tinylm("predict classifier text -x"))


# --- settings files and earlier spellings ---


def test_earlier_spellings_of_options_still_work(home: Path, tmp_path: Path) -> None:
    table = tmp_path / "task.csv"
    text = (home / "task.csv").read_text(encoding="utf-8")
    table.write_text(text.replace("text,label", "body,topic", 1), encoding="utf-8")
    test = tmp_path / "test.csv"
    test.write_text("body,topic\na new cow,farm\na new ship,sea\n", encoding="utf-8")
    command = f"finetune pretrained --epochs 1 --task {table}"
    done(f"{command} --text body --label topic --test {test} --out", tmp_path / "new")
    done(f"{command} --text-column body --label-column=topic --test-file {test} --out", tmp_path / "old")
    settings = f"task: {table}\nepochs: 1\ntext-column: body\nlabel_column: topic\ntest_file: {test}\n"
    (tmp_path / "s.yaml").write_text(settings, encoding="utf-8")
    done(f"finetune pretrained --settings {tmp_path / 's.yaml'} --out", tmp_path / "file")
    for name in ("old", "file"):
        assert weights_of(tmp_path / name) == weights_of(tmp_path / "new")
        assert record_of(tmp_path / name)["settings"]["text"] == "body"
    for command in COMMANDS:
        assert not re.search("--(text-column|label-column|test-file)", done(f"{command} --help").out)


def test_what_stands_behind_two_dashes_is_no_option(home: Path) -> None:
    assert done("predict classifier --", "--text-column").out.endswith("\t--text-column\n")


@pytest.mark.parametrize(
    ("message", "told"),
    [
        ("`device` was 'tpu'", "--device was 'tpu'"),
        ("`text_column` is missing; give `tested` rows", "--text is missing; give --test rows"),
        ("`random_state` is -1", "--seed is -1"),
        ("`nothing` of the kind", "`nothing` of the kind"),
    ],
)
def test_parameters_in_errors_are_told_as_options(
    home: Path, monkeypatch: pytest.MonkeyPatch, message: str, told: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise UserError(message)

    monkeypatch.setattr("tinylm.text.tasks.load_task", fail)
    assert refused(tinylm("finetune pretrained --task task.csv --out", home / "none")) == told


def test_without_a_folder_for_the_cache_work_goes_on_and_one_sentence_says_so(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("TINYLM_CACHE", str(tmp_path / "file" / "cache"))
    monkeypatch.setenv(TEMPORARY, "")
    outcome = done("corpus --corpus corpus.txt --vocabulary 300 --size 10 --out", tmp_path / "new")
    (line,) = outcome.err.splitlines()
    assert line.startswith(f"The cache folder {tmp_path / 'file' / 'cache'} cannot be written")
