"""TinyTextClassifier: scikit-learn's habits, honest figures, sharing."""

from __future__ import annotations

import base64
import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import polars
import pytest
from huggingface_hub import ModelCard
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.metrics import accuracy_score
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.estimator_checks import parametrize_with_checks

from helpers.fitting import NOUNS, labelled, recipe, several_labels, tiny
from helpers.toys import torch_logits
from tinylm import TinyTextClassifier
from tinylm.errors import UserError
from tinylm.fit import member, tfidf_member
from tinylm.fit import size as sizing
from tinylm.system.cores import cores
from tinylm.train.tfidf import work_of


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("TINYLM_CACHE", str(folder))
    return folder


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TinyTextClassifier]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TINYLM_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield tiny(members=2, validation=0.2).fit(*labelled(240))


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TinyTextClassifier]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TINYLM_CACHE", str(tmp_path_factory.mktemp("cache")))
        texts, topics = several_labels(300)
        yield tiny(recipe=recipe(1, 8), validation=0.2).fit(texts, topics)


# --- scikit-learn ---


def test_predictions_agree_with_each_other_and_with_scikit_learns_metric(fitted: TinyTextClassifier) -> None:
    texts, labels = labelled(100, seed=1)
    predictions, logits = fitted.predict(texts), fitted.decision_function(texts)
    probabilities = fitted.predict_proba(texts)
    assert fitted.classes_.tolist() == ["farm", "sea"]
    assert fitted.score(texts, labels) == accuracy_score(labels, predictions) > 0.9
    assert logits.shape == (100,)  # of two classes: positive for the second
    assert (predictions == np.where(logits > 0, "sea", "farm")).all()
    assert (predictions == fitted.classes_[probabilities.argmax(1)]).all()
    np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-5)
    # The logits are the sum of the members', by hand and in PyTorch.
    committee = fitted.committee_
    by_hand = sum(torch_logits(member, texts) for member in committee.readers)
    by_hand += committee.members[-1].model.logits(texts)
    np.testing.assert_allclose(logits, by_hand[:, 1] - by_hand[:, 0], rtol=1e-5, atol=1e-5)


def test_columns_of_every_kind_give_the_same_answers(fitted: TinyTextClassifier) -> None:
    pandas = pytest.importorskip("pandas")
    texts, _ = labelled(10, seed=2)
    expected = fitted.decision_function(texts)
    columns = [
        tuple(texts),
        np.array(texts),
        np.array(texts, dtype=object)[:, None],
        pandas.Series(texts, index=range(5, 15)),
        pandas.DataFrame({"body": texts}),
    ]
    for column in columns:
        np.testing.assert_array_equal(fitted.decision_function(column), expected)


def test_a_polars_column(fitted: TinyTextClassifier) -> None:
    texts, labels = labelled(10, seed=2)
    expected = fitted.decision_function(texts)
    for column in (polars.Series(texts), polars.DataFrame({"body": texts})):
        np.testing.assert_array_equal(fitted.decision_function(column), expected)
    assert fitted.score(polars.Series(texts), polars.Series(labels)) == fitted.score(texts, labels)


def test_pipeline_clone_grid_search_and_cross_validation(monkeypatch: pytest.MonkeyPatch) -> None:
    trained: list[int] = []
    pretrain = member.pretrain

    def counted(paragraphs: Any, *arguments: Any, **named: Any) -> Any:
        trained.append(len(paragraphs))
        return pretrain(paragraphs, *arguments, **named)

    monkeypatch.setattr(member, "pretrain", counted)
    texts, labels = labelled(80)
    lower = FunctionTransformer(lambda column: [text.lower() for text in column])
    pipeline = make_pipeline(lower, tiny())
    assert cross_val_score(pipeline, texts, labels, cv=2).shape == (2,)
    assert len(trained) == 2
    grid = {"class_weight": [None, "balanced"], "validation": [0.1]}
    search = GridSearchCV(tiny(), grid, cv=2, refit=False).fit(texts, labels)
    assert len(search.cv_results_["params"]) == 2
    # The folds are those of the cross-validation and nothing that pre-training sees differs.
    assert len(trained) == 2
    copy = clone(tiny(members=4, budget="1h"))
    assert copy.get_params()["members"] == 4 and not hasattr(copy, "classes_")


def test_what_is_not_given_is_not_seen() -> None:
    texts, labels = labelled(60)
    validated = tiny(validation=0.3).fit(texts, labels)
    split = validated.fitted_.split
    assert len(split.validation) and not set(split.train) & set(split.validation)
    held_out = {texts[i] for i in split.validation}
    assert not held_out & {texts[i] for i in split.train}
    # W_S is the distinct training texts alone.
    assert validated.fitted_.coverage.paragraphs == len({texts[i] for i in split.train})
    more = tiny(validation=0.3, unlabelled=["a zebra", "a zebra", ""]).fit(texts, labels)
    assert more.fitted_.coverage.paragraphs == validated.fitted_.coverage.paragraphs + 1


def test_same_seed_same_model_and_another_seed_another() -> None:
    texts, labels = labelled(40)
    first, again, other = (
        tiny(random_state=seed, recipe=recipe(1, 1)).fit(texts, labels).decision_function(texts)
        for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, other)


def test_numbers_as_labels_come_back_as_numbers(tmp_path: Path) -> None:
    texts, labels = labelled(30)
    numbers = [10 if label == "farm" else 2 for label in labels]
    classifier = tiny().fit(texts, numbers)
    assert classifier.classes_.tolist() == [2, 10]
    classifier.save_pretrained(tmp_path / "model")
    loaded = TinyTextClassifier.from_pretrained(tmp_path / "model")
    assert loaded.predict(texts).tolist() == classifier.predict(texts).tolist()
    assert loaded.classes_.dtype.kind == "i"


class OnNumbers(TinyTextClassifier):
    """Makes a text of every row of numbers, so that scikit-learn's checks can be asked."""

    def __init__(self, *, random_state: int | None = 0) -> None:
        super().__init__(
            corpus=None, recipe=recipe(1, 2), members=1, budget=None, n_jobs=1, random_state=random_state
        )

    def texts(self, X: Any) -> list[str]:  # noqa: N803
        array = np.asarray(X)
        if array.shape[1] != getattr(self, "columns_", array.shape[1]):
            raise ValueError("another number of columns")
        return [" ".join(f"c{i} v{value:.1f}" for i, value in enumerate(row)) for row in array]

    def fit(self, X: Any, y: Any) -> OnNumbers:  # noqa: N803
        self.__dict__.pop("columns_", None)
        super().fit(self.texts(X), y)
        self.columns_ = np.asarray(X).shape[1]
        return self

    def decision_function(self, X: Any) -> Any:  # noqa: N803
        return super().decision_function(self.texts(X))

    def predict_proba(self, X: Any) -> Any:  # noqa: N803
        return super().predict_proba(self.texts(X))

    def predict(self, X: Any) -> Any:  # noqa: N803
        return super().predict(self.texts(X))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array, tags.input_tags.one_d_array = True, False
        tags.input_tags.string = False
        tags.non_deterministic = False
        tags.classifier_tags.poor_score = True  # two epochs from nothing
        return tags


NUMBERS = "texts have no columns of numbers"
SKIPPED = {
    "check_n_features_in": NUMBERS,
    "check_n_features_in_after_fitting": NUMBERS,
    "check_fit2d_1feature": NUMBERS,
    "check_fit2d_predict1d": NUMBERS,
    "check_fit1d": NUMBERS,
    "check_estimators_nan_inf": "a number of a text may be anything, 'nan' too",
    "check_dtype_object": NUMBERS,
    "check_complex_data": NUMBERS,
    "check_estimators_empty_data_messages": NUMBERS,
    "check_estimator_sparse_tag": NUMBERS,
    "check_estimator_sparse_array": NUMBERS,
    "check_estimator_sparse_matrix": NUMBERS,
    "check_classifiers_one_label": "one label is refused, there is nothing to choose from",
    "check_parameters_default_constructible": "OnNumbers hands its fixed parameters up",
    "check_no_attributes_set_in_init": "OnNumbers hands its fixed parameters up",
}


@parametrize_with_checks([OnNumbers()])
def test_scikit_learns_own_checks(estimator: OnNumbers, check: Any) -> None:
    name = check.func.__name__
    if name in SKIPPED:
        pytest.skip(SKIPPED[name])
    check(estimator)


# --- several labels per text ---


def test_several_labels_per_text(several: TinyTextClassifier) -> None:
    texts, topics = several_labels(100, seed=1)
    predictions = several.predict(texts)
    right = np.mean([set(a) == set(b) for a, b in zip(predictions, topics, strict=True)])
    assert several.score(texts, topics) == right > 0.5
    assert several.predict_proba(texts).shape == several.decision_function(texts).shape == (100, 3)
    thresholds = several.committee_.thresholds
    by_hand = several.predict_proba(texts) >= thresholds
    assert predictions == [
        [name for name, yes in zip(sorted(NOUNS), row, strict=True) if yes] for row in by_hand
    ]


def test_several_labels_without_validation_are_given_from_one_half_on() -> None:
    texts, topics = several_labels(60)
    classifier = tiny(validation=0, recipe=recipe(1, 2)).fit(texts, topics)
    assert classifier.committee_.thresholds.tolist() == [0.5] * 3
    probabilities = classifier.predict_proba(texts)
    by_hand = [classifier.classes_[row >= 0.5].tolist() for row in probabilities]
    assert classifier.predict(texts) == by_hand
    logits = classifier.decision_function(texts)
    np.testing.assert_allclose(probabilities, 1 / (1 + np.exp(-logits)), rtol=1e-4, atol=1e-6)


def test_several_labels_learn_from_each_label_by_itself() -> None:
    """Two labels of several per text keep two columns, and numbers as labels stay numbers."""
    texts, topics = several_labels(150)
    numbers = [[int(name == "sea") for name in row if name != "town"] for row in topics]
    classifier = tiny(recipe=recipe(1, 8), validation=0.2).fit(texts, numbers)
    assert classifier.classes_.tolist() == [0, 1] and classifier.multi_label_
    assert classifier.decision_function(texts).shape == (150, 2)
    right = [set(found) == set(row) for found, row in zip(classifier.predict(texts), numbers, strict=True)]
    assert np.mean(right) > 0.7
    assert set(map(len, classifier.predict(texts))) == {0, 1, 2}  # none, one and both


# --- weights ---


def test_rare_labels_weigh_more_when_balanced(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[np.ndarray | None] = []
    original = member.loss_of
    monkeypatch.setattr(member, "loss_of", lambda task, each: seen.append(each) or original(task, each))
    texts, labels = labelled(40)
    rare = ["farm" if i % 4 else "sea" for i in range(40)]
    for weight in ("balanced", {"sea": 7}, None):
        tiny(recipe=recipe(1, 1), class_weight=weight).fit(texts, rare)
    balanced, given, equal = seen[:2], seen[2:4], seen[4:]  # of both fine-tunings
    np.testing.assert_allclose(balanced, 2 * [[40 / (2 * 30), 40 / (2 * 10)]])  # n / (labels * count)
    np.testing.assert_allclose(given, 2 * [[1, 7]])
    assert equal == [None, None]


def test_labels_that_occur_once_and_hundreds_of_labels() -> None:
    texts, labels = labelled(40)
    with_single = tiny(recipe=recipe(1, 1), validation=0.3).fit([*texts, "a lone zebra"], [*labels, "zoo"])
    assert 40 in with_single.fitted_.split.train and "zoo" in with_single.classes_
    many = [f"label {i % 300}" for i in range(600)]
    texts = [f"word{i % 300} word{i % 300}" for i in range(600)]
    assert tiny(recipe=recipe(1, 1)).fit(texts, many).predict_proba(texts[:2]).shape == (2, 300)


def test_so_many_labels_that_a_tfidf_member_would_be_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    texts, labels = labelled(60)
    assert tiny().fit(texts, labels).fitted_.form.tfidf_rows
    monkeypatch.setattr(sizing, "MOST_TFIDF_WEIGHTS", 100)
    classifier = tiny(recipe=recipe(1, 1)).fit(texts, labels)
    assert len(classifier.committee_.members) == 1
    assert classifier.data_warnings_[-1] == (
        "The committee has no TF-IDF member: for 2 labels it would be too large."
    )


@pytest.mark.parametrize("work", [100.0, 5.0, 1.5, 0.5])
def test_the_tfidf_member_is_validated_on_texts_that_it_has_not_seen(
    work: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Labels by chance: whoever predicts them has seen them. `work` is what the time is enough for."""
    chance = np.random.default_rng(0)
    texts = [" ".join(f"w{number}" for number in row) for row in chance.integers(0, 10_000, (200, 8))]
    labels = chance.choice(["a", "b"], 200)
    monkeypatch.setattr(tfidf_member, "MOST_WORK", int(work * work_of(texts, 2).sum()))
    classifier = tiny(validation=0.4, recipe=recipe(1, 1)).fit(texts, labels)
    fitted, tfidf = classifier.fitted_, classifier.committee_.members[-1]
    assert fitted.validation is not None and 0.3 < fitted.validation.accuracy < 0.7
    rows = {"train": fitted.split.train, "validation": fitted.split.validation}
    right = {
        part: np.mean(
            tfidf.model.logits([texts[i] for i in chosen]).argmax(1) == (labels[chosen] == "b").astype(int)
        )
        for part, chosen in rows.items()
    }
    # With time for two trainings, it has learnt from the validation texts too in the end.
    assert (right["validation"] > 0.95) == (work > 2)
    assert (right["train"] > 0.95) == (work > 1)


def test_the_tfidf_member_counts_as_much_beside_three_encoders_as_beside_one() -> None:
    texts, labels = labelled(60)
    new, _ = labelled(20, seed=1)
    one, three = (
        tiny(members=count, recipe=recipe(1, 40), validation=0)
        .fit(texts, labels)
        .committee_.member_logits(new)
        for count in (1, 3)
    )
    np.testing.assert_allclose(one[-1], three[-1], rtol=1e-5)
    # And the three together as much as the one: they are as sure of these easy texts.
    assert 0.5 < np.abs(three[:-1].sum(0)).mean() / np.abs(one[0]).mean() < 2


def test_encoders_that_have_read_no_text_count_a_tenth_where_few_labels_cannot_tell() -> None:
    texts, labels = labelled(60)
    more, _ = labelled(20, seed=2)
    new, _ = labelled(20, seed=1)
    fitting = tiny(recipe=recipe(1, 40), validation=0, unlabelled=more)
    read = fitting.fit_for_report(texts, labels, compare=True).fitted_
    unread = tiny(recipe=recipe(1, 40), validation=0).fit(texts, labels).fitted_
    # Nothing was learnt from validation texts, so the weights are those expected, of the same TF-IDF member.
    tfidf = {
        name: one.member_logits(new)[-1]
        for name, one in (("read", read.committee), ("unread", unread.committee), ("without", read.without))
    }
    for name in ("unread", "without"):
        np.testing.assert_allclose(tfidf[name], 0.9 / 0.5 * tfidf["read"], rtol=1e-5)


@pytest.mark.parametrize("validation", [0, 0.1])
def test_encoders_that_have_learnt_nothing_do_not_spoil_the_committee(validation: float) -> None:
    texts, labels = labelled(60)
    untrained = recipe(1, 1).with_epochs(learning_rate=1e-9)
    phase = untrained.finetune.model_copy(update={"muon_lr": None})
    classifier = tiny(
        recipe=untrained.model_copy(update={"finetune": phase}),
        members=3,
        validation=validation,
        random_state=1,
    ).fit(texts, labels)
    new, truth = labelled(100, seed=1)
    logits = classifier.committee_.member_logits(new)
    assert (logits.sum(0).argmax(1) == logits[-1].argmax(1)).all()
    assert np.abs(logits[:-1]).max() < 0.001 * np.abs(logits[-1]).max()
    assert 0.3 < np.mean(classifier.classes_[logits[0].argmax(1)] == truth) < 0.7  # they know nothing


# --- mistakes ---


@pytest.mark.parametrize(
    ("X", "y", "parameters", "message"),
    [
        (["a", 3], ["x", "y"], {}, "X, row 2 is 3"),
        (["a", "b\ud800"], ["x", "y"], {}, "X, row 2 is .*Unicode"),
        ("a text", ["x"], {}, "expected a column of texts"),
        (["a", "b"], ["x", "x"], {}, "at least two"),
        (["a", "b"], ["x"], {}, "inconsistent numbers of samples"),
        (["a", "b"], ["x", None], {}, "y, row 2 has no label"),
        (["a", "b"], [["x"], "y"], {}, "y, row 2 is 'y'; the others are lists"),
        (["a", "b"], [["x"], [1]], {}, "mixes strings and numbers"),
        (["a", "b"], ["x", "y"], {"members": 0}, "members is 0"),
        (["a", "b"], ["x", "y"], {"validation": 1}, "validation is 1"),
        (["a", "b"], ["x", "y"], {"max_tokens": 2}, "max_tokens is 2"),
        (["a", "b"], ["x", "y"], {"vocabulary": 99}, "Vocabulary size is 99; expected 300"),
        (["a", "b"], ["x", "y"], {"budget": "soon"}, "budget is 'soon'; expected a time such as"),
        (["a", "b"], ["x", "y"], {"recipe": "slow"}, "recipe 'slow' is unknown"),
        (np.zeros((2, 2), object), ["x", "y"], {}, "X has 2 columns"),
        ([], [], {}, "0 sample"),
    ],
)
def test_mistakes_are_named(X: Any, y: Any, parameters: dict[str, Any], message: str) -> None:  # noqa: N803
    with pytest.raises(ValueError, match=message) as error:
        tiny(**parameters).fit(X, y)
    assert "\n" not in str(error.value)


def test_asked_before_it_is_fitted() -> None:
    with pytest.raises(NotFittedError, match="from_pretrained"):
        tiny().predict(["a text"])


def test_texts_without_a_token_and_no_corpus() -> None:
    with pytest.raises(UserError, match="no text to pre-train on|No text to learn"):
        tiny().fit([" ", ""], ["x", "y"])


# --- sharing ---


def test_a_saved_folder_is_the_same_classifier_and_holds_no_pickle(
    fitted: TinyTextClassifier, several: TinyTextClassifier, tmp_path: Path
) -> None:
    for name, classifier in (("one", fitted), ("several", several)):
        classifier.save_pretrained(tmp_path / name)
        loaded = TinyTextClassifier.from_pretrained(tmp_path / name)
        texts, _ = several_labels(20, seed=3)
        np.testing.assert_allclose(loaded.predict_proba(texts), classifier.predict_proba(texts), rtol=1e-5)
        assert list(loaded.predict(texts)) == list(classifier.predict(texts))
        suffixes = {path.suffix for path in (tmp_path / name).rglob("*") if path.is_file()}
        assert suffixes <= {".safetensors", ".json", ".txt", ".md"}
        facts = json.loads((tmp_path / name / "committee.json").read_text())
        assert facts["multi_label"] is (name == "several")
    with pytest.raises(UserError, match="not empty"):
        fitted.save_pretrained(tmp_path / "one")


@pytest.mark.parametrize(
    ("labels", "weights"),
    [
        (["farm", "sea"], {"sea": 3.0}),
        ([2, 10], {np.int64(10): 3}),  # a number as a key stays a number
        ([True, False], {True: 2}),
    ],
)
def test_a_loaded_classifier_has_the_parameters_of_its_fit(
    labels: list[Any], weights: dict[Any, float], tmp_path: Path
) -> None:
    texts, names = labelled(30)
    column = [labels[name == "sea"] for name in names]
    parameters = {
        "recipe": recipe(1, 1),
        "class_weight": weights,
        "unlabelled": ["a secret"],
        "random_state": np.random.RandomState(3),
        "max_size": "4MB",
        "vocabulary": np.int64(400),
    }
    classifier = tiny(**parameters).fit(texts, column)
    classifier.save_pretrained(tmp_path / "model")
    loaded = TinyTextClassifier.from_pretrained(tmp_path / "model")
    expected = classifier.get_params() | {"unlabelled": None, "random_state": None}
    assert loaded.get_params() == clone(loaded).get_params() == expected
    assert "a secret" not in (tmp_path / "model" / "tinylm.json").read_text(encoding="utf-8")


def test_a_folder_without_parameters_still_loads(fitted: TinyTextClassifier, tmp_path: Path) -> None:
    fitted.save_pretrained(tmp_path / "model")
    path = tmp_path / "model" / "tinylm.json"
    record = json.loads(path.read_text(encoding="utf-8"))
    del record["facts"]["fit_parameters"]
    path.write_text(json.dumps(record), encoding="utf-8")
    loaded = TinyTextClassifier.from_pretrained(tmp_path / "model")
    assert loaded.get_params() == TinyTextClassifier().get_params()
    loaded.save_pretrained(tmp_path / "again")


def test_the_card_tells_data_figures_and_limits(fitted: TinyTextClassifier, tmp_path: Path) -> None:
    fitted.save_pretrained(tmp_path / "news")
    card = (tmp_path / "news" / "README.md").read_text(encoding="utf-8")
    head = ModelCard(card).data  # as the hub reads it
    assert (head.library_name, head.pipeline_tag) == ("tinylm", "text-classification")
    facts = fitted.facts_
    assert card.startswith("---\n") and "# news\n" in card
    for figure in ("W_S", "T_M", "ms median", "Limits", f"{facts['validation']['accuracy']:.3f}"):
        assert figure in card
    assert "validation texts that weighed the members" in card  # no test was made, and it says so


class Hub(BaseHTTPRequestHandler):
    """As much of the hub as one upload and one download need, in memory."""

    files: dict[str, bytes] = {}
    commit = "c" * 40

    def log_message(self, *_: Any) -> None: ...

    def respond(self, content: Any, headers: dict[str, str] | None = None, status: int = 200) -> None:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def do_POST(self) -> None:  # noqa: N802
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.headers.get("Authorization") != "Bearer secret":
            self.respond({"error": "Invalid token"}, status=401)
        elif self.path.endswith("/repos/create"):
            self.respond({"url": f"http://{self.headers['Host']}/someone/news", "id": "someone/news"})
        elif "/preupload/" in self.path:
            files = [
                {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False}
                for file in json.loads(body)["files"]
            ]
            self.respond({"files": files})
        elif "/commit/" in self.path:
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    Hub.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            self.respond(
                {
                    "commitUrl": f"http://{self.headers['Host']}/someone/news/commit/c",
                    "commitOid": self.commit,
                }
            )
        else:  # checks before a commit, such as that of the card's front matter
            self.respond({"errors": [], "warnings": []})

    def do_HEAD(self) -> None:  # noqa: N802
        self.do_GET()

    def do_GET(self) -> None:  # noqa: N802
        if match := re.fullmatch(r"/someone/news/resolve/[^/]+/(.+)", self.path):
            content = Hub.files[match[1]]
            self.respond(content, {"ETag": f'"{hash(content):x}"', "X-Repo-Commit": self.commit})
        elif self.path.startswith("/api/models/someone/news"):
            siblings = [{"rfilename": name} for name in Hub.files]
            tree = [{"type": "file", "path": n, "size": len(c), "oid": "0"} for n, c in Hub.files.items()]
            found = {"id": "someone/news", "sha": self.commit, "siblings": siblings}
            self.respond(tree if "/tree/" in self.path else found)
        else:
            self.respond({"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"}, 404)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    from huggingface_hub import constants

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    yield address
    server.shutdown()
    server.server_close()


def test_to_the_hub_and_back(fitted: TinyTextClassifier, hub: str) -> None:
    Hub.files.clear()
    address = fitted.push_to_hub("someone/news", token="secret")
    assert address.endswith("/someone/news/commit/c")
    assert {"README.md", "committee.json", "member-1/model.safetensors"} <= Hub.files.keys()
    assert b'from_pretrained("someone/news")' in Hub.files["README.md"]
    loaded = TinyTextClassifier.from_pretrained("someone/news")
    texts, _ = labelled(20, seed=4)
    np.testing.assert_allclose(loaded.predict_proba(texts), fitted.predict_proba(texts), rtol=1e-5)
    with pytest.raises(UserError, match="someone/news could not be uploaded"):
        fitted.push_to_hub("someone/news", token="wrong")
    with pytest.raises(UserError, match="nobody/nothing is not a folder here and could not be downloaded"):
        TinyTextClassifier.from_pretrained("nobody/nothing")
    with pytest.raises(UserError, match="is not a folder"):
        TinyTextClassifier.from_pretrained("/no/such/folder")


def test_numbers_of_jobs_are_those_of_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    settings: list[Any] = []
    monkeypatch.setattr("tinylm.fit.estimator.fit_committee", lambda *given: settings.append(given[-1]))
    for n_jobs, expected in ((None, cores()), (-1, cores()), (-100, 1), (np.int64(2), 2)):
        with pytest.raises(AttributeError):  # nothing was fitted
            TinyTextClassifier(n_jobs=n_jobs).fit(["a", "b"], ["c", "d"])
        assert settings[-1].workers == expected
    for n_jobs in (0, 1.5):
        with pytest.raises(
            ValueError, match=rf"n_jobs`? is {n_jobs}; expected a whole number from 1, -1 for"
        ):
            TinyTextClassifier(n_jobs=n_jobs).fit(["a", "b"], ["c", "d"])


def test_texts_that_are_cut_are_counted() -> None:
    texts, labels = labelled(40)
    texts[:5] = [" ".join([text] * 10) for text in texts[:5]]
    texts[5] = "barn " * 22  # exactly as many as are read
    fitted = tiny(max_tokens=24).fit(texts, labels)
    assert fitted.fitted_.cut == 5
    assert any("5 of 40 texts are longer than the 24 tokens" in line for line in fitted.data_warnings_)
    assert not any("longer than" in line for line in tiny(max_tokens=64).fit(texts, labels).data_warnings_)


def test_the_end_of_long_texts_is_read_where_it_is_asked_for(tmp_path: Path) -> None:
    texts, labels = labelled(60)
    filling = "it is so and so and then again so " * 5
    texts = [filling + text for text in texts]
    # Encoders alone: the TF-IDF member reads all.
    encoder = {"max_tokens": 24, "tfidf_member": False, "recipe": recipe(1, 20)}
    classifier = tiny(long_texts="head-tail", **encoder).fit(texts, labels)
    assert classifier.fitted_.cut == 60
    assert classifier.score(texts, labels) > 0.9 > tiny(**encoder).fit(texts, labels).score(texts, labels)
    classifier.save_pretrained(tmp_path / "model")
    again = TinyTextClassifier.from_pretrained(tmp_path / "model")
    np.testing.assert_allclose(again.predict_proba(texts), classifier.predict_proba(texts), atol=1e-5)
