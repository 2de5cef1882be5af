"""Columns of texts and labels of every library, and what a fit makes of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas
import polars
import pyarrow
import pytest
import scipy.sparse as sp
from sklearn.metrics import accuracy_score
from sklearn.preprocessing import MultiLabelBinarizer

from helpers.fitting import labelled, recipe, several_labels, tiny
from tinylm import TinyTextClassifier
from tinylm.errors import InputError
from tinylm.fit.columns import labels_of, rows_of_labels, texts_of, weights_of

WORDS = ["tea", "cake", "tea", "milk"]
NUMBERS = [10, 2, 10, 3]
COLUMNS = [
    list,
    tuple,
    np.array,
    lambda values: np.array(values, object),
    pandas.Series,
    lambda values: pandas.Series(values, index=range(7, 7 + len(values))),
    lambda values: pandas.Series(values, dtype="category"),
    lambda values: pandas.Series(values).convert_dtypes(),
    lambda values: pandas.Series(values).convert_dtypes(dtype_backend="pyarrow"),
    pyarrow.array,
    lambda values: pyarrow.chunked_array([values]),
    polars.Series,
]
TEXTS_ALONE = [
    lambda values: np.array(values, np.dtypes.StringDType()),
    lambda values: pandas.Series(values, dtype="str"),
    lambda values: pyarrow.array(values, pyarrow.large_string()),
    lambda values: polars.Series(values, dtype=polars.Categorical),
    lambda values: pandas.DataFrame({"a": values}),
    lambda values: polars.DataFrame({"a": values}),
    lambda values: pyarrow.table({"a": values}),
]


@pytest.mark.parametrize("make", [*COLUMNS, *TEXTS_ALONE])
def test_columns_of_texts_and_of_names(make: Any) -> None:
    assert texts_of(make(WORDS)) == WORDS
    if getattr(make(WORDS), "ndim", 1) == 1 and not isinstance(make(WORDS), pyarrow.Table):
        found = labels_of(make(WORDS))
        assert (found.classes.tolist(), found.targets.tolist()) == (["cake", "milk", "tea"], [2, 0, 2, 1])


@pytest.mark.parametrize("make", COLUMNS)
def test_columns_of_numbers_as_labels_stay_numbers(make: Any) -> None:
    found = labels_of(make(NUMBERS))
    assert (found.classes.tolist(), found.targets.tolist()) == ([2, 3, 10], [2, 0, 2, 1])
    assert all(type(label) is int for label in found.classes.tolist())


@pytest.mark.parametrize(
    "column",
    [
        ["x", None],
        [1.0, float("nan")],
        pandas.Series(["x", None], dtype="str"),
        pandas.Series([1, None], dtype="Int64"),
        pandas.Series(["x", None], dtype="category"),
        polars.Series(["x", None]),
        pyarrow.array(["x", None]),
    ],
)
def test_a_missing_label_is_named_in_any_dtype(column: Any) -> None:
    with pytest.raises(InputError, match="y, row 2 has no label"):
        labels_of(column)


LISTS = [["tea"], ["cake", "tea"], [], ["cake"]]


def test_several_labels_in_every_form() -> None:
    binarizer = MultiLabelBinarizer()
    dense = binarizer.fit_transform(LISTS)
    frame = pandas.DataFrame(dense, columns=binarizer.classes_)
    named = [
        LISTS,
        polars.Series(LISTS),
        pyarrow.array(LISTS),
        pandas.Series(LISTS),
        frame,
        polars.DataFrame(frame),
    ]
    numbered = [dense.tolist(), list(dense), pandas.Series(dense.tolist())]
    numbered += [dense, dense.astype(bool), dense.astype(float), sp.csr_matrix(dense), sp.coo_array(dense)]
    for column in named:
        assert labels_of(column).classes.tolist() == ["cake", "tea"]
    for column in numbered:
        assert labels_of(column).classes.tolist() == [0, 1]
    for column in (*named, *numbered):
        np.testing.assert_array_equal(labels_of(column).targets, dense)
    with pytest.raises(InputError, match=r"row 1, column 2 is .*2"):
        labels_of(np.array([[0, 2], [1, 1]]))
    marks = pandas.DataFrame({"a": pandas.array([1, None], dtype="Int64"), "b": [0, 1]})
    with pytest.raises(InputError, match=r"row 2, column 1 is <NA>"):
        labels_of(marks)
    for without_order in ({"a", "b"}, {"a": 1, "b": 2}):
        with pytest.raises(InputError, match="expected a label for each text, in their order"):
            labels_of(without_order)
    assert rows_of_labels([[0, 1], [1, 1]], np.arange(2)) == [{1}, {0, 1}]
    assert rows_of_labels([[0, 1], [1, 0]], np.arange(3)) == [{0, 1}, {0, 1}]


def test_weights() -> None:
    assert weights_of(None, 2) is None
    assert weights_of(pandas.Series([1, 3]), 2).tolist() == [0.5, 1.5]
    for wrong in ([1], [1, -1], [0, 0], [1, float("nan")], "ab", [[1, 1]]):
        with pytest.raises(InputError, match="sample_weight"):
            weights_of(wrong, 2)


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TINYLM_CACHE", str(tmp_path_factory.mktemp("cache")))


def test_predict_gives_labels_in_the_form_of_the_fit(tmp_path: Path) -> None:
    texts, topics = several_labels(120)
    dense = MultiLabelBinarizer().fit_transform(topics)
    classifier = tiny(recipe=recipe(1, 8)).fit(texts, dense)
    found = classifier.predict(texts)
    assert found.shape == dense.shape and found.dtype.kind == "i"
    assert classifier.score(texts, dense) == accuracy_score(dense, found) > 0.5
    assert classifier.score(texts, sp.csr_matrix(dense)) == classifier.score(texts, dense)
    classifier.save_pretrained(tmp_path / "model")
    np.testing.assert_array_equal(
        TinyTextClassifier.from_pretrained(tmp_path / "model").predict(texts), found
    )
    classifier.label_form_ = "sparse"
    assert sp.issparse(classifier.predict(texts)) and (classifier.predict(texts).toarray() == found).all()


@pytest.mark.parametrize("tfidf_member", [True, False])
def test_a_text_counts_by_its_weight(tfidf_member: bool) -> None:
    texts, labels = labelled(60)
    swapped = ["sea" if label == "farm" else "farm" for label in labels]
    weights = [1.0] * 60 + [0.01] * 60  # every text is there with both labels
    parameters = {"tfidf_member": tfidf_member, "validation": 0, "recipe": recipe(1, 8)}
    classifier = tiny(**parameters).fit(texts * 2, labels + swapped, sample_weight=weights)
    assert np.mean(classifier.predict(texts) == np.array(labels)) > 0.9
    other = tiny(**parameters).fit(texts * 2, labels + swapped, sample_weight=weights[::-1])
    assert np.mean(other.predict(texts) == np.array(swapped)) > 0.9


@pytest.mark.parametrize(
    ("labels", "weights"),
    [(["x", "y"], {"X": 2}), ([0, 1], {"1": 2}), ([["x"], ["y"]], {"X": 2})],
)
def test_a_weight_for_a_label_that_is_not_there_is_refused(labels: Any, weights: Any) -> None:
    with pytest.raises(InputError, match="class_weight has the label '[X1]'; expected some of"):
        tiny(class_weight=weights).fit(["a text", "another"], labels)


@pytest.mark.parametrize("labels", [["x", "y"], [["x"], ["y"]]])
@pytest.mark.parametrize("weight", [{"x": -1}, {"x": float("nan")}, {"x": "2"}, "balance"])
def test_a_weight_that_is_none_is_refused(labels: Any, weight: Any) -> None:
    with pytest.raises(InputError, match="class_weight .*; expected"):
        tiny(class_weight=weight).fit(["a text", "another"], labels)


def test_validation_and_held_out_texts_are_kept_out_of_pre_training() -> None:
    texts, labels = labelled(40)
    everything = [*texts, "A  Secret text", "something else"]
    classifier = tiny(validation=0.3, unlabelled=everything, recipe=recipe(1, 1))
    classifier.fit_for_report(texts, labels, compare=False, held_out=["a secret TEXT"])
    fitted = classifier.fitted_
    assert fitted.coverage.paragraphs == len({texts[i] for i in fitted.split.train}) + 1
    assert fitted.kept_out == len(fitted.split.validation) + 1
    assert "pre-training did not read them" in classifier.data_warnings_[-1]
