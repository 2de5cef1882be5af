"""fit, evaluate and predict on tables, through the real entry point; the report of a fit."""

from __future__ import annotations

import csv
import io
import json
import random
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import datasets
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score

from helpers.command import done, record_of, refused, sentence, tinylm, write_table
from tinylm.errors import UserError
from tinylm.infer.calibration import fit_temperature, fit_thresholds, reliability
from tinylm.infer.committee import load_committee
from tinylm.infer.evaluation import evaluate, wilson
from tinylm.text.labelled import read_labelled, read_texts

# The recipe's epochs of so few texts take a second.
FIT = "--corpus none --members 1 --budget none"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with tables and a fitted classifier in `model`."""
    home = tmp_path_factory.mktemp("home")
    chance = random.Random(0)
    distinct: dict[str, str] = {}
    while len(distinct) < 220:
        topic = chance.choice(("farm", "sea"))
        distinct[sentence(topic, chance)] = topic
    for name, rows in (("train", list(distinct.items())[:160]), ("test", list(distinct.items())[160:])):
        write_table(home / f"{name}.csv", rows + [("", "farm"), ("no label", "")] * (name == "train"))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        patch.setenv("TINYLM_CACHE", str(home / "cache"))
        patch.setenv("COLUMNS", "200")
        done(f"fit train.csv --test test.csv --out model {FIT}")
        yield home


def read(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def feed(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))


# --- fit ---


def test_fit_writes_model_card_report_and_figures(home: Path) -> None:
    folder = home / "model"
    assert {"committee.json", "README.md", "report.html", "tinylm.json", "token_counts.safetensors"} <= {
        path.name for path in folder.iterdir()
    }
    record = record_of(folder)
    rows = read(home / "test.csv")
    predictions = load_committee(folder).predict([row["text"] for row in rows])
    expected = accuracy_score([row["label"] for row in rows], predictions)
    assert record["test"]["accuracy"] == pytest.approx(expected)
    assert f"{expected:.3f}" in (folder / "README.md").read_text(encoding="utf-8")
    assert record["facts"]["labelled_texts"] == 160  # the two unusable rows are left out


def test_the_report_is_one_page_with_every_part(home: Path) -> None:
    html = (home / "model" / "report.html").read_text(encoding="utf-8")
    for part in (
        "Training texts of each label",
        "Committee, members and rivals",
        "Which labels are confused",
    ):
        assert part in html
    for part in (
        "Calibration: are its probabilities right?",
        "Fine-tuning",
        "without pre-training",
        "TF-IDF",
    ):
        assert part in html
    assert "1 rows left out: empty text" in html and "1 rows left out: no label" in html
    assert not re.search(r'(src|href)="http', html)
    ids = re.findall(r'\bid="([^"]+)"', html)
    assert len(ids) == len(set(ids))


def test_fit_reads_every_format_and_standard_input(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = read(home / "train.csv")[:40]
    (home / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), home / "train.parquet")
    for source in ("train.jsonl", "train.parquet"):
        done(f"fit {source} --out {source}-model {FIT} --no-compare")
    feed(monkeypatch, (home / "train.csv").read_text(encoding="utf-8"))
    outcome = done(f"fit - --out stdin-model {FIT} --no-compare")
    assert "Rows left out: 1 empty text, 1 no label." in outcome.err
    for name in ("train.jsonl-model", "train.parquet-model", "stdin-model"):
        # A fifth is split off for testing, label by label.
        facts = record_of(home / name)["facts"]
        total = 160 if name == "stdin-model" else 40
        assert facts["labelled_texts"] + facts["test"]["texts"] == total
        assert facts["test"]["texts"] == pytest.approx(0.2 * total, abs=3 + 0.1 * total)


def test_several_labels_in_a_cell(home: Path) -> None:
    chance = random.Random(1)
    topics = [chance.choice(("farm", "sea", "farm;sea")) for _ in range(150)]
    texts = [" and ".join(sentence(topic, chance) for topic in row.split(";")) for row in topics]
    write_table(home / "several.csv", list(zip(texts, topics, strict=True)))
    done(f"fit several.csv --separator ; --out several {FIT}")
    assert "label 'farm;sea'; expected" in refused(tinylm("evaluate several several.csv --separator |"))
    assert "macro F1" in done("evaluate several several.csv").out  # the separator is that of the fit
    done("predict several several.csv --out several-out.jsonl --probabilities")
    lines = (home / "several-out.jsonl").read_text(encoding="utf-8").splitlines()
    thresholds = json.loads((home / "several" / "committee.json").read_text())["thresholds"]
    for line in map(json.loads, lines):
        above = [
            name
            for name, least in zip(("farm", "sea"), thresholds, strict=True)
            if line["probabilities"][name] >= round(least, 4)
        ]
        assert line["label"] == above


def test_a_small_model_that_has_read_unlabelled_text(home: Path) -> None:
    (home / "more.txt").write_text("the walrus met the narwhal\n\nthe narwhal left\n", encoding="utf-8")
    done(
        "fit train.csv --test test.csv --out small --corpus none --members 2 --no-tfidf-member --no-compare"
        " --budget none --max-size 600kB --unlabelled more.txt"
    )
    folder = home / "small"
    facts = record_of(folder)["facts"]
    # The distinct texts of the training rows that are not for validation, and two more.
    assert facts["coverage"]["paragraphs"] > 2 and (facts["int8"], facts["encoders"]) == (True, 2)
    assert (
        sum(
            file.stat().st_size for file in folder.rglob("*") if file.name != "report.html" and file.is_file()
        )
        < 6e5
    )
    tokenizer = load_committee(folder).members[0].tokenizer
    assert "narwhal" in tokenizer.vocab  # no labelled text has it
    assert len(read(home / "test.csv")) == record_of(folder)["test"]["texts"]
    done("predict small test.csv --out small-predictions.csv")


def test_what_a_fit_says_of_texts_that_it_labelled_itself(home: Path) -> None:
    texts = [f"{sentence(('farm', 'sea')[i % 2], random.Random(i))} today" for i in range(300)]
    (home / "many.txt").write_text("\n\n".join(texts), encoding="utf-8")
    done(f"fit train.csv --test test.csv --out taught {FIT} --no-compare --unlabelled many.txt")
    count = record_of(home / "taught")["facts"]["self_taught_texts"]
    assert 100 < count <= 300  # not those that are test or validation texts
    shown = {
        "README.md": f"| texts without labels | {count:,}, which the committee labelled itself",
        "report.html": f"<td>{count:,}</td><td>texts that the committee labelled itself",
    }
    for name, words in shown.items():
        assert words in (home / "taught" / name).read_text(encoding="utf-8")
        assert "labelled itself" not in (home / "model" / name).read_text(encoding="utf-8")


def test_without_a_budget_a_fit_gives_the_same_model_again(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TINYLM_CACHE", str(tmp_path / "cache"))  # nothing pre-trained before
    done(f"fit train.csv --test test.csv --out again {FIT} --no-compare --seed 0")
    for member in ("member-1", "member-2"):
        again, first = (home / name / member / "model.safetensors" for name in ("again", "model"))
        assert again.read_bytes() == first.read_bytes()
    html = (home / "again" / "report.html").read_text(encoding="utf-8")
    assert "there was no budget" in html and "each member began again" in html
    assert len(re.findall("member-", "".join(map(str, (home / "again").iterdir())))) == 2


def test_earlier_spellings_of_the_tfidf_member(home: Path) -> None:
    done(f"fit train.csv --test test.csv --out no-tfidf {FIT} --no-compare --no-linear")
    record = record_of(home / "no-tfidf")
    assert record["settings"]["tfidf_member"] is False and len(record["facts"]["members"]) == 1
    record["settings"]["linear"] = record["settings"].pop("tfidf_member")  # as records of before have it
    record["settings"].pop("out")
    (home / "before.json").write_text(json.dumps(record), encoding="utf-8")
    done("fit train.csv --settings before.json --out no-tfidf-again")
    assert len(record_of(home / "no-tfidf-again")["facts"]["members"]) == 1


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("fit none.csv --out new", "none.csv does not exist"),
        ("fit train.csv --label topic --out new", "train.csv has no column 'topic'; it has 'text', 'label'"),
        ("fit train.csv --out model", "model exists already"),
        ("fit train.csv --out new --budget soon", "budget is 'soon'"),
        ("fit train.csv --out new --max-size tiny", "max_size is 'tiny'; expected a size such as '10MB'"),
        ("fit train.csv --out new --recipe slow", "recipe 'slow' is unknown"),
        ("fit train.csv --test other.csv --corpus none --members 1 --budget none --out new", "label 'zoo'"),
        ("fit one.csv --out new", "at least two"),
        ("fit train.csv --corpus nowhere --out new", "There is no corpus 'nowhere'"),
        ("evaluate model", "labelled texts or --task, one of them"),
        ("evaluate model test.csv --task agnews", "labelled texts or --task, one of them"),
        ("evaluate model other.csv", "other.csv has the label 'zoo'; expected one of farm, sea"),
        ("predict model none.csv", "none.csv does not exist"),
        ("predict model blank.csv", r"no usable text \(1 empty text\)"),
    ],
)
def test_mistakes_leave_nothing_behind(home: Path, command: str, message: str) -> None:
    write_table(home / "other.csv", [("a lion", "zoo")])
    write_table(home / "one.csv", [(f"a lion {i}", "zoo") for i in range(10)])
    write_table(home / "blank.csv", [(" ", "zoo")])
    assert re.search(message, refused(tinylm(command)))
    assert not (home / "new").exists() and not list(home.glob("*.partial"))


# --- evaluate ---


def test_evaluate_tells_what_scikit_learn_tells(home: Path) -> None:
    rows = read(home / "test.csv")
    committee = load_committee(home / "model")
    truth = np.array([committee.label_names.index(row["label"]) for row in rows])
    found = evaluate(committee, [row["text"] for row in rows], truth)
    predictions = committee.decision_function([row["text"] for row in rows]).argmax(1)
    assert found.accuracy == accuracy_score(truth, predictions)
    assert found.macro_f1 == pytest.approx(f1_score(truth, predictions, average="macro"))
    np.testing.assert_array_equal(found.confusion, confusion_matrix(truth, predictions))
    assert len(found.mistakes) == (truth != predictions).sum()
    out = done("evaluate model test.csv").out
    for figure in (f"{found.accuracy:.3f}", f"{found.macro_f1:.3f}", f"{found.calibration_error:.3f}"):
        assert figure in out


def test_interval_calibration_temperature_and_thresholds_against_other_ways() -> None:
    assert wilson(8, 10) == pytest.approx((0.4902, 0.9433), abs=1e-4)  # the textbook's example
    assert wilson(0, 10)[0] == 0
    error, bins = reliability(np.array([0.95, 0.95, 0.55, 0.55]), np.array([True, False, True, True]))
    assert error == pytest.approx((2 * 0.45 + 2 * 0.45) / 4)
    assert [count for _, _, count in bins] == [2, 2]
    random_ = np.random.default_rng(0)
    logits = random_.normal(size=(400, 3)) * 6
    honest = np.exp(logits / 3) / np.exp(logits / 3).sum(1, keepdims=True)
    truth = np.array([random_.choice(3, p=row) for row in honest])
    assert fit_temperature(logits, truth) == pytest.approx(3, rel=0.2)
    yes = (random_.random((400, 3)) < 1 / (1 + np.exp(-logits / 3))).astype(np.float32)
    assert fit_temperature(logits, yes) == pytest.approx(3, rel=0.2)
    probabilities = 1 / (1 + np.exp(-logits / 3))
    for label, threshold in enumerate(fit_thresholds(logits, yes, 3.0)):
        best = max(f1_score(yes[:, label], probabilities[:, label] >= p) for p in probabilities[:, label])
        assert f1_score(yes[:, label], probabilities[:, label] >= threshold) == pytest.approx(best)


# --- predict ---


def test_predict_streams_standard_input(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    feed(monkeypatch, "the cow meets the hay\n\nthe ship meets the wave\n")
    outcome = done("predict model -")
    assert [line.split("\t")[0] for line in outcome.out.splitlines()] == ["farm", "", "sea"]
    assert outcome.err == "rows without a label: 1 empty text\n"
    feed(monkeypatch, '{"text": "the cow meets the hay"}\n{"text": "the ship meets the wave"}\n')
    assert [line.split("\t")[0] for line in done("predict model -").out.splitlines()] == ["farm", "sea"]
    feed(monkeypatch, "id\ttext\n7\tthe cow meets the hay\n")
    assert done("predict model -").out.startswith("farm\t")
    feed(monkeypatch, "")
    assert "standard input is empty" in refused(tinylm("predict model -"))


def test_every_row_has_a_line_and_columns_are_kept(home: Path) -> None:
    rows = [
        {"id": 7, "title": "the cow", "label": "x"},
        {"id": 8},
        {"id": 9, "title": "the ship", "body": "the tide"},
    ]
    (home / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    done("predict model rows.jsonl --text title --text body --keep id --keep label --out kept.jsonl")
    found = [json.loads(line) for line in (home / "kept.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [row["id"] for row in found] == [7, 8, 9]
    assert [row["label"] for row in found] == ["farm", None, "sea"]
    assert [row["reason"] for row in found] == [None, "no text", None]
    assert [row["text"] for row in found] == ["the cow", "", "the ship the tide"]
    assert [row["label (kept)"] for row in found] == ["x", None, None]
    lines = done("predict model rows.jsonl --text title --text body --keep id").out.splitlines()
    assert [line.split("\t")[:2] for line in lines] == [["7", "farm"], ["8", ""], ["9", "sea"]]


def test_standard_input_is_predicted_as_it_comes(home: Path) -> None:
    command = [sys.executable, "-c", "from tinylm.cli import main; main()", "predict", "model", "-"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None and process.stdout is not None
        for text, label in (("the cow meets the hay", "farm"), ("the ship meets the wave", "sea")):
            process.stdin.write(text + "\n")
            process.stdin.flush()
            assert process.stdout.readline().startswith(label)  # before there is another line
        process.stdin.close()


def test_a_fit_of_columns_of_zero_and_one_and_two_texts(home: Path) -> None:
    chance = random.Random(2)
    topics = [chance.choice(("farm", "sea", "both")) for _ in range(120)]
    both = [tuple(sentence(topic, chance) for topic in ("farm", "sea")) for _ in topics]
    rows = [
        [
            farm if topic != "sea" else "",
            sea if topic != "farm" else "",
            int(topic != "sea"),
            int(topic != "farm"),
            n,
        ]
        for n, (topic, (farm, sea)) in enumerate(zip(topics, both, strict=True))
    ]
    with (home / "marks.csv").open("w", newline="") as file:
        csv.writer(file, delimiter=";").writerows([["title", "body", "farm", "sea", "n"], *rows])
    columns = "--text title --text body --label farm --label sea"
    outcome = done(f"fit marks.csv {columns} --out marks {FIT} --no-compare")
    assert "cells separated by semicolons, UTF-8; 120 texts with 2 labels, several per text" in outcome.err
    assert "`title`, `body`, joined with a space" in (home / "marks" / "README.md").read_text(
        encoding="utf-8"
    )
    assert "macro F1" in done("evaluate marks marks.csv").out  # columns as in the fit
    done("predict marks marks.csv --keep n --out marks-out.csv")
    found = read(home / "marks-out.csv")
    assert [row["n"] for row in found] == [str(n) for n in range(120)]
    for row in found:
        assert row["label"] == "; ".join(name for name in ("farm", "sea") if row[name] == "1")


def test_probabilities_and_the_mark_of_texts_of_low_coverage(home: Path) -> None:
    write_table(home / "in.csv", [("the cow meets the hay", "x"), ("\N{SNOWMAN} \N{SNOWMAN}", "x")])
    done("predict model in.csv --out out.csv --probabilities")
    rows = read(home / "out.csv")
    assert [row["low_coverage"] for row in rows] == ["False", "True"]
    probabilities = load_committee(home / "model").predict_proba(["the cow meets the hay"])[0]
    assert float(rows[0]["probability of farm"]) == pytest.approx(probabilities[0], abs=1e-4)
    assert float(rows[0]["probability"]) == pytest.approx(probabilities.max(), abs=1e-4)


MEASURED = """
import os, sys
from pathlib import Path
from tinylm.cli import main
from tinylm.infer.predictor import Predictor

predict_proba = Predictor.predict_proba

def predict_and_measure(self, texts):
    found = predict_proba(self, texts)
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    print(pages * os.sysconf("SC_PAGE_SIZE"), file=sys.stderr)
    return found

Predictor.predict_proba = predict_and_measure
main()
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux")
def test_memory_does_not_grow_with_the_input(home: Path) -> None:
    """Resident memory, which counts the tensors of onnxruntime too, of a process of its own."""
    write_table(home / "long.csv", [("the cow meets the hay " * 20, "x")] * 8192)
    command = [sys.executable, "-c", MEASURED, "predict", "model", "long.csv", "--out", "long-out.csv"]
    outcome = subprocess.run(command, cwd=home, capture_output=True, text=True, check=True)
    resident = [int(line) for line in outcome.stderr.splitlines() if line.isdigit()]
    assert len(resident) == 16  # batches of 512 rows
    # The first batches fill the pools of the allocators. Between the two medians lie 8 batches, each with
    # 0.22 MB of texts and 0.26 MB of token ids.
    assert np.median(resident[-4:]) < np.median(resident[4:8]) + 1_500_000


def test_a_data_set_of_the_hub_with_named_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Numbers of a column of classes become the names that the data set has for them."""
    features = datasets.Features(
        {"body": datasets.Value("string"), "topic": datasets.ClassLabel(names=["farm", "sea"])}
    )
    rows = {"body": ["a cow", "", "the tide", "a mast"], "topic": [0, 0, 1, 1]}

    def load(name: str, config: str, **options: object) -> datasets.IterableDataset:
        assert (name, config, options["split"]) == ("someone/topics", "plain", "validation")
        return datasets.Dataset.from_dict(rows, features=features).to_iterable_dataset()

    monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", lambda *_, **__: SimpleNamespace(sha="0123abc"))
    monkeypatch.setattr("datasets.load_dataset", load)
    source = "hf:someone/topics:plain:validation"
    found = read_labelled(source, "body", "topic")
    assert (found.texts, found.labels) == (["a cow", "the tide", "a mast"], ["farm", "sea", "sea"])
    assert sum(found.unusable.values()) == 1
    assert read_texts(source, "body") == found.texts
    with pytest.raises(UserError, match="no column 'text'; it has 'body', 'topic'"):
        read_labelled(source, "text", "topic")
