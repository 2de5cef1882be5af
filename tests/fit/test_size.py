"""`max_size`: what is written fits, and what is given up first."""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers.fitting import labelled, recipe, tiny
from tinylm import TinyTextClassifier
from tinylm.errors import InputError, UserError
from tinylm.fit.size import StorageForm, size_of, storage_forms
from tinylm.system.units import bytes_of_size


def size_on_disk(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ("10MB", 1e7),
        ("800 kB", 8e5),
        ("1.5GiB", 1.5 * 2**30),
        (123, 123),
        ("2e", None),
        ("0MB", None),
        ("-1MB", None),
    ],
)
def test_sizes_in_words(size: str | float, expected: float | None) -> None:
    if expected is None:
        with pytest.raises(UserError, match="expected a size such as '10MB'"):
            bytes_of_size(size)
    else:
        assert bytes_of_size(size) == expected


def test_what_is_given_up_first() -> None:
    assert storage_forms(3, 30_000)[:4] == [
        StorageForm(3, 30_000, False),
        StorageForm(3, 30_000, True),
        StorageForm(2, 30_000, True),
        StorageForm(1, 30_000, True),
    ]
    assert storage_forms(1, 5_000) == [
        StorageForm(1, 5_000, False),
        StorageForm(1, 5_000, True),
        StorageForm(1, 4_000, True),
        StorageForm(1, 2_000, True),
        StorageForm(1, 1_000, True),
    ]


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TINYLM_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.mark.parametrize(
    ("most", "encoders", "int8"), [("6MB", 2, False), ("600kB", 2, True), ("200kB", 1, True)]
)
def test_the_folder_fits(tmp_path: Path, most: str, encoders: int, int8: bool) -> None:
    texts, labels = labelled(240)
    classifier = tiny(members=2, vocabulary=30_000, max_size=most, recipe=recipe(1, 3)).fit(texts, labels)
    form = classifier.fitted_.form
    assert (form.encoders, form.int8) == (encoders, int8)
    folder = tmp_path / "model"
    classifier.save_pretrained(folder)
    written, limit = size_on_disk(folder), bytes_of_size(most)
    assert written <= limit
    fitted = classifier.fitted_
    configs = [member.config for member in fitted.committee.members[:encoders]]
    assert 2**12 <= form.tfidf_rows < 2**15
    promised = size_of(form, fitted.committee.members[0].tokenizer, configs, 2)
    assert written <= promised < written + 100_000  # an upper bound, but not a wild one
    again = TinyTextClassifier.from_pretrained(folder)
    # What was measured is what was stored: rounding to 8 bits came first.
    assert abs(again.decision_function(texts) - classifier.decision_function(texts)).max() < 1e-4


def test_a_size_nothing_fits_into() -> None:
    with pytest.raises(UserError, match=r"max_size is 20,000 bytes; the smallest .* 2 labels takes \d"):
        tiny(max_size="20kB").fit(*labelled(60))
    with pytest.raises(InputError, match="max_size is 'small'; expected a size"):
        tiny(max_size="small").fit(*labelled(60))
