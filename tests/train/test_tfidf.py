"""The TF-IDF member: against scikit-learn's naive Bayes and linear SVM, stored, exported, and bounded."""

from __future__ import annotations

import random
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.naive_bayes import MultinomialNB

from helpers.serving import TOKENIZER, exported
from helpers.toys import LABELS, make_classifier, torch_logits
from helpers.words import TOKEN_PATTERN
from tinylm.errors import UserError
from tinylm.export.onnx import export_huggingface
from tinylm.export.runtime import load_onnx
from tinylm.infer.baselines import linear_svm
from tinylm.infer.committee import Committee, load_committee
from tinylm.infer.tfidf import TfidfMember
from tinylm.model.config import TokenTfidfConfig
from tinylm.model.huggingface import load_masked_language_model
from tinylm.model.storage import write_model
from tinylm.model.tfidf import MOST_CHARACTERS, TfidfModel, count_ngrams
from tinylm.train import tfidf as module
from tinylm.train.tfidf import TfidfTask, folds, held_out_logits, train_tfidf, work_of

WORDS = ["one", "Two", "three,", "four", "fünf", "six!", "你好", "ไทย", "🙂", "x"]
MANY = 2**18  # rows, in which no two n-grams of these texts meet


def texts_of(count: int, seed: int) -> list[str]:
    chance = random.Random(seed)
    return [" ".join(chance.choices(WORDS, k=chance.randint(1, 12))) for _ in range(count)]


def rival_margins(is_label: np.ndarray, weights: np.ndarray | None = None, positive: float = 1) -> np.ndarray:
    """Margins of OTHERS by scikit-learn: its vectorizers, naive Bayes and linear SVM.

    Args:
        is_label: `bool [texts]`.
        weights: of the texts.
        positive: what the SVM multiplies those with the label by.
    """
    union, svm = linear_svm()
    union.set_params(**{"tfidfvectorizer-1__token_pattern": TOKEN_PATTERN})
    weights = np.ones(len(TEXTS)) if weights is None else weights
    texts = [text for text, weight in zip(TEXTS, weights, strict=True) if weight > 0]
    is_label, weights = is_label[weights > 0], weights[weights > 0]
    features, others = union.fit_transform(texts), union.transform(OTHERS)
    bayes = MultinomialNB(alpha=0.5).fit(features > 0, is_label, weights / weights.mean())
    ease = np.abs(bayes.feature_log_prob_[1] - bayes.feature_log_prob_[0])
    squares = features.multiply(features)
    scale = np.sqrt(ease * squares.sum() / (squares @ ease).sum())
    svm.set_params(tol=1e-6, max_iter=100_000)
    svm.fit(features.multiply(scale), is_label, weights * np.where(is_label, positive, 1))
    return np.asarray(svm.decision_function(others.multiply(scale)))


def task_of(texts: list[str], targets: np.ndarray, n_labels: int, n_rows: int, *weights: Any) -> TfidfTask:
    return TfidfTask(count_ngrams(texts, n_rows), targets, n_labels, *weights)


TEXTS = texts_of(120, 1)
OTHERS = [*texts_of(40, 2), "", "Two " * 40, "nothing seen before", "…"]


@pytest.fixture(autouse=True)
def exact(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TOLERANCE", 1e-6)


@pytest.mark.parametrize("n_labels", [2, 3])
@pytest.mark.parametrize("weighted", [False, True])
def test_logits_are_the_margins_of_the_linear_svm(n_labels: int, weighted: bool) -> None:
    labels = np.array([(text.count("o") + text.count("t")) % n_labels for text in TEXTS])
    class_weights = np.array([1, 3, 0.5][:n_labels], np.float32) if weighted else None
    weights = np.random.default_rng(0).uniform(0, 2, len(TEXTS)).astype(np.float32) if weighted else None
    model = train_tfidf(task_of(TEXTS, labels, n_labels, MANY, class_weights, weights))
    each = None if weights is None or class_weights is None else class_weights[labels] * weights
    logits = model.logits(OTHERS)
    if n_labels == 2:
        ours, expected = logits[:, 1] - logits[:, 0], rival_margins(labels == 1, each)
    else:
        ours, expected = logits, np.stack([rival_margins(labels == i, each) for i in range(3)], 1)
    np.testing.assert_allclose(ours, expected, atol=0.01)  # of 8 bits
    assert np.ptp(expected, axis=0).min() > 1
    np.testing.assert_array_equal(model.logits(OTHERS[:1]), logits[:1])
    assert model.logits([]).shape == (0, n_labels)


@pytest.mark.parametrize("n_rows", [4, 2**18])
def test_ngrams_are_counted_text_by_text_and_words_apart_from_characters(n_rows: int) -> None:
    """In a table of four rows nearly all n-grams share one."""
    texts = ["ab", ".", "", *["ab Ab cd"] * 99, *(character for character in "!?.;:" for _ in range(2))]
    counts = count_ngrams(texts, n_rows)
    sums = [counts.count[first:end].sum() for first, end in pairwise(counts.bounds)]
    assert sums == [1, 6, 0, 3, 0, 0, *[5, 18] * 99, *[0, 3] * 10]
    for number, (first, end) in enumerate(pairwise(counts.bounds)):
        rows = counts.row[first:end]
        assert (np.diff(rows.astype(int)) > 0).all() and ((rows >= n_rows // 2) == number % 2).all()


def test_several_labels_each_by_itself() -> None:
    targets = np.array([["one" in text, "Two" in text, False, True] for text in TEXTS], np.float32)
    class_weights = np.array([1, 2, 1, 1], np.float32)
    model = train_tfidf(task_of(TEXTS, targets, 4, MANY, class_weights))
    logits = model.logits(OTHERS)
    np.testing.assert_array_equal(logits[:, 2:], np.tile([-1, 1], (len(OTHERS), 1)))
    for label in (0, 1):
        expected = rival_margins(targets[:, label] > 0, positive=class_weights[label])
        np.testing.assert_allclose(logits[:, label], expected, atol=0.03)  # of 8 bits


def test_a_text_without_weight_is_not_learnt() -> None:
    labels = np.array([len(text) % 3 for text in TEXTS])
    kept = labels < 2
    task = task_of(TEXTS, labels, 3, 2**14, None, kept.astype(np.float32))
    logits = train_tfidf(task).logits(OTHERS)
    np.testing.assert_array_equal(logits, train_tfidf(task, np.flatnonzero(kept)).logits(OTHERS))
    assert (logits[:, 2] == -1).all()
    assert np.ptp(logits[:, 0]) > 0.5
    one = train_tfidf(task_of(TEXTS, labels, 3, 2**14, np.array([1, 0, 0], np.float32)))
    assert (one.logits(OTHERS) == [1, -1, -1]).all()


def test_logits_of_texts_that_were_not_trained_on() -> None:
    labels = np.array(["one" in text for text in TEXTS], np.int64)
    noise = np.random.default_rng(0).permutation(labels)
    for targets, low, high in ((labels, 0.8, 1), (noise, 0.3, 0.65)):
        task = task_of(TEXTS, targets, 2, 2**16)
        accuracy = (held_out_logits(task, folds(TEXTS, targets, 0)).argmax(1) == targets).mean()
        assert low < accuracy <= high
    part = np.array([3, 7, 50])
    logits = held_out_logits(task, [part])
    others = np.setdiff1d(np.arange(len(TEXTS)), part)
    alone = task_of([TEXTS[i] for i in others], labels[others], 2, 2**16)
    np.testing.assert_array_equal(task.idf(others), alone.idf(np.arange(len(others))))
    without = train_tfidf(task, others).logits([TEXTS[i] for i in part])
    np.testing.assert_allclose(logits[part], without, atol=0.01)
    assert not logits[others].any()


def test_folds_share_each_label_out_and_keep_copies_together() -> None:
    texts = [f"text {number}" for number in range(90)]
    texts += [text.upper() for text in reversed(texts)]
    labels = np.array([0] * 80 + [1] * 7 + [2] * 3)
    labels = np.concatenate([labels, labels[::-1]])
    parts = folds(texts, labels, 0)
    assert sorted(np.concatenate(parts).tolist()) == list(range(180))
    for part in parts:
        assert {179 - i for i in part.tolist()} == set(part.tolist())
    counts = np.array([np.bincount(labels[part], minlength=3) for part in parts]).T // 2
    assert counts.tolist() == [[8] * 10, [1] * 7 + [0] * 3, [1] * 3 + [0] * 7]
    assert [len(part) for part in folds(texts[:3], labels[:3], 0)] == [1, 1, 1]
    several = np.ones((180, 2), np.float32)
    assert [len(part) for part in folds(texts, several, 0)] == [18] * 10


def test_work_counts_what_is_read() -> None:
    texts = ["", "x" * 100, "y" * 100 * MOST_CHARACTERS]
    one, two = work_of(texts, 1), work_of(texts, 2)
    assert (two - one).tolist() == [0, 100, MOST_CHARACTERS]
    assert one[2] * 100 == one[1] * MOST_CHARACTERS


@pytest.fixture
def member() -> TfidfMember:
    labels = np.array([len(text) % 3 for text in TEXTS])
    return TfidfMember(train_tfidf(task_of(TEXTS, labels, 3, 2**13)), LABELS)


@pytest.mark.parametrize("int8", [False, True])
def test_stored_and_read_again(member: TfidfMember, tmp_path: Path, int8: bool) -> None:
    committee = Committee([member, make_classifier(1)])
    committee.save(tmp_path, int8)
    again = load_committee(tmp_path)
    assert again.members[0].config == member.config
    np.testing.assert_array_equal(again.member_logits(OTHERS)[0], member.model.logits(OTHERS))
    np.testing.assert_array_equal(committee.member_logits(OTHERS)[0], member.model.logits(OTHERS))
    size = (tmp_path / "member-1" / "model.safetensors").stat().st_size
    assert size < 2**13 * (3 + 8) + 1000
    assert not list((tmp_path / "member-1").glob("*vocab*"))
    with pytest.raises(UserError, match="TF-IDF member; expected a BERT-n"):
        load_masked_language_model(tmp_path / "member-1")
    with pytest.raises(UserError, match="needs at least one encoder"):
        load_committee(tmp_path / "member-1")


def test_a_damaged_member_is_named(member: TfidfMember, tmp_path: Path) -> None:
    Committee([member, make_classifier(1)]).save(tmp_path)
    path = tmp_path / "member-1" / "config.json"
    path.write_text(path.read_text().replace("8192", "8191"))
    with pytest.raises(UserError, match=r"config\.json: setting 'rows' was 8191: .*power of two"):
        load_committee(tmp_path)
    model = member.model
    save_file(
        {"tfidf.weight": model.weight, "tfidf.idf": model.idf, "tfidf.bias": model.bias},
        tmp_path / "member-1" / "model.safetensors",
    )
    path.write_text(path.read_text().replace("8191", "8192"))
    with pytest.raises(UserError, match=r"model\.safetensors: 'tfidf\.weight' is stored as int8; expected"):
        load_committee(tmp_path)


@pytest.mark.parametrize("int8", [False, True])
def test_exported_with_the_encoders(member: TfidfMember, tmp_path: Path, int8: bool) -> None:
    encoders = [make_classifier(1, max_tokens=48), make_classifier(2)]
    committee = Committee([encoders[0], member, encoders[1]])
    model = exported(committee, tmp_path, int8)
    logits = model.member_logits(OTHERS)
    np.testing.assert_array_equal(logits[1], member.model.logits(OTHERS))
    for number, encoder in ((0, encoders[0]), (2, encoders[1])):
        expected = torch_logits(encoder, OTHERS)
        atol = 0.1 * np.abs(expected).max() if int8 else 1e-4
        np.testing.assert_allclose(logits[number], expected, atol=atol)
    assert model.member_names[1] == "TF-IDF of words and characters"
    assert model.member_logits([]).shape == (3, 0, 3)
    folders, left_out = export_huggingface(tmp_path / "committee", tmp_path / "plain")
    assert [folder.name for folder in folders] == ["member-1", "member-2"]
    assert left_out == ["TF-IDF of words and characters"]
    (tmp_path / "onnx" / "tfidf-2.npz").write_bytes(b"?")
    with pytest.raises(UserError, match=r"tfidf-2\.npz is missing or damaged"):
        load_onnx(tmp_path / "onnx")


def test_a_folder_with_the_tfidf_member_of_before(tmp_path: Path) -> None:
    """Logistic regression on tokens: read, predicted and exported, though no longer trained."""
    chance = np.random.default_rng(0)
    tokens = len(TOKENIZER)
    idf = chance.uniform(1, 3, tokens).astype(np.float32)
    idf[TOKENIZER.special_ids] = 0
    weight, bias = (chance.normal(size=shape).astype(np.float32) for shape in ((tokens, 3), 3))
    Committee([make_classifier(1), make_classifier(2)]).save(tmp_path)
    config = TokenTfidfConfig(vocab_size=tokens, max_tokens=9)
    stored = {"rarity": idf, "votes.weight": weight, "cls.predictions.bias": bias}
    write_model(tmp_path / "member-2", config, stored, LABELS)
    texts = ["one two two three", "", "four " * 30]
    words = TfidfVectorizer(
        sublinear_tf=True, vocabulary=TOKENIZER.vocab, analyzer=lambda text: text.split()[:7]
    )
    words.idf_ = idf
    expected = words.transform(texts) @ weight + bias
    committee = load_committee(tmp_path)
    np.testing.assert_allclose(committee.member_logits(texts)[1], expected, atol=1e-5)
    (tmp_path / "again").mkdir()
    model = exported(committee, tmp_path / "again")
    np.testing.assert_allclose(model.member_logits(texts)[1], expected, atol=1e-5)


def test_cooled(member: TfidfMember) -> None:
    model: TfidfModel = member.model
    np.testing.assert_allclose(model.cooled(4).logits(OTHERS), model.logits(OTHERS) / 4, rtol=1e-4, atol=1e-6)
