"""What the records of the suite `accuracy` say: tables of whole fits, and accuracy against seconds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from tinylm.bench.accuracy import (
    CASES,
    COMPARED,
    FIT,
    MINUTES,
    PAPER,
    PRETRAINED,
    ROWS,
    ROWS_MINUTES,
    STUDENT,
    TASKS,
    UNLABELLED,
    Split,
    read_splits,
)
from tinylm.paper.statistics import interval
from tinylm.report.document import Grid
from tinylm.report.format import mean_deviation, number, signed
from tinylm.report.plots import Point

RECORDS = "accuracy-*.json"
# Of a task its name and the paper's training rows of each label.
NAMES = {
    "agnews": ("AG News", 1000),
    "dbpedia": ("DBpedia", 100),
    "fewrel-10": ("FewRel-10", 630),
    "fewrel-64": ("FewRel-64", 630),
}
LINEAR, FASTTEXT = "linear_svm", "fasttext"  # rivals, as splits have them
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
            mean_deviation(_values(splits, LINEAR)),
            _difference(splits, LINEAR),
            mean_deviation(_values(splits, FASTTEXT)),
            number(_encoders(splits)),
            f"{np.mean(_values(splits, 'paragraphs')):,.0f}",
            f"{np.mean(_values(splits, 'seconds')) / 60:.1f}",
            f"{np.mean(_values(splits, 'milliseconds')):.2f}",
        ]
        for case, splits in chosen.items()
    ]
    head = ["case", "splits", "fit", "linear SVM", "difference", "fastText", "an encoder", "W_S"]
    return Grid([*head, "minutes", "ms a text"], rows, _machines(chosen))


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
                mean_deviation(_values(splits, LINEAR)),
                f"{np.mean(_values(splits, 'milliseconds')):.2f}",
                f"{np.mean(_values(splits, 'teacher_milliseconds')):.2f}",
            ]
        )
    head = ["case", "splits", "student", "its committee", "difference", "an encoder", "fit without a student"]
    return Grid([*head, "linear SVM", "ms a text", "of the committee"], rows, _machines(chosen))


def minutes_table(fits: Fits) -> Grid:
    """Accuracy on each task after some minutes; the longest times come last."""
    return _tasks_table(fits, {_minutes(minutes): f"{minutes}min" for minutes in MINUTES})


def rows_table(fits: Fits) -> Grid:
    """The same with few training rows of each label."""
    return _times_table(
        fits,
        {
            f"{name}, {rows}": {_minutes(ROWS_MINUTES): f"{task}-{rows}rows"}
            for task, (name, _) in NAMES.items()
            for rows in ROWS
        },
    )


def pretrained_table(fits: Fits) -> Grid:
    """Fits that pre-train, and a short one from a model that was pre-trained before."""
    columns = {_minutes(minutes): f"{minutes}min" for minutes in (1, 5)}
    return _tasks_table(fits, columns | {"from a pre-trained model, 1 minute": f"1min-{PRETRAINED}"})


def unlabelled_table(fits: Fits) -> Grid:
    """Few training rows of each label, with and without texts that have no label: means over equal splits."""
    chosen = {case: fits[case] for case in fits if CASES[case].kind == UNLABELLED}
    rows = []
    for case, splits in chosen.items():
        plain = fits.get(case.removesuffix(f"-{UNLABELLED}"), {})
        both = sorted(set(splits) & set(plain))
        if both:
            ours, without = ([of[number] for number in both] for of in (splits, plain))
            name, _ = NAMES[CASES[case].task]
            cells = [mean_deviation(_values(ours, rival)) for rival in (LINEAR, "self_trained_svm")]
            cells += [mean_deviation(_values(of, "accuracy")) for of in (without, ours)]
            texts = f"{np.mean(_values(ours, 'unlabelled')):,.0f}"
            rows.append([f"{name}, {CASES[case].rows}", str(len(both)), texts, *cells])
    head = ["task, training rows per label", "splits", "texts without labels", "linear SVM", "self-trained"]
    note = _machines({case: list(splits.values()) for case, splits in chosen.items()})
    return Grid([*head, "fit without them", "fit with them"], rows, note)


def compared_table(fits: Fits) -> Grid:
    """The gap of pre-training, of committees with their TF-IDF members and of encoders alone."""
    chosen = {case: list(fits[case].values()) for case in fits if CASES[case].kind == COMPARED}
    rows = []
    for case, splits in chosen.items():
        name, most = NAMES[CASES[case].task]
        encoders, without = (_encoders(splits, members) for members in ("members", "without_members"))
        rows.append(
            [
                f"{name}, {CASES[case].rows or most:,}",
                str(len(splits)),
                mean_deviation(_values(splits, LINEAR)),
                mean_deviation(_values(splits, "accuracy")),
                mean_deviation(_values(splits, "without")),
                _difference(splits, "without"),
                number(encoders),
                number(without),
                signed(encoders - without),
            ]
        )
    head = ["task, training rows per label", "splits", "linear SVM", "fit", "without pre-training", "gap"]
    return Grid([*head, "an encoder", "without pre-training", "gap"], rows, _machines(chosen))


def _minutes(number: int) -> str:
    return f"fit, {number} minute{'s' if number > 1 else ''}"


def _tasks_table(fits: Fits, columns: Mapping[str, str]) -> Grid:
    """`_times_table` with a line for each task; `columns` have what follows its name in that of the case."""
    return _times_table(
        fits,
        {
            f"{name}, {rows:,}": {column: f"{task}-{end}" for column, end in columns.items()}
            for task, (name, rows) in NAMES.items()
        },
    )


def _times_table(fits: Fits, wanted: Mapping[str, Mapping[str, str]]) -> Grid:
    """A line for each of `wanted` (line and column to case) that has fits, and no empty cell.

    Columns are those that all lines have. The figures of a line are of the same splits, those that its fits
    have in common.
    """
    measured = {
        line: {column: fits[case] for column, case in cases.items() if case in fits}
        for line, cases in wanted.items()
    }
    measured = {line: found for line, found in measured.items() if found}
    columns = list(dict.fromkeys(column for cases in wanted.values() for column in cases))
    columns = [column for column in columns if all(column in found for found in measured.values())]
    rows = []
    for line, found in measured.items() if columns else ():
        common = sorted(set.intersection(*(set(found[column]) for column in columns)))
        if common:
            beside = [found[columns[0]][number] for number in common]
            rivals = [mean_deviation(_values(beside, rival)) for rival in (LINEAR, FASTTEXT)]
            own = [[found[column][number] for number in common] for column in columns]
            reached = [mean_deviation(_values(splits, "accuracy")) for splits in own]
            rows.append([line, str(len(common)), *rivals, *reached])
    head = ["task, training rows per label", "splits", "linear SVM", "fastText"]
    shown = {wanted[line][column]: found[column] for line, found in measured.items() for column in columns}
    note = _machines({case: list(splits.values()) for case, splits in shown.items()})
    return Grid([*head, *columns], rows, note)


def points(fits: Fits) -> dict[str, dict[str, list[Point]]]:
    """Accuracy against seconds, by task and by what was trained: FIT, PAPER and the rivals.

    All accuracies of a task are for the same splits, all that any of its fits has: where one was not measured
    on some of them, its accuracy is that of the linear SVM plus its mean difference to it where it was. The
    deviation is that of this difference. Nothing is given where nothing was measured.
    """
    found: dict[str, dict[str, list[Point]]] = {}
    for task in TASKS:
        series = {
            kind: [
                list(fits[case].values())
                for case in fits
                if (CASES[case].task, CASES[case].kind, CASES[case].rows) == (task, kind, None)
            ]
            for kind in (FIT, PAPER)
        }
        # The rivals are the same in all fits of a split, but for the seconds, which older records lack.
        rivals: dict[int, Split] = {}
        for splits in [splits for every in series.values() for splits in every]:
            for split in splits:
                rivals[split["seed"]] = rivals.get(split["seed"], {}) | split
        if not rivals:
            continue
        level = float(np.mean(_values(list(rivals.values()), LINEAR)))

        def point(splits: Sequence[Split], accuracy: str, seconds: str, level: float = level) -> Point:
            ahead = _values(splits, accuracy) - _values(splits, LINEAR)
            deviation = float(np.std(ahead, ddof=1)) if len(ahead) > 1 else 0.0
            return Point(float(np.mean(_values(splits, seconds))), level + float(np.mean(ahead)), deviation)

        found[task] = {
            kind: [point(splits, "accuracy", "seconds") for splits in series[kind]] for kind in series
        }
        for rival in (LINEAR, FASTTEXT):
            timed = [split for split in rivals.values() if f"{rival}_seconds" in split]
            found[task][rival] = [point(timed, rival, f"{rival}_seconds")] if timed else []
    return found


def _values(splits: Sequence[Split], name: str) -> np.ndarray:
    return np.array([split[name] for split in splits])


def _difference(splits: Sequence[Split], other: str) -> str:
    """Mean difference to another accuracy on the same splits, with half of Student's 95 % interval."""
    differences = _values(splits, "accuracy") - _values(splits, other)
    found = interval(differences)
    return signed(float(differences.mean())) + (f" ± {found.high - found.mean:.3f}" if found else "")


def _encoders(splits: Sequence[Split], members: str = "members") -> float:
    """Mean accuracy of a committee's encoders: all of its members but the last, the TF-IDF member."""
    return float(np.mean([split[members][:-1] or split[members] for split in splits]))


def _machines(chosen: Mapping[str, Sequence[Split]]) -> str:
    """Where the splits were measured; with several machines, which cases were measured on each."""
    cases: dict[str, list[str]] = {}
    for case, splits in chosen.items():
        for machine in dict.fromkeys(f"{split['cores']} cores of {split['processor']}" for split in splits):
            cases.setdefault(machine, []).append(case)
    if len(cases) == 1:
        return f"Measured on {next(iter(cases))}."
    return " ".join(
        f"Measured on {machine}: {', '.join(_together(names, list(chosen)))}."
        for machine, names in cases.items()
    )


def _together(names: Sequence[str], cases: Sequence[str]) -> list[str]:
    """Names of cases; for all tasks of a kind, if they are among them, one name such as `*-1min`."""
    kinds = {case: case.removeprefix(CASES[case].task) for case in cases}
    found = []
    for name in names:
        alike = {case for case in cases if kinds[case] == kinds[name]}
        found.append(f"`*{kinds[name]}`" if len(alike) > 1 and alike <= set(names) else f"`{name}`")
    return list(dict.fromkeys(found))
