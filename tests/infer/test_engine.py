"""The one runtime: the same numbers however a committee came about, in every process."""

from __future__ import annotations

import os
import pickle
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from helpers.serving import exported
from helpers.toys import TOKENIZERS, make_classifier, torch_logits
from tinylm.infer import engine
from tinylm.infer.committee import Committee, load_committee
from tinylm.infer.predictor import decide

TEXTS = [
    "one two three",
    "",
    "four five six seven eight nine ten " * 9,
    "Two, two!",
    "eleven 🙂",
    "one " * 6,
] * 20


def save(committee: Committee, folder: Path, int8: bool = False) -> Path:
    folder.mkdir()
    committee.save(folder, int8)
    return folder


@pytest.fixture(scope="module")
def committee() -> Committee:
    return Committee(
        [
            make_classifier(1),
            make_classifier(2, TOKENIZERS[1], layers=2, max_tokens=8),
            make_classifier(3, pooling="mean"),
            make_classifier(4, pooling="attended", layers=2),
        ]
    )


@pytest.mark.parametrize("cores", [1, 3])
def test_batches_side_by_side_keep_the_order(
    committee: Committee, monkeypatch: pytest.MonkeyPatch, cores: int
) -> None:
    monkeypatch.setattr(engine, "cores", lambda: cores)
    expected = np.stack([torch_logits(member, TEXTS) for member in committee.members])
    np.testing.assert_allclose(committee.member_logits(TEXTS), expected, atol=1e-4)


def test_questions_of_several_threads(committee: Committee) -> None:
    expected = committee.decision_function(TEXTS)
    fresh = Committee(committee.members)  # its engines are made while several ask
    with ThreadPoolExecutor(4) as pool:
        for logits in pool.map(fresh.decision_function, [TEXTS] * 8):
            np.testing.assert_allclose(logits, expected, atol=1e-5)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork")
@pytest.mark.parametrize("texts", [TEXTS[:1], TEXTS])
def test_a_forked_process_predicts(committee: Committee, tmp_path: Path, texts: list[str]) -> None:
    for number, model in enumerate((committee, exported(Committee(committee.members[:1]), tmp_path))):
        expected = model.predict(texts)
        found = tmp_path / f"found-{number}"
        if (child := os.fork()) == 0:
            try:
                found.write_bytes(pickle.dumps(model.predict(texts)))
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        assert pickle.loads(found.read_bytes()) == expected


@pytest.mark.parametrize("int8", [False, True])
def test_a_folder_predicts_as_a_committee_in_memory(committee: Committee, tmp_path: Path, int8: bool) -> None:
    """Tables stay in the files; links, as the cache of the hub has them, lead there."""
    again = load_committee(save(committee, tmp_path / "saved", int8))
    expected = np.stack([torch_logits(member, TEXTS) for member in again.members])
    np.testing.assert_allclose(again.member_logits(TEXTS), expected, atol=1e-4)
    blobs = tmp_path / "blobs"
    blobs.mkdir()
    for number, file in enumerate((tmp_path / "saved").rglob("*.safetensors")):
        shutil.move(file, blobs / str(number))
        file.symlink_to(blobs / str(number))
    linked = load_committee(tmp_path / "saved")
    np.testing.assert_array_equal(linked.member_logits(TEXTS), again.member_logits(TEXTS))
    # What is loaded does not look for its files again, nor does a copy of it.
    shutil.rmtree(tmp_path / "saved"), shutil.rmtree(blobs)
    np.testing.assert_array_equal(linked.member_logits(TEXTS), again.member_logits(TEXTS))
    copy = pickle.loads(pickle.dumps(linked))
    np.testing.assert_allclose(copy.member_logits(TEXTS), expected, atol=1e-4)
    save(copy, tmp_path / "copy")
    np.testing.assert_allclose(load_committee(tmp_path / "copy").member_logits(TEXTS), expected, atol=1e-4)


def test_int8_is_nearly_the_same(committee: Committee) -> None:
    rounded = Committee(committee.members, int8=True).member_logits(TEXTS)
    exact = committee.member_logits(TEXTS)
    assert 1e-5 < np.abs(rounded - exact).max() < 0.1 * np.abs(exact).max()


def test_training_on_does_not_change_a_classifier() -> None:
    from helpers.toys import LABELS, make_module
    from tinylm.infer.classifier import Classifier

    module = make_module(5)
    member = Classifier.of(module, TOKENIZERS[0], LABELS)
    before = torch_logits(member, TEXTS)
    for weight in module.parameters():
        weight.data += 1
    np.testing.assert_array_equal(Committee([member]).member_logits(TEXTS)[0].argmax(1), before.argmax(1))
    np.testing.assert_array_equal(torch_logits(member, TEXTS), before)


def test_thresholds_decide_in_memory_too(committee: Committee) -> None:
    sigmoid = 1 / (1 + np.exp(-committee.decision_function(TEXTS).astype(float) / 2))
    thresholds = np.median(sigmoid, axis=0)
    several = Committee(committee.members, temperature=2.0, thresholds=thresholds)
    np.testing.assert_allclose(several.predict_proba(TEXTS), sigmoid, atol=1e-5)
    expected = [[several.label_names[i] for i in np.flatnonzero(row >= thresholds)] for row in sigmoid]
    found = several.predict(TEXTS)
    assert sum(one != other for one, other in zip(found, expected, strict=True)) <= 2 * 20  # at the medians
    assert len({len(labels) for labels in found}) > 1


def test_decide_by_hand() -> None:
    probabilities = np.array([[0.2, 0.5, 0.3], [0.4, 0.4, 0.2]])
    assert decide(probabilities, None).tolist() == [[False, True, False], [True, False, False]]
    thresholds = np.array([0.3, 0.5, 0.9])
    assert decide(probabilities, thresholds).tolist() == [[False, True, False], [True, False, False]]
    assert decide(probabilities, np.full(3, 0.9)).tolist() == [[False] * 3] * 2
