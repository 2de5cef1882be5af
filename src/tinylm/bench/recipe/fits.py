"""What the records of the suite `accuracy` say: tables of whole fits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from tinylm.bench.accuracy import CASES, STUDENT, Split, read_splits
from tinylm.paper.statistics import interval
from tinylm.report.document import Grid
from tinylm.report.format import mean_deviation, number, signed

RECORDS = "accuracy-*.json"
Fits = Mapping[str, Mapping[int, Split]]  # by case and number of the split


def read_fits(folder: Path) -> Fits:
    """The splits of all records in a folder; of a split in two of them, that of the last record by name."""
    found: dict[str, dict[int, Split]] = {}
    for file in sorted(folder.glob(RECORDS)):
        for case, splits in read_splits(file).items():
            found.setdefault(case, {}).update(splits)
    return {case: dict(sorted(found[case].items())) for case in CASES if case in found}


def fits_table(fits: Fits) -> Grid:
    """What fits reached on test rows, beside the linear rivals: means over their splits."""
    chosen = {case: list(fits[case].values()) for case in fits if CASES[case].kind != STUDENT}
    rows = [
        [
            case,
            str(len(splits)),
            mean_deviation(_values(splits, "accuracy")),
            mean_deviation(_values(splits, "linear_svm")),
            _difference(splits, "linear_svm"),
            mean_deviation(_values(splits, "fasttext")),
            number(_encoders(splits)),
            f"{np.mean(_values(splits, 'paragraphs')):,.0f}",
            f"{np.mean(_values(splits, 'seconds')) / 60:.1f}",
            f"{np.mean(_values(splits, 'milliseconds')):.2f}",
        ]
        for case, splits in chosen.items()
    ]
    head = ["case", "splits", "fit", "linear SVM", "difference", "fastText", "an encoder", "W_S"]
    return Grid([*head, "minutes", "ms a text"], rows, _processors(chosen))


def students_table(fits: Fits) -> Grid:
    """What students reached, beside the committee that taught them and the fit without a student."""
    chosen = {case: list(fits[case].values()) for case in fits if CASES[case].kind == STUDENT}
    rows = []
    for case, splits in chosen.items():
        plain = fits.get(case.removesuffix(f"-{STUDENT}"), {})
        same = [plain[number] for number in fits[case] if number in plain]
        rows.append(
            [
                case,
                str(len(splits)),
                mean_deviation(_values(splits, "accuracy")),
                mean_deviation(_values(splits, "teacher")),
                _difference(splits, "teacher"),
                number(_encoders(splits)),
                mean_deviation(_values(same, "accuracy")),
                mean_deviation(_values(splits, "linear_svm")),
                f"{np.mean(_values(splits, 'milliseconds')):.2f}",
                f"{np.mean(_values(splits, 'teacher_milliseconds')):.2f}",
            ]
        )
    head = ["case", "splits", "student", "its committee", "difference", "an encoder", "fit without a student"]
    return Grid([*head, "linear SVM", "ms a text", "of the committee"], rows, _processors(chosen))


def _values(splits: Sequence[Split], name: str) -> np.ndarray:
    return np.array([split[name] for split in splits])


def _difference(splits: Sequence[Split], other: str) -> str:
    """Mean difference to another accuracy on the same splits, with half of Student's 95 % interval."""
    differences = _values(splits, "accuracy") - _values(splits, other)
    found = interval(differences)
    return signed(float(differences.mean())) + (f" ± {found.high - found.mean:.3f}" if found else "")


def _encoders(splits: Sequence[Split]) -> float:
    """Mean accuracy of a committee's encoders: all of its members but the last, the TF-IDF member."""
    return float(np.mean([split["members"][:-1] or split["members"] for split in splits]))


def _processors(chosen: Mapping[str, Sequence[Split]]) -> str:
    """Where the splits were measured."""
    names = dict.fromkeys(split["processor"] for splits in chosen.values() for split in splits)
    if len(names) < 2:
        return "".join(f"Measured on: {name}." for name in names)
    parts = [
        f"{name} ({', '.join(case for case in chosen if any(s['processor'] == name for s in chosen[case]))})"
        for name in names
    ]
    return f"Measured on: {'; '.join(parts)}."
