"""The command line as people use it: every command, and every mistake, through the real entry point."""

from __future__ import annotations

import csv
import importlib.metadata
import json
import os
import random
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from helpers.command import NOUNS, Answer, done, record_of, refused, sentence, tinylm, weights_of, write_table
from tinylm.errors import UserError
from tinylm.system.files import hash_files
from tinylm.text.corpus import read_vital
from tinylm.text.prepare import prepare
from tinylm.text.store import open_store
from tinylm.text.tasks import load_task
from tinylm.text.tokenizer import load_tokenizer
from tinylm.train.checkpoint import Checkpoint

COMMANDS = (
    "demo",
    "fit",
    "corpus",
    "coverage",
    "pretrain",
    "finetune",
    "evaluate",
    "committee",
    "predict",
    "export",
    "serve",
    "bench",
)
TINY = "--vocabulary 300 --layers 1 --heads 1 --epochs 1 --recipe fast"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a corpus, a task, a pre-trained model and a classifier; cache and data are empty."""
    home = tmp_path_factory.mktemp("home")
    chance = random.Random(0)
    topics = [chance.choice(sorted(NOUNS)) for _ in range(400)]
    lines = [sentence(topic, chance) for topic in topics]
    (home / "corpus.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    topics = [chance.choice(sorted(NOUNS)) for _ in range(100)]
    write_table(home / "task.csv", [(sentence(topic, chance), topic) for topic in topics])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", "200")
        patch.setenv("TINYLM_CACHE", str(home / "cache"))
        patch.setenv("TINYLM_DATA", str(home / "data"))
        patch.chdir(home)
        done(f"pretrain --corpus corpus.txt {TINY} --seed 5 --out pretrained")
        done("finetune pretrained --task task.csv --epochs 6 --learning-rate 0.002 --out classifier")
        yield home


@pytest.fixture(scope="module")
def vital() -> None:
    try:
        read_vital()
    except UserError as error:
        pytest.skip(str(error))


# --- help ---


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_an_example(command: str) -> None:
    assert f"Example: tinylm {command} " in " ".join(done(f"{command} --help").out.split())


def test_no_command_shows_all(home: Path) -> None:
    out = done("").out
    assert all(command in out for command in COMMANDS)


# --- corpus and coverage ---


def tokens_of_task(tokenizer_folder: Path, table: Path) -> set[int]:
    task = load_task(table)
    return set(load_tokenizer(tokenizer_folder).encode(task.train_texts + task.test_texts).ids.tolist())


def test_corpus_random_is_a_part_of_the_corpus(home: Path, tmp_path: Path) -> None:
    done("corpus --corpus corpus.txt --vocabulary 300 --size 50 --out", tmp_path / "store")
    paragraphs, meta = open_store(tmp_path / "store")
    whole = {tuple(row) for row in prepare("corpus.txt", vocabulary=300).paragraphs}
    assert len(paragraphs) == 50
    assert {tuple(row) for row in paragraphs} <= whole
    record = record_of(tmp_path / "store")
    assert (record["kind"], record["seed"], record["w_s"]) == ("corpus", 42, 50)
    assert record["corpus"]["fingerprint"] == meta["fingerprint"] == hash_files([home / "corpus.txt"])
    assert record["settings"]["size"] == 50
    assert record["versions"]["tokenizers"] == importlib.metadata.version("tokenizers")


def test_corpus_custom_made_with_a_reduced_vocabulary(home: Path, tmp_path: Path) -> None:
    write_table(tmp_path / "farm.csv", [(sentence("farm", random.Random(i)), "ab"[i % 2]) for i in range(40)])
    select = "corpus --corpus corpus.txt --vocabulary 300 --select custom-made --task"
    done(select, tmp_path / "farm.csv", "--out", tmp_path / "all")
    answer = done(select, tmp_path / "farm.csv", "--reduce-vocabulary", "--out", tmp_path / "few")
    full, few = load_tokenizer(tmp_path / "all"), load_tokenizer(tmp_path / "few")
    in_task = tokens_of_task(tmp_path / "all", tmp_path / "farm.csv")
    paragraphs, _ = open_store(tmp_path / "all")
    reduced, _ = open_store(tmp_path / "few")
    # By brute force: exactly the lines that consist of the task's tokens.
    whole = prepare("corpus.txt", vocabulary=300).paragraphs
    expected = sorted(tuple(row) for row in whole if set(row.tolist()) <= in_task)
    assert sorted(tuple(row) for row in paragraphs) == expected
    assert f"W_S = {len(expected):,} " in answer.out
    assert {full.vocab[i] for i in in_task} == set(few.vocab) - {"[PAD]", "[UNK]", "[MASK]"}
    words = [[full.vocab[i] for i in row] for row in paragraphs]
    assert [[few.vocab[i] for i in row] for row in reduced] == words
    assert record_of(tmp_path / "few")["task"]["fingerprint"] == load_task(tmp_path / "farm.csv").fingerprint


def test_corpus_mismatched_misses_the_wanted_tokens_and_a_store_is_a_corpus(
    home: Path, tmp_path: Path
) -> None:
    done("corpus --corpus corpus.txt --vocabulary 300 --size 350 --out", tmp_path / "store")
    store = tmp_path / "store"
    select = f"corpus --corpus {store} --select mismatched --task task.csv --size 30 --missing 10 --out"
    done(select, tmp_path / "mismatched")
    paragraphs, meta = open_store(tmp_path / "mismatched")
    in_task = tokens_of_task(store, home / "task.csv")
    assert len(paragraphs) == 30
    assert abs(len(in_task - set(paragraphs.ids.tolist())) - 10) <= 1
    assert {tuple(row) for row in paragraphs} <= {tuple(row) for row in open_store(store)[0]}
    assert meta["fingerprint"] == hash_files([home / "corpus.txt"])
    done(f"pretrain --layers 1 --heads 1 --epochs 1 --corpus {tmp_path / 'mismatched'} --out", tmp_path / "m")
    assert record_of(tmp_path / "m")["corpus"]["selection"]["settings"]["missing"] == 10
    assert (tmp_path / "m" / "vocab.txt").read_bytes() == (store / "vocab.txt").read_bytes()


def test_coverage_counts_as_sets_do(home: Path, tmp_path: Path) -> None:
    done("corpus --corpus corpus.txt --vocabulary 300 --size 20 --out", tmp_path / "store")
    out = done("coverage --task task.csv", tmp_path / "store").out
    in_task = tokens_of_task(tmp_path / "store", home / "task.csv")
    in_w_s = set(open_store(tmp_path / "store")[0].ids.tolist())
    row = next(line for line in out.splitlines() if line.startswith("│"))
    cells = [cell.strip() for cell in row.strip("│").split("│")]
    expected = [20, len(in_w_s), len(in_task), len(in_task - in_w_s), len(in_w_s - in_task)]
    assert [int(cell) for cell in cells[:5]] == expected
    assert expected[3] > 0


# --- pretrain ---


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


KILLED = """
import os, signal, sys
from tinylm import cli
from tinylm.train.checkpoint import Checkpoint
Checkpoint.due = lambda self: True
save, saves = Checkpoint.save, []
def save_and_die(self, *state):
    save(self, *state)
    saves.append(1)
    if len(saves) == 5:
        os.kill(os.getpid(), signal.SIGKILL)
Checkpoint.save = save_and_die
cli.main()
"""


def test_a_killed_run_goes_on_and_equals_an_uninterrupted_one(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = f"pretrain --corpus corpus.txt {TINY} --seed 5 --out {tmp_path / 'model'}"
    killed = subprocess.run([sys.executable, "-c", KILLED, *shlex.split(command)], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert (tmp_path / "model.checkpoint").is_file()
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
    assert places == [5]
    assert weights_of(tmp_path / "model") == weights_of(home / "pretrained")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


# --- finetune, evaluate, committee ---


def test_finetune_learns_and_its_record_tells_from_what(home: Path) -> None:
    record = record_of(home / "classifier")
    assert record["kind"] == "classifier"
    assert record["accuracy"] > 0.8
    assert record["recipe"]["name"] == "fast"  # that of the pre-training
    assert record["task"]["fingerprint"] == load_task(home / "task.csv").fingerprint
    assert record["task"]["train_texts"] + record["task"]["test_texts"] == 100
    pretraining = record["pretraining"]
    assert pretraining["corpus"]["fingerprint"] == hash_files([home / "corpus.txt"])
    assert pretraining["weights"] == hash_files([home / "pretrained" / "model.safetensors"])


def test_finetune_from_scratch_leaves_the_pretrained_weights_out(home: Path, tmp_path: Path) -> None:
    shutil.copytree("pretrained", tmp_path / "twin")
    done(f"pretrain --corpus corpus.txt {TINY} --seed 9 --out", tmp_path / "other")
    command = "finetune {} --from-scratch --task task.csv --epochs 1 --out {}"
    for name in ("twin", "other"):
        done(command.format(tmp_path / name, tmp_path / f"scratch-{name}"))
        done(command.replace("--from-scratch", "").format(tmp_path / name, tmp_path / f"tuned-{name}"))
    assert weights_of(tmp_path / "scratch-twin") == weights_of(tmp_path / "scratch-other")
    assert weights_of(tmp_path / "tuned-twin") != weights_of(tmp_path / "tuned-other")
    assert record_of(tmp_path / "scratch-twin")["pretraining"] is None


def test_integer_labels_few_rows_and_a_list_in_a_settings_file(home: Path, tmp_path: Path) -> None:
    words = NOUNS["sea"].split()
    rows = [(f"the {word} {number}", number) for number in ("2", "10", "3") for word in words]
    write_table(tmp_path / "task.csv", rows)
    settings = {"task": str(tmp_path / "task.csv"), "labels": [0, 2], "from-scratch": True, "epochs": 1}
    (tmp_path / "s.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    sizes = "--train-per-label 20 --test-per-label 9"
    answer = done(f"finetune pretrained {sizes} --settings {tmp_path / 's.yaml'} --out", tmp_path / "c")
    assert "There are 6 training rows of label '10' where 20 were asked for." in answer.err
    config = json.loads((tmp_path / "c" / "config.json").read_text(encoding="utf-8"))
    assert config["id2label"] == {"0": "2", "1": "10"}  # numbers in the order of numbers
    record = record_of(tmp_path / "c")
    assert (record["task"]["train_texts"], record["task"]["test_texts"]) == (12, 18)
    assert record["pretraining"] is None


def test_evaluate_agrees_with_the_record_and_warns_of_another_split(home: Path, tmp_path: Path) -> None:
    answer = done("evaluate classifier --task task.csv")
    row = next(line for line in answer.out.splitlines() if line.startswith("│ classifier"))
    assert f"{record_of(home / 'classifier')['accuracy']:.3f}" in row
    assert "TF-IDF + logistic regression" in answer.out
    assert answer.err == ""
    other = done("evaluate classifier --task task.csv --test-per-label 20")
    assert "another split" in other.err


def test_committee_of_different_members(home: Path, tmp_path: Path) -> None:
    done(
        "pretrain --corpus corpus.txt --tokenizer pretrained --layers 2 --heads 1 --size 32 --epochs 1 --out",
        tmp_path / "p",
    )
    done(f"finetune {tmp_path / 'p'} --task task.csv --recipe fast --epochs 2 --out", tmp_path / "second")
    done("committee classifier", tmp_path / "second", "--out", tmp_path / "both")
    record = record_of(tmp_path / "both")
    assert [member["model"]["layers"] for member in record["members"]] == [1, 2]
    out = done(f"evaluate {tmp_path / 'both'} --task task.csv").out
    assert all(name in out for name in ("member 1", "member 2", "committee"))
    label, probability, text = (
        done(f"predict {tmp_path / 'both'}", "the cow needs the hay").out.strip().split("\t")
    )
    assert label in NOUNS and 0.5 <= float(probability) <= 1 and text == "the cow needs the hay"


def test_a_huggingface_folder_is_fine_tuned(home: Path, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    shape = {"hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 256}
    vocab_size = len(load_tokenizer("pretrained"))
    config = transformers.BertConfig(vocab_size=vocab_size, max_position_embeddings=32, **shape)
    transformers.BertForMaskedLM(config).save_pretrained(tmp_path / "theirs")
    missing = refused(tinylm(f"finetune {tmp_path / 'theirs'} --task task.csv --out", tmp_path / "none"))
    assert "vocab.txt does not exist" in missing
    # transformers writes the tokenizer without a vocab.txt
    transformers.AutoTokenizer.from_pretrained("pretrained").save_pretrained(tmp_path / "theirs")
    assert not (tmp_path / "theirs" / "vocab.txt").exists()
    done(f"finetune {tmp_path / 'theirs'} --task task.csv --epochs 1 --out", tmp_path / "ours")
    record = record_of(tmp_path / "ours")
    assert record["recipe"]["name"] == "paper"
    assert record["pretraining"]["weights"] == hash_files([tmp_path / "theirs" / "model.safetensors"])
    pipe = transformers.pipeline("text-classification", model=str(tmp_path / "ours"))
    assert pipe("the cow needs the hay")[0]["label"] in NOUNS


# --- vital ---


def test_no_test_article_of_vital_topics_is_in_w_s(vital: None, home: Path, tmp_path: Path) -> None:
    answer = done("corpus --corpus vital --vocabulary 300 --max-tokens 64 --out", tmp_path / "store")
    paragraphs, meta = open_store(tmp_path / "store")
    tokenizer = load_tokenizer(tmp_path / "store")
    task = load_task("vital-topics")
    tested = {tuple(row) for row in tokenizer.encode(task.test_texts, 64)}
    assert not tested & {tuple(row) for row in paragraphs}
    trained = {tuple(row) for row in tokenizer.encode(task.train_texts, 64)}
    assert trained <= {tuple(row) for row in paragraphs}
    assert f"{meta['excluded']:,} held out for testing" in answer.err
    done(
        f"pretrain --corpus {tmp_path / 'store'} --size 32 --layers 1 --heads 1 --epochs 1 --out",
        tmp_path / "m",
    )
    tune = "--task vital-topics --labels 0,1 --train-per-label 4 --epochs 1 --out"
    for model, more, warned in (
        (tmp_path / "m", "--test-per-label 100", False),
        (tmp_path / "m", "--test-per-label 101", True),  # one more than was held out
        (home / "pretrained", "--test-per-label 4", True),  # on another corpus, which may hold them
        (home / "pretrained", "--test-per-label 4 --from-scratch", False),
    ):
        out = tmp_path / f"c{len(list(tmp_path.iterdir()))}"
        assert ("may have seen test articles" in done(f"finetune {model} {more} {tune}", out).err) == warned


# --- predict ---


def test_predict_reads_and_writes_every_format_and_keeps_rows_apart(home: Path, tmp_path: Path) -> None:
    texts = ["the cow needs the hay", "", "the ship leaves the harbour"]
    (tmp_path / "in.txt").write_text("\n".join(texts) + "\n", encoding="utf-8")
    write_table(tmp_path / "in.csv", [(text, "x") for text in texts])
    lines = [json.dumps({"text": text}) + "\n" for text in texts]
    (tmp_path / "in.jsonl").write_text("".join(lines), encoding="utf-8")
    single = [done("predict classifier", text).out.split("\t")[0] for text in (texts[0], texts[2])]
    assert single == ["farm", "sea"]
    for source in ("in.txt", "in.csv", "in.jsonl"):
        answer = done("predict classifier", tmp_path / source)
        assert [line.split("\t")[0] for line in answer.out.splitlines()] == single
        assert answer.err == "rows left out: 1 empty text\n"
        for suffix in (".csv", ".jsonl"):
            out = tmp_path / f"{source}-out{suffix}"
            done("predict classifier", tmp_path / source, "--out", out)
            with out.open(encoding="utf-8", newline="") as file:
                rows = list(csv.DictReader(file) if suffix == ".csv" else map(json.loads, file))
            assert [(int(row["row"]), row["label"], row["text"]) for row in rows] == [
                (1, "farm", texts[0]),
                (3, "sea", texts[2]),
            ]
    assert not list(tmp_path.glob("*.partial"))


def test_predict_thousands_of_rows_in_their_order(home: Path, tmp_path: Path) -> None:
    chance = random.Random(3)
    topics = [chance.choice(sorted(NOUNS)) for _ in range(3000)]
    write_table(tmp_path / "in.csv", [(sentence(topic, chance), topic) for topic in topics])
    done("predict classifier", tmp_path / "in.csv", "--out", tmp_path / "out.csv")
    with (tmp_path / "out.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["row"]) for row in rows] == list(range(1, 3001))
    assert np.mean([row["label"] == topic for row, topic in zip(rows, topics, strict=True)]) > 0.8


def test_ten_megabytes_and_emoji_are_texts(home: Path, tmp_path: Path) -> None:
    long, emoji = "the cow needs the hay " * 500_000, "\N{GRINNING FACE}\N{ROCKET}" * 50
    for text in (long, emoji):
        assert done("predict classifier", text).out.split("\t")[0] in NOUNS
    (tmp_path / "in.txt").write_text(f"{long}\n{emoji}\n", encoding="utf-8")
    assert len(done("predict classifier", tmp_path / "in.txt").out.splitlines()) == 2
    model = TINY.replace("--vocabulary 300", "--tokenizer pretrained")
    done(f"pretrain --corpus {tmp_path / 'in.txt'} {model} --out", tmp_path / "pretrained")
    write_table(tmp_path / "task.csv", [(emoji, "farm"), (emoji[::-1], "sea")] * 5)
    done("finetune pretrained --epochs 1 --task", tmp_path / "task.csv", "--out", tmp_path / "classifier")
    answer = done(f"evaluate {tmp_path / 'classifier'} --task", tmp_path / "task.csv")
    assert "no words" in answer.err


def test_rows_left_out_are_reported(home: Path, tmp_path: Path) -> None:
    rows = [(sentence("sea", random.Random(i)), "ab"[i % 2]) for i in range(20)]
    write_table(tmp_path / "task.csv", [*rows, ("", "a"), ("a text", ""), (" ", "b")])
    answer = done("finetune pretrained --epochs 1 --task", tmp_path / "task.csv", "--out", tmp_path / "c")
    assert answer.err.strip() == "rows left out: 2 empty text, 1 no label"
    assert record_of(tmp_path / "c")["task"]["unusable"] == {"empty text": 2, "no label": 1}
    (tmp_path / "corpus.txt").write_bytes(b"the cow\n\ncaf\xe9\nthe ship\n")
    answer = done(f"pretrain --corpus {tmp_path / 'corpus.txt'} {TINY} --out", tmp_path / "p")
    assert answer.err.strip() == "rows left out: 1 empty text, 1 not UTF-8"


# --- mistakes ---


@pytest.fixture(scope="module")
def bad(home: Path) -> Path:
    """A folder of files that somebody might give by mistake."""
    bad = home / "bad"
    bad.mkdir()
    ship, cow = "the ship passes the buoy", "the cow needs the hay"
    files: dict[str, str | bytes] = {
        "empty.txt": "",
        "blank.txt": "\n  \n\n",
        "latin.txt": "caf\xe9\n".encode("latin-1"),
        "emoji.csv": "text,label\n\N{ROCKET},a\n\N{GRINNING FACE},b\n\N{ROCKET},a\n\N{GRINNING FACE},b\n",
        "column.csv": f"body,label\n{cow},a\n",
        "header.csv": "text,label\n",
        "semicolon.csv": f"text;label\n{cow};a\n",
        "one.csv": f"text,label\n{cow},a\n{ship},a\n",
        "single.csv": f"text,label\n{cow},a\n{ship},a\n{cow},b\n",
        "unlabelled.csv": f"text,label\n{cow},\n{ship},\n",
        "utf16.csv": f"text,label\n{cow},a\n{ship},b\n".encode("utf-16"),
        "array.json": json.dumps([{"text": cow, "label": "a"}, {"text": ship, "label": "b"}]),
        "tested.csv": f"text,label\n{cow},farm\n",
        "newlabel.csv": f"text,label\n{cow},farm\n{ship},sea\n{ship},river\n",
        "broken.parquet": b"PAR1 and no more",
        "report.docx": cow,
        "numbers.csv": "text,label\n" + f"{cow},0\n{ship},1\n" * 5,
        "list.yaml": "- 1\n",
        "word.yaml": "epochs\n",
        "unknown.yaml": "epoch: 3\n",
        "type.yaml": "epochs: many\n",
        "choice.yaml": "recipe: best\n",
        "broken.yaml": "epochs: [\n",
        "latin.yaml": "corpus: caf\xe9\n".encode("latin-1"),
    }
    for name, content in files.items():
        (bad / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    shutil.copytree(home / "classifier", bad / "cut")
    weights = bad / "cut" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    shutil.copytree(home / "pretrained", bad / "deeper")
    config = json.loads((bad / "deeper" / "config.json").read_text(encoding="utf-8"))
    config["tinylm"]["layers"] = 2
    (bad / "deeper" / "config.json").write_text(json.dumps(config), encoding="utf-8")
    shutil.copytree(home / "pretrained", bad / "words")
    with (bad / "words" / "vocab.txt").open("a") as file:
        file.write("another\n")
    done(f"finetune pretrained --task {bad / 'numbers.csv'} --epochs 1 --out", bad / "numbers")
    return bad


PRETRAIN = f"pretrain --out OUT {TINY}"
FINETUNE = "finetune pretrained --epochs 1 --out OUT --task"
CORPUS = "corpus --corpus corpus.txt --vocabulary 300 --out OUT"
# A mistake, and what its sentence must say: the file, row or setting, and what was expected.
MISTAKES = [
    (f"{PRETRAIN} --corpus bad/none.txt", "bad/none.txt.*expected vital, wikipedia"),
    (f"{PRETRAIN} --corpus wikitext", "'wikitext'; expected vital, wikipedia, hf:NAME"),
    (f"{PRETRAIN} --corpus ''", "no name; expected vital"),
    (f"{PRETRAIN} --corpus bad/empty.txt", "bad/empty.txt is empty"),
    (f"{PRETRAIN} --corpus bad/blank.txt", r"bad/blank.txt.* no usable paragraph \(3 empty text\)"),
    (f"{PRETRAIN} --corpus bad/latin.txt", r"bad/latin.txt.* no usable paragraph \(1 not UTF-8\)"),
    (f"{PRETRAIN} --corpus bad/header.csv", r"bad/header.csv.* no usable paragraph \(no rows\)"),
    (f"{PRETRAIN} --corpus bad/column.csv", "bad/column.csv has no column 'text'; it has 'body', 'label'"),
    (f"{PRETRAIN} --corpus corpus.txt --text-column body", "corpus.txt has no column 'body'; it has 'text'"),
    (f"{PRETRAIN} --corpus bad/report.docx", "bad/report.docx has an unknown format; expected .txt"),
    (f"{PRETRAIN} --corpus bad/broken.parquet", "bad/broken.parquet is no parquet file"),
    (f"{PRETRAIN} --corpus corpus.txt --size 401", "W_S is 401, but must be from 1 to the 400"),
    (f"{PRETRAIN} --corpus corpus.txt --size 0", "'--size'.*greater than or equal to 1"),
    (f"{PRETRAIN} --corpus corpus.txt --width 100", "width 100 is not 64 x heads"),
    (f"{PRETRAIN} --corpus corpus.txt --width 128", "--width was 128 and --heads 1; expected"),
    (f"{PRETRAIN} --corpus corpus.txt --convolution 2x64", "'2x64'; expected LAYERSxCHANNELSxKERNEL"),
    (f"{PRETRAIN} --corpus corpus.txt --convolution 0x4x3x3", "'0x4x3x3'; expected LAYERSx"),
    (f"{PRETRAIN} --corpus corpus.txt --recipe best", "recipe 'best' is unknown; there are: paper, fast"),
    (f"{PRETRAIN} --corpus corpus.txt --tokenizer pretrained", "--tokenizer and --vocabulary exclude"),
    (f"{PRETRAIN} --corpus corpus.txt --vocabulary 100", "Vocabulary size is 100; expected 300"),
    (f"{PRETRAIN} --corpus corpus.txt --epochs ten", "'--epochs'.*valid integer"),
    (f"{PRETRAIN} --corpus corpus.txt --seed 99999999999999999999", "'--seed'.*less than or equal to"),
    (f"{PRETRAIN} --corpus corpus.txt --layer 1", "No such option: --layer"),
    (f"{PRETRAIN} --corpus corpus.txt --out classifier", "classifier exists already and is not empty"),
    (f"{PRETRAIN} --corpus corpus.txt --out corpus.txt", "corpus.txt exists already"),
    (f"{PRETRAIN} --corpus corpus.txt --out corpus.txt/new", "corpus.txt/new.* cannot be.* written"),
    (f"pretrain {TINY} --corpus corpus.txt", "Missing option '--out'"),
    ("pretrian --out OUT", "No such command 'pretrian'. Did you mean 'pretrain'"),
    ("pretrain --out OUT --tokenizer bert-base-cased --corpus corpus.txt", "bert-base-cased does not exist"),
    ("pretrain --out OUT --corpus corpus.txt --settings none.yaml", "none.yaml cannot be read"),
    ("pretrain --out OUT --corpus corpus.txt --settings bad/list.yaml", "bad/list.yaml holds no settings"),
    ("pretrain --out OUT --corpus corpus.txt --settings bad/word.yaml", "bad/word.yaml holds no settings"),
    ("pretrain --out OUT --corpus corpus.txt --settings bad/unknown.yaml", "'epoch' is unknown; there are"),
    ("pretrain --out OUT --corpus corpus.txt --settings bad/type.yaml", "'--epochs'.*valid integer"),
    ("pretrain --out OUT --corpus corpus.txt --settings bad/choice.yaml", "'best' is unknown; there are"),
    ("pretrain --out OUT --corpus corpus.txt --settings bad/broken.yaml", "bad/broken.yaml cannot be read"),
    ("pretrain --out OUT --corpus corpus.txt --settings bad/latin.yaml", "bad/latin.yaml cannot be read"),
    ("pretrain --out OUT --settings classifier/tinylm.json", "is unknown; there are"),
    (f"{CORPUS} --select best", "'best'; expected random, custom-made or mismatched"),
    (f"{CORPUS} --select custom-made", "name one with --task"),
    (f"{CORPUS} --select custom-made --task bad/emoji.csv", "0 of 400 paragraphs consist solely"),
    (f"{CORPUS} --select mismatched --task task.csv", "needs --size"),
    (f"{CORPUS} --select mismatched --task task.csv --size 401", "W_S is 401, but must be"),
    (f"{CORPUS} --select mismatched --task task.csv --size 9 --missing 999", "T_M 999 is out of reach"),
    (f"{CORPUS} --missing 4", "--missing belongs to --select mismatched"),
    ("coverage none.txt --tokenizer pretrained --task task.csv", "no corpus 'none.txt'"),
    ("coverage corpus.txt --tokenizer pretrained --task tasks", "no task 'tasks'; expected fewrel"),
    (f"{FINETUNE} none.csv", "none.csv does not exist"),
    (f"{FINETUNE} ag_news", "no task 'ag_news'; expected fewrel, agnews"),
    (f"{FINETUNE} bad/empty.txt", "bad/empty.txt is empty"),
    (f"{FINETUNE} bad/column.csv", "bad/column.csv has no column 'text'; it has 'body', 'label'"),
    (f"{FINETUNE} bad/semicolon.csv", "bad/semicolon.csv has no column 'text'; it has 'text;label'"),
    (f"{FINETUNE} bad/utf16.csv", "bad/utf16.csv has no column 'text'"),
    (f"{PRETRAIN} --corpus corpus.txt --device tpu", "--device was 'tpu'; expected cpu, cuda"),
    (f"{PRETRAIN} --corpus corpus.txt --device cuda:99", "--device was 'cuda:99', but PyTorch finds"),
    (f"{FINETUNE} task.csv --device cuda:99", "--device was 'cuda:99', but PyTorch finds"),
    ("paper run table5 --preset smoke --device gpu --results OUT", "--device was 'gpu'; expected cpu, cuda"),
    (f"{FINETUNE} corpus.txt", "corpus.txt has no column 'label'"),
    (f"{FINETUNE} bad/one.csv", r"bad/one.csv has 1 label.*expected at least two"),
    (f"{FINETUNE} bad/header.csv", r"bad/header.csv has 0 label.*expected at least two"),
    (f"{FINETUNE} bad/unlabelled.csv", r"bad/unlabelled.csv has 0 label.*expected at least two"),
    (f"{FINETUNE} bad/array.json", r"bad/array.json has 0 label.*expected at least two"),
    (f"{FINETUNE} bad/broken.parquet", "bad/broken.parquet cannot be read"),
    (f"{FINETUNE} bad/single.csv", "no training rows of label 'b'"),
    (f"{FINETUNE} task.csv --test-file bad/tested.csv", "no test rows of label 'sea'"),
    (f"{FINETUNE} task.csv --test-file bad/newlabel.csv", "bad/newlabel.csv has the label 'river'"),
    (f"{FINETUNE} task.csv --labels farm,sea", "'farm,sea'; expected label numbers"),
    (f"{FINETUNE} task.csv --labels 0,2", "Label 2 is out of range; task.csv has the labels 0 to 1"),
    (f"{FINETUNE} task.csv --learning-rate -1", "'--learning-rate'.*greater"),
    (f"{FINETUNE} task.csv --learning-rate 1e9", "the loss is no number.*learning rate 1000000000"),
    ("finetune none --task task.csv --out OUT", "none holds no model"),
    ("finetune classifier --task task.csv --out OUT", "lacks the weight 'cls"),
    ("finetune bad/deeper --task task.csv --out OUT", "bad/deeper/model.safetensors .*another architecture"),
    ("finetune bad/words --task task.csv --out OUT", "the tokenizer has .*; both must be equal"),
    ("evaluate pretrained --task task.csv", "pre-trained model, not a classifier.*'tinylm finetune'"),
    ("evaluate classifier --task bad/numbers.csv", "knows the labels farm, sea; .* has 0, 1"),
    ("committee --out OUT", "Missing argument 'members'"),
    ("committee classifier none --out OUT", "none holds no model"),
    ("committee classifier bad/numbers --out OUT", "member 2 .*labels 0, 1; .* farm, sea"),
    ("committee classifier classifier --out pretrained", "pretrained exists already"),
    ("predict pretrained 'a text'", "pre-trained model, not a classifier.*'tinylm finetune'"),
    ("predict none 'a text'", "none is no folder"),
    ("predict bad/cut 'a text'", "bad/cut/model.safetensors is damaged or cut short"),
    ("predict classifier ''", "empty text"),
    ("predict classifier ' '", "empty text"),
    ("predict classifier none.csv", "none.csv does not exist"),
    ("predict classifier bad", "bad is a folder; expected a text or a file"),
    ("predict classifier bad/empty.txt", "bad/empty.txt is empty"),
    ("predict classifier bad/blank.txt", r"bad/blank.txt holds no usable text \(3 empty text\)"),
    ("predict classifier bad/latin.txt", r"bad/latin.txt holds no usable text \(1 not UTF-8\)"),
    ("predict classifier bad/header.csv", r"bad/header.csv holds no usable text \(no rows\)"),
    ("predict classifier bad/column.csv", "no column 'text'; it has 'body'"),
    ("predict classifier bad/report.docx", "unknown format"),
    ("predict classifier 'a text' --out OUT.xlsx", r"ends in .csv or .jsonl"),
    ("predict classifier 'a text' --out OUT/a.csv", "expected a new file in a folder that exists"),
    ("predict classifier task.csv --out task.csv", "task.csv; expected a new file"),
    ("demo --out classifier", "classifier exists already"),
]


def everything_in(folder: Path) -> dict[Path, tuple[int, int]]:
    """Every file but the token stores, which are the cache's."""
    paths = [path for path in folder.rglob("*") if "cache" not in path.parts]
    return {path: (path.stat().st_size, path.stat().st_mtime_ns) for path in paths if path.is_file()}


@pytest.mark.parametrize(("command", "says"), MISTAKES, ids=[command for command, _ in MISTAKES])
def test_a_mistake_is_one_sentence_and_leaves_nothing(
    bad: Path, tmp_path: Path, command: str, says: str
) -> None:
    before = everything_in(bad.parent)
    message = refused(tinylm(command.replace("OUT", str(tmp_path / "out"))))
    assert re.search(says, message), message
    assert list(tmp_path.iterdir()) == []
    assert everything_in(bad.parent) == before


def test_brackets_in_a_name_are_no_markup(home: Path) -> None:
    assert "'[red]x[/] [CLS]'" in refused(tinylm(f"{PRETRAIN} --corpus", "[red]x[/] [CLS]"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission(home: Path, tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0o500)
    message = refused(tinylm(f"pretrain --corpus corpus.txt {TINY} --out", tmp_path / "closed" / "model"))
    assert "Permission denied" in message


# --- the installed program ---


def program(*arguments: str | bytes, **environment: str) -> Answer:
    """Run the console script in a process of its own."""
    script = Path(sys.executable).with_name("tinylm")
    result = subprocess.run(
        [script, *arguments], capture_output=True, text=True, check=False, env=os.environ | environment
    )
    return Answer(result.returncode, result.stdout, result.stderr)


def test_the_program_predicts(home: Path) -> None:
    answer = program("predict", "classifier", "the cow needs the hay")
    assert (answer.code, answer.out.split("\t")[0], answer.err) == (0, "farm", "")


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
    message = refused(Answer(result.returncode, result.stdout, result.stderr))
    assert "put its vocab.txt at" in message and "bert-base-uncased" in message
    assert list(tmp_path.iterdir()) == []
