"""The linear member: against scikit-learn, stored, exported, and bounded."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from helpers.serving import TOKENIZER, exported
from helpers.toys import make_module, torch_logits
from tinylm.errors import UserError
from tinylm.export.onnx import export_huggingface
from tinylm.infer.classifier import Classifier
from tinylm.infer.committee import Committee, load_committee
from tinylm.model.huggingface import load_masked_language_model
from tinylm.model.logits import logits_of
from tinylm.train import tfidf as module
from tinylm.train.finetune import EncodedTask
from tinylm.train.tfidf import REGULARIZATION, STEPS, train_tfidf

WORDS = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
MAX_TOKENS = 9


def texts_of(count: int, seed: int) -> list[str]:
    chance = random.Random(seed)
    return [" ".join(chance.choices(WORDS, k=chance.randint(0, 12))) for _ in range(count)]


def task_of(texts: list[str], labels: np.ndarray, n_labels: int) -> EncodedTask:
    ids = TOKENIZER.encode(texts, 64)
    return EncodedTask(ids, labels, ids, labels, n_labels)


def words_read(text: str) -> list[str]:
    """The first tokens of a text, [CLS] and [SEP] apart; every word here is a token."""
    return text.split()[: MAX_TOKENS - 2]


TEXTS = texts_of(80, 1)
OTHERS = [*texts_of(40, 2), "", "two " * 40]


@pytest.mark.parametrize("n_labels", [2, 3])
@pytest.mark.parametrize("weighted", [False, True])
def test_fields_are_scikit_learns(n_labels: int, weighted: bool) -> None:
    labels = np.array([(text.count("o") + text.count("t")) % n_labels for text in TEXTS])
    weights = np.array([1, 3, 0.5][:n_labels], np.float32) if weighted else None
    model = train_tfidf(task_of(TEXTS, labels, n_labels), TOKENIZER, MAX_TOKENS, weights, seed=0)
    vectorizer = TfidfVectorizer(sublinear_tf=True, analyzer=words_read)
    rival = LogisticRegression(C=REGULARIZATION, max_iter=STEPS)
    rival.fit(vectorizer.fit_transform(TEXTS), labels, None if weights is None else weights[labels])
    expected = rival.decision_function(vectorizer.transform(OTHERS))
    logits = logits_of(model, TOKENIZER.encode(OTHERS, MAX_TOKENS))
    ours = logits[:, 1] - logits[:, 0] if n_labels == 2 else logits
    np.testing.assert_allclose(ours, expected, atol=0.02)
    assert np.ptp(logits, axis=0).min() > 1


def test_several_labels_each_by_itself() -> None:
    targets = np.array([["one" in text, "two" in text, False] for text in TEXTS], np.float32)
    model = train_tfidf(task_of(TEXTS, targets, 3), TOKENIZER, 64, None, seed=0)
    logits = logits_of(model, TOKENIZER.encode(OTHERS, 64))
    truth = np.array([["one" in text, "two" in text] for text in OTHERS])
    assert ((logits[:, :2] > 0) == truth).mean() > 0.97
    assert not logits[:, 2].any()


def test_of_too_many_texts_some_are_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    original = module._regression
    monkeypatch.setattr(
        module,
        "_regression",
        lambda features, *more: sizes.append(features.shape[0]) or original(features, *more),
    )
    train_tfidf(task_of(TEXTS, np.arange(80) % 3, 3), TOKENIZER, 64, None, seed=0, most_work=60)
    assert sizes == [20]


@pytest.fixture
def member() -> Classifier:
    labels = np.array([len(text) % 3 for text in TEXTS])
    model = train_tfidf(task_of(TEXTS, labels, 3), TOKENIZER, 32, None, seed=0)
    return Classifier.of(model, TOKENIZER, ["a", "b", "c"])


@pytest.mark.parametrize("int8", [False, True])
def test_stored_and_read_again(member: Classifier, tmp_path: Path, int8: bool) -> None:
    encoder = Classifier.of(make_module(1), TOKENIZER, member.label_names)
    committee = Committee([encoder, member])
    committee.save(tmp_path, int8)
    again = load_committee(tmp_path)
    assert again.members[1].config == member.config
    largest = np.abs(committee.member_logits(OTHERS)).max()
    difference = np.abs(again.member_logits(OTHERS) - committee.member_logits(OTHERS)).max()
    assert difference < (0.05 * largest if int8 else 1e-6)
    folder = tmp_path / "member-1"
    size = (folder / "model.safetensors").stat().st_size
    weights = encoder.parameters
    assert size < (1.6 if int8 else 4.2) * weights
    assert (json.loads((folder / "config.json").read_text())["model_type"] == "bert") is not int8
    with pytest.raises(UserError, match="TF-IDF member; expected a BERT-n"):
        load_masked_language_model(tmp_path / "member-2")


@pytest.mark.parametrize("int8", [False, True])
def test_exported_with_the_encoders(member: Classifier, tmp_path: Path, int8: bool) -> None:
    committee = Committee([Classifier.of(make_module(1, max_tokens=48), TOKENIZER, ["a", "b", "c"]), member])
    model = exported(committee, tmp_path, int8)
    logits = np.stack([torch_logits(one, OTHERS) for one in committee.members])
    atol = 0.05 * np.abs(logits).max() if int8 else 1e-4
    np.testing.assert_allclose(model.member_logits(OTHERS), logits, atol=atol)
    assert model.member_names[1] == "TF-IDF of tokens"
    (folder,) = export_huggingface(tmp_path / "committee", tmp_path / "plain")
    assert folder == tmp_path / "plain"
