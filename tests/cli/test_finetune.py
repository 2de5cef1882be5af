"""`tinylm finetune`, through the real entry point."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

import pytest
import yaml

from helpers.command import (
    NOUNS,
    TINY,
    done,
    record_of,
    refused,
    sentence,
    tinylm,
    weights_of,
    write_table,
)
from tinylm.system.files import hash_files
from tinylm.text.tasks import load_task
from tinylm.text.tokenizer import load_tokenizer


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
    outcome = done(f"finetune pretrained {sizes} --settings {tmp_path / 's.yaml'} --out", tmp_path / "c")
    assert "There are 6 training rows of label '10' where 20 were requested." in outcome.err
    config = json.loads((tmp_path / "c" / "config.json").read_text(encoding="utf-8"))
    assert config["id2label"] == {"0": "2", "1": "10"}  # numbers in the order of numbers
    record = record_of(tmp_path / "c")
    assert (record["task"]["train_texts"], record["task"]["test_texts"]) == (12, 18)
    assert record["pretraining"] is None


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


def test_rows_left_out_are_reported(home: Path, tmp_path: Path) -> None:
    rows = [(sentence("sea", random.Random(i)), "ab"[i % 2]) for i in range(20)]
    write_table(tmp_path / "task.csv", [*rows, ("", "a"), ("a text", ""), (" ", "b")])
    outcome = done("finetune pretrained --epochs 1 --task", tmp_path / "task.csv", "--out", tmp_path / "c")
    assert outcome.err.strip() == "rows left out: 2 empty text, 1 no label"
    assert record_of(tmp_path / "c")["task"]["unusable"] == {"empty text": 2, "no label": 1}
    (tmp_path / "corpus.txt").write_bytes("the cöw\n\nschön\n".encode() + b"caf\xe9\nthe ship\n")
    outcome = done(f"pretrain --corpus {tmp_path / 'corpus.txt'} {TINY} --out", tmp_path / "p")
    assert outcome.err.strip() == "rows left out: 1 empty text, 1 not UTF-8"
