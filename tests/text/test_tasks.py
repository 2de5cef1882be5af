"""Tasks: the paper's label numbers and token counts, splits, and bad files."""

from __future__ import annotations

import io
import json
import tarfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from tinylm.errors import UserError
from tinylm.text.corpus import build_store, open_corpus, read_vital
from tinylm.text.datasets import DOWNLOADS
from tinylm.text.labelled import read_labelled
from tinylm.text.store import open_store
from tinylm.text.tasks import Task, load_task, split_rows, without_copies
from tinylm.text.tokenizer import load_tokenizer, train_tokenizer

# Label sets of Table 1, with T_C measured on the partial copy of FewRel and as in the paper.
TABLE_1 = [
    ([5, 10, 11, 16, 17, 25, 27, 33, 36, 39], 12_733, 12_829),
    ([8, 13, 18, 23, 26, 30, 42, 49, 50, 56], 13_686, 13_959),
    ([0, 2, 5, 10, 11, 16, 17, 36, 45, 63], 13_034, 13_342),
    (None, 24_568, 24_724),
]


@pytest.fixture
def official(data_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TINYLM_DATA", str(data_folder))
    return data_folder


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty TINYLM_DATA and an empty cache."""
    monkeypatch.setenv("TINYLM_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("TINYLM_CACHE", str(tmp_path / "cache"))
    for name in ("fewrel", "ag_news", "dbpedia"):
        (tmp_path / "data" / name).mkdir(parents=True)
    return tmp_path / "data"


def t_c(task: Task) -> int:
    tokenizer = load_tokenizer("bert-base-uncased")
    return len(np.unique(tokenizer.encode(task.train_texts + task.test_texts).ids))


def pairs(texts: list[str], labels: np.ndarray) -> Counter[tuple[str, int]]:
    return Counter(zip(texts, labels.tolist(), strict=True))


@pytest.mark.parametrize(("labels", "partial", "paper"), TABLE_1)
def test_fewrel_token_counts_of_the_paper(
    official: Path, labels: list[int] | None, partial: int, paper: int
) -> None:
    relations = json.loads((official / "fewrel" / "train_wiki.json").read_bytes())
    complete = all(len(rows) == 700 for rows in relations.values())
    assert t_c(load_task("fewrel", labels=labels)) == (paper if complete else partial)


def write_fewrel(folder: Path, sizes: dict[str, int]) -> None:
    relations = {
        relation: [{"tokens": [relation, "row", str(i)]} for i in range(n)] for relation, n in sizes.items()
    }
    names = {relation: [f"name of {relation}", "description"] for relation in sizes}
    (folder / "fewrel" / "train_wiki.json").write_text(json.dumps(relations))
    (folder / "fewrel" / "pid2name.json").write_text(json.dumps(names))


def test_fewrel_numbers_relations_alphabetically(own: Path) -> None:
    write_fewrel(own, {"P931": 20, "P17": 20, "P2": 20})
    task = load_task("fewrel", labels=[2, 0], train_per_label=5, test_per_label=5)
    assert task.label_names == ["name of P931", "name of P17"]
    for texts, labels in ((task.train_texts, task.train_labels), (task.test_texts, task.test_labels)):
        assert [text.split()[0] for text in texts] == [["P931", "P17"][i] for i in labels]
    assert labels.dtype == np.int64


def test_fewrel_split(own: Path) -> None:
    write_fewrel(own, {"P1": 700, "P2": 500})
    task = load_task("fewrel")
    assert np.bincount(task.train_labels).tolist() == [630, 430]
    assert np.bincount(task.test_labels).tolist() == [70, 70]
    assert task.notes == ["There are 430 training rows of label 'name of P2' where 630 were requested."]
    texts = task.train_texts + task.test_texts
    assert len(set(texts)) == len(texts) == 1200
    order = np.random.default_rng(42).permutation(700)
    assert task.test_texts[:70] == [f"P1 row {i}" for i in order[-70:]]
    assert task.train_texts[:630] == [f"P1 row {i}" for i in order[:630]]


def test_same_seed_same_rows_whatever_the_labels(own: Path) -> None:
    write_fewrel(own, {"P1": 90, "P2": 90, "P3": 90})
    whole = load_task("fewrel", train_per_label=20)
    part = load_task("fewrel", train_per_label=20, labels=[1, 2])
    assert part.train_texts == whole.train_texts[20:]
    assert part.test_texts == whole.test_texts[70:]
    assert load_task("fewrel", train_per_label=20).fingerprint == whole.fingerprint
    other = load_task("fewrel", train_per_label=20, seed=1)
    assert other.fingerprint != whole.fingerprint
    assert sorted(other.train_texts) != sorted(whole.train_texts)


def test_official_csv(own: Path) -> None:
    train = '"1","A title","its text"\n"4",""," text ""alone"""\n"2","","b"\n3,x,y\n"3","",""\n'
    (own / "ag_news" / "train.csv").write_text(train)
    (own / "ag_news" / "test.csv").write_text("".join(f'"{i}","t","u {i}"\n' for i in (1, 2, 3, 4)))
    task = load_task("agnews")
    assert task.label_names == ["World", "Sports", "Business", "Sci/Tech"]
    assert task.train_texts == ["A title its text", "b", "x y", 'text "alone"']
    assert task.train_labels.tolist() == [0, 1, 2, 3]
    assert task.test_texts == ["t u 1", "t u 2", "t u 3", "t u 4"]
    assert task.unusable == {"empty text": 1}
    assert len(task.notes) == 8


@pytest.mark.parametrize(
    ("name", "per_label", "labels", "paper"), [("agnews", 1000, 4, 17_072), ("dbpedia", 100, 14, 15_084)]
)
def test_official_files(official: Path, name: str, per_label: int, labels: int, paper: int) -> None:
    task = load_task(name)
    assert np.bincount(task.train_labels).tolist() == [per_label] * labels
    assert np.bincount(task.test_labels).tolist() == [per_label] * labels
    assert not task.notes and not task.unusable
    assert abs(t_c(task) - paper) < 0.02 * paper  # other rows than the paper's, so not equal


def test_vital_topics_are_kept_out_of_pre_training(tmp_path: Path) -> None:
    task = load_task("vital-topics")
    articles = read_vital()
    assert len(task.label_names) == 11
    assert np.bincount(task.train_labels).tolist() == [100] * 11
    assert np.bincount(task.test_labels).tolist() == [100] * 11
    assert task.unusable == {"no label": 1000}
    topics = {article["extract"]: article["topic"] for article in articles.values()}
    for texts, labels in ((task.train_texts, task.train_labels), (task.test_texts, task.test_labels)):
        assert [topics[text] for text in texts] == [task.label_names[label] for label in labels]
    assert {articles[title]["extract"] for title in task.test_titles} == set(task.test_texts)
    assert not set(task.train_texts) & set(task.test_texts)

    tokenizer = train_tokenizer(task.train_texts[:100], 2000)
    build_store(open_corpus("vital"), tokenizer, tmp_path / "store", exclude_titles=task.test_titles)
    paragraphs, meta = open_store(tmp_path / "store")
    assert meta["excluded"] == len(task.test_titles) >= 550
    tests = tokenizer.encode(task.test_texts)
    stored = {paragraphs[row].tobytes() for row in range(len(paragraphs))}
    assert not {tests[row].tobytes() for row in range(len(tests))} & stored


def write_table(path: Path, labels: str, word: str = "text") -> Path:
    rows = [{"body": f"{word} {i}", "kind": label} for i, label in enumerate(labels)]
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return path


def test_own_table_is_split_by_label(tmp_path: Path) -> None:
    path = write_table(tmp_path / "a.jsonl", "a" * 50 + "b" * 10)
    task = load_task(path, text_column="body", label_column="kind")
    assert task.label_names == ["a", "b"]
    assert np.bincount(task.train_labels).tolist() == [40, 8]
    assert np.bincount(task.test_labels).tolist() == [10, 2]
    everything = pairs(task.train_texts, task.train_labels) + pairs(task.test_texts, task.test_labels)
    assert everything == Counter({(f"text {i}", int(i >= 50)): 1 for i in range(60)})


def test_own_table_with_test_file(tmp_path: Path) -> None:
    train = write_table(tmp_path / "a.jsonl", "abab")
    test = write_table(tmp_path / "b.jsonl", "bba", "tested")
    task = load_task(train, text_column="body", label_column="kind", test_file=test)
    assert pairs(task.train_texts, task.train_labels).keys() == {(f"text {i}", i % 2) for i in range(4)}
    assert pairs(task.test_texts, task.test_labels).keys() == {
        ("tested 0", 1),
        ("tested 1", 1),
        ("tested 2", 0),
    }


def test_rows_without_text_or_label_are_counted(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(
        "text,label\n" + "".join(f"a{i},1\n\nb{i},2\n" for i in range(5)) + ",1\nc,\nd\n  ,2\n"
    )
    task = load_task(tmp_path / "a.csv")
    assert len(task.train_texts) + len(task.test_texts) == 10
    assert task.unusable == {"empty text": 2, "no label": 1, "fewer cells than columns": 1}


def test_number_labels_in_order_of_number(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text(
        "label\ttext\n" + "".join(f"{n}\ttext {n} {i}\n" for n in (10, 9, 2) for i in range(3))
    )
    assert load_task(tmp_path / "a.tsv").label_names == ["2", "9", "10"]


def test_bad_tables(tmp_path: Path) -> None:
    def fails(message: str, path: Path, **options: object) -> None:
        with pytest.raises(UserError, match=message):
            load_task(path, text_column="body", label_column="kind", **options)  # type: ignore[arg-type]

    good = write_table(tmp_path / "good.jsonl", "ab" * 10)
    empty = tmp_path / "empty.jsonl"
    empty.touch()
    fails(r"missing\.csv does not exist", tmp_path / "missing.csv")
    fails(r"empty\.jsonl is empty", empty)
    fails("1 label.* expected at least two", write_table(tmp_path / "one.jsonl", "aaaa"))
    fails("no training rows of label 'b'", write_table(tmp_path / "rare.jsonl", "aaaab"))
    fails("no test rows of label 'b'", good, test_file=write_table(tmp_path / "t.jsonl", "aa", "tested"))
    fails(r"t\.jsonl has the label 'c'", good, test_file=write_table(tmp_path / "t.jsonl", "abc"))
    fails("Label 2 is out of range; .* 0 to 1", good, labels=[0, 2])
    fails("Label -1 is out of range", good, labels=[0, -1])
    fails("named twice", good, labels=[1, 1])
    fails("train_per_label is 0", good, train_per_label=0)
    fails("test_share is 1", good, test_share=1)
    with pytest.raises(UserError, match=r"no column 'text'; it has 'body', 'kind'"):
        load_task(good)


def test_unknown_task_lists_the_known_ones() -> None:
    with pytest.raises(UserError, match="no task 'fewrell'; expected fewrel, agnews, dbpedia, vital-topics"):
        load_task("fewrell")


def test_damaged_official_files(own: Path) -> None:
    write_fewrel(own, {"P1": 3, "P2": 3})
    path = own / "fewrel" / "train_wiki.json"
    path.write_text('{"P1": [{"tokens": ["a"]}, {"h": 1}]}')
    with pytest.raises(UserError, match=r"train_wiki\.json, relation P1, row 2 has no list of tokens"):
        load_task("fewrel")
    for content in ("", '{"P1": [', "{}", "[]"):
        path.write_text(content)
        with pytest.raises(UserError, match=r"train_wiki\.json is (not a JSON file|empty)"):
            load_task("fewrel")
    (own / "ag_news" / "train.csv").write_text('"1","a","b"\n"5","a","b"\n')
    with pytest.raises(UserError, match=r"train\.csv, row 2 has the class '5'; expected 1 to 4"):
        load_task("agnews")


def test_dbpedia_archive_is_unpacked_once(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = own.parent / "cache" / "dbpedia"
    folder.mkdir(parents=True)
    with tarfile.open(folder / "dbpedia_csv.tgz", "w:gz") as tar:
        for part in ("train", "test"):
            content = "".join(f'{i},"{part} {i}"," text"\n' for i in range(1, 15)).encode()
            member = tarfile.TarInfo(f"dbpedia_csv/{part}.csv")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    monkeypatch.setattr("tinylm.text.datasets.fetch", lambda url, checksum, name: own.parent / "cache" / name)
    task = load_task("dbpedia")
    assert task.train_texts == [f"train {i}  text" for i in range(1, 15)]
    assert task.test_texts == [f"test {i}  text" for i in range(1, 15)]
    assert task.label_names[:2] == ["Company", "EducationalInstitution"]
    (folder / "dbpedia_csv.tgz").unlink()
    assert load_task("dbpedia").fingerprint == task.fingerprint


def test_no_file_and_no_network(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    address = "http://127.0.0.1:9/dbpedia_csv.tgz"
    monkeypatch.setitem(DOWNLOADS, "dbpedia/dbpedia_csv.tgz", (address, None))
    with pytest.raises(UserError, match=r"dbpedia_csv\.tgz could not be downloaded"):
        load_task("dbpedia")


# --- splits ---


def test_copies_follow_their_text(tmp_path: Path) -> None:
    texts = [f"text {i % 40}" for i in range(400)]  # each ten times, some with other spaces and cases
    texts[200:] = [f"  Text  {i % 40} " for i in range(200)]
    labels = np.array([i % 40 < 4 for i in range(400)]).astype(np.int64)
    for seed in range(5):
        split = split_rows(texts, labels, 0.25, seed)
        words = [
            {" ".join(texts[i].lower().split()) for i in part} for part in (split.train, split.validation)
        ]
        assert not words[0] & words[1]
        assert sorted([*split.train, *split.validation]) == list(range(400))
        assert len(words[1]) == pytest.approx(10, abs=1)
        # Four distinct texts of the rare label: one is tested, with its ten copies.
        assert labels[split.validation].sum() == 10


def test_without_copies_rows_are_drawn_label_by_label() -> None:
    labels = np.repeat([0, 1, 2], [100, 20, 1])
    split = split_rows([f"text {i}" for i in range(121)], labels, 0.2, seed=0)
    assert np.bincount(labels[split.validation], minlength=3).tolist() == [20, 4, 0]


def test_a_text_with_two_labels_is_on_one_side_and_every_label_is_learnt() -> None:
    texts = [f"text {i % 30}" for i in range(60)]
    torn = np.repeat([0, 1], 30)  # each text once with each label
    rare = np.zeros((60, 3), np.float32)
    rare[:, 0] = 1
    rare[:2, 1] = rare[30:32, 1] = 1
    rare[0, 2] = 1
    for targets in (torn, rare):
        for seed in range(10):
            split = split_rows(texts, targets, 0.5, seed)
            assert not {texts[i] for i in split.train} & {texts[i] for i in split.validation}
            learnt = targets[split.train]
            assert (np.bincount(learnt, minlength=2) if learnt.ndim == 1 else learnt.sum(0)).all()


def test_an_own_table_with_copies_is_split_by_texts(tmp_path: Path) -> None:
    rows = [{"text": f"{label} {i}", "label": label} for label in "ab" for i in range(10) for _ in range(6)]
    rows += [{"text": "a 1", "label": "b"}] * 3  # torn between both
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    task = load_task(tmp_path / "a.jsonl")
    assert not set(task.train_texts) & set(task.test_texts)
    assert np.bincount(task.test_labels).tolist()[0] == 12  # two texts, six times each


def test_copies_of_test_texts_are_left_out_and_counted(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,label\nTea is hot,x\ncake,y\ntea  is HOT,x\nmilk,x\n")
    found = without_copies(read_labelled(str(tmp_path / "a.csv"), "text", "label"), ["tea is hot", "other"])
    assert found.texts == ["cake", "milk"] and found.unusable == {"copies of test texts": 2}
