"""Every mistake of a user's is one sentence and leaves nothing behind."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import pytest

from helpers.command import (
    TINY,
    done,
    refused,
    tinylm,
)


@pytest.fixture(scope="module")
def bad(home: Path) -> Path:
    """A folder of files that somebody might give by mistake."""
    bad = home / "bad"
    bad.mkdir()
    ship, cow = "the ship passes the buoy", "the cow needs the hay"
    files: dict[str, str | bytes] = {
        "empty.txt": "",
        "blank.txt": "\n  \n\n",
        "damaged.jsonl": '{"text": "\\ud83d"}\n',
        "emoji.csv": "text,label\n\N{ROCKET},a\n\N{GRINNING FACE},b\n\N{COW},a\n\N{SHIP},b\n",
        "column.csv": f"body,label\n{cow},a\n",
        "header.csv": "text,label\n",
        "colon.csv": f"text:label\n{cow}:a\n",
        "one.csv": f"text,label\n{cow},a\n{ship},a\n",
        "single.csv": f"text,label\n{cow},a\n{ship},a\n{cow},b\n",
        "unlabelled.csv": f"text,label\n{cow},\n{ship},\n",
        "array.json": json.dumps([{"text": cow, "label": "a"}, {"text": ship, "label": ["a", "b"]}]),
        "brackets.json": "[[",
        "tested.csv": f"text,label\n{cow},farm\n",
        "newlabel.csv": f"text,label\n{cow},farm\n{ship},sea\n{ship},river\n",
        "broken.parquet": b"PAR1 and no more",
        "report.docx": cow,
        "numbers.csv": "text,label\n" + "".join(f"{cow} {i},0\n{ship} {i},1\n" for i in range(5)),
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
    (f"{PRETRAIN} --corpus bad/damaged.jsonl", r"bad/damaged.jsonl.* no usable paragraph \(1 not UTF-8\)"),
    (f"{PRETRAIN} --corpus bad/header.csv", r"bad/header.csv.* no usable paragraph \(no rows\)"),
    (f"{PRETRAIN} --corpus bad/column.csv", "bad/column.csv has no column 'text'; it has 'body', 'label'"),
    (f"{PRETRAIN} --corpus corpus.txt --text body", "corpus.txt has no column 'body'; it has 'text'"),
    (f"{PRETRAIN} --corpus bad/report.docx", "bad/report.docx has an unknown format; expected .txt"),
    (f"{PRETRAIN} --corpus bad/broken.parquet", "bad/broken.parquet is not a valid parquet file"),
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
    (f"{PRETRAIN} --corpus corpus.txt --out corpus.txt/new", "corpus.txt.* cannot be.* written"),
    (f"pretrain {TINY} --corpus corpus.txt", "Missing option '--out'"),
    ("pretrian --out OUT", "No such command 'pretrian'. Did you mean 'pretrain'"),
    ("pretrain --out OUT --tokenizer bert-base-cased --corpus corpus.txt", "bert-base-cased does not exist"),
    ("pretrain --out OUT --corpus corpus.txt --settings none.yaml", "none.yaml cannot be read"),
    ("pretrain --out OUT --corpus corpus.txt --settings bad/list.yaml", "bad/list.yaml holds no settings"),
    ("pretrain --out OUT --corpus corpus.txt --settings bad/word.yaml", "bad/word.yaml holds no settings"),
    ("pretrain --out OUT --corpus corpus.txt --settings bad/unknown.yaml", "'epoch' is unknown; there are"),
    ("pretrain --out OUT --corpus corpus.txt --settings bad/type.yaml", "'--epochs'.*valid integer"),
    ("pretrain --out OUT --corpus corpus.txt --settings bad/choice.yaml", "'best' is unknown; there are"),
    (
        "pretrain --out OUT --corpus corpus.txt --settings bad/broken.yaml",
        "bad/broken.yaml, line 2 is not valid YAML",
    ),
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
    (f"{FINETUNE} bad/colon.csv", "bad/colon.csv has no column 'text'; it has 'text:label'"),
    (f"{FINETUNE} bad/brackets.json", "bad/brackets.json is not JSON"),
    (f"{PRETRAIN} --corpus corpus.txt --device tpu", "--device was 'tpu'; expected cpu, cuda"),
    (f"{PRETRAIN} --corpus corpus.txt --device cuda:99", "--device was 'cuda:99', but PyTorch finds"),
    (f"{FINETUNE} task.csv --device cuda:99", "--device was 'cuda:99', but PyTorch finds"),
    ("paper run table5 --preset smoke --device gpu --results OUT", "--device was 'gpu'; expected cpu, cuda"),
    (f"{FINETUNE} corpus.txt", "corpus.txt has no column 'label'"),
    (f"{FINETUNE} bad/one.csv", r"bad/one.csv has 1 label.*expected at least two"),
    (f"{FINETUNE} bad/header.csv", r"bad/header.csv has no usable row \(no rows\)"),
    (f"{FINETUNE} bad/unlabelled.csv", r"bad/unlabelled.csv has no usable row \(2 no label\)"),
    (f"{FINETUNE} bad/array.json", "bad/array.json, row 2 has a list where earlier rows have not"),
    (f"{FINETUNE} bad/broken.parquet", "bad/broken.parquet is not a valid parquet file"),
    (f"{FINETUNE} bad/single.csv", "no training rows of label 'b'"),
    (f"{FINETUNE} task.csv --test bad/tested.csv", "no test rows of label 'sea'"),
    (f"{FINETUNE} task.csv --test bad/newlabel.csv", "bad/newlabel.csv has the label 'river'"),
    (f"{FINETUNE} task.csv --labels farm,sea", "'farm,sea'; expected label numbers"),
    (f"{FINETUNE} task.csv --labels 0,2", "Label 2 is out of range; task.csv has the labels 0 to 1"),
    (f"{FINETUNE} task.csv --learning-rate -1", "'--learning-rate'.*greater"),
    (f"{FINETUNE} task.csv --learning-rate 1e38", r"the loss is not a number.*learning rate 1e\+38"),
    ("finetune none --task task.csv --out OUT", "none holds no model"),
    ("finetune classifier --task task.csv --out OUT", "lacks the weight 'cls"),
    ("finetune bad/deeper --task task.csv --out OUT", "bad/deeper/model.safetensors .*another architecture"),
    ("finetune bad/words --task task.csv --out OUT", "the tokenizer has .*; both must be equal"),
    ("evaluate pretrained --task task.csv", "pre-trained model, not a classifier.*'tinylm finetune'"),
    ("evaluate classifier --task bad/numbers.csv", "knows the labels farm, sea; .* has 0, 1"),
    ("committee --out OUT", "Missing argument 'MODEL...'"),
    ("committee classifier none --out OUT", "none holds no model"),
    ("committee classifier bad/numbers --out OUT", "member 2 .*labels 0, 1; .* farm, sea"),
    ("committee classifier classifier --out pretrained", "pretrained exists already"),
    ("predict pretrained 'a text'", "pre-trained model, not a classifier.*'tinylm finetune'"),
    ("predict none 'a text'", "none is not a folder"),
    ("predict bad/cut 'a text'", "bad/cut/model.safetensors is damaged or cut short"),
    ("predict classifier ''", "empty text"),
    ("predict classifier ' '", "empty text"),
    ("predict classifier ./none", "file ./none does not exist; if it is a text, pipe it"),
    ("predict classifier none.csv", "none.csv does not exist; if it is a text, pipe it"),
    ("predict classifier 'new reviews.csv'", "file new reviews.csv does not exist"),
    ("predict classifier cache", "folder cache holds no file that can be read"),
    ("predict classifier bad/empty.txt", "bad/empty.txt is empty"),
    ("predict classifier bad/blank.txt", r"bad/blank.txt holds no usable text \(3 empty text\)"),
    ("predict classifier bad/damaged.jsonl", r"bad/damaged.jsonl holds no usable text \(1 not UTF-8\)"),
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
