"""`tinylm fit`: fit a `TinyTextClassifier`, evaluate it on test texts, and write model, card and report.

Training, the choice of epochs and calibration use only training and validation texts. The test texts
are evaluated once, at the end.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tinylm.errors import UserError
from tinylm.export import hub
from tinylm.fit.budget import MONOTONIC, REPORT_SHARE
from tinylm.fit.estimator import TinyTextClassifier
from tinylm.fit.resume import Unfinished
from tinylm.infer.baselines import linear_svm_score, linear_svm_seconds
from tinylm.infer.evaluation import evaluate
from tinylm.report.fit import FitResults, write_fit_report
from tinylm.system.files import write_record
from tinylm.system.progress import progress_log
from tinylm.system.units import seconds_of
from tinylm.text.labelled import Labelled, targets_of
from tinylm.text.tasks import split_off, without_copies

RIVAL_SHARE = 0.25  # of the budget, which the linear SVM may take


@progress_log()
def fit_and_report(
    classifier: TinyTextClassifier,
    labelled: Labelled,
    tested: Labelled | None,
    test_share: float,
    folder: Path,
    *,
    name: str,
    sources: tuple[str, str | None],
    compare: bool,
    settings: dict[str, Any],
    unfinished: Unfinished | None = None,
    tell: Callable[[str], None] = lambda sentence: None,
) -> FitResults:
    """Fit, test, and write the model, its card and `report.html` into an existing, empty folder.

    Args:
        classifier: not fitted; its budget is for all of this.
        labelled: the training texts.
        tested: the test texts; None splits `test_share` of the training texts off, label by label.
        test_share: see `tested`.
        folder: where to.
        name: its name in card and report.
        sources: where the texts come from, for messages.
        compare: also train without pre-training.
        settings: for the record.
        unfinished: where to keep what is finished, should this be interrupted; the time that an earlier
            attempt took counts towards the budget.
        tell: called with sentences on what was read, before the training.
    """
    begin = MONOTONIC() - (unfinished.seconds if unfinished else 0.0)
    classifier.check_parameters()
    seed = classifier.random_state if isinstance(classifier.random_state, int) else 0
    train, test = _parts(labelled, tested, test_share, seed)
    for table in [labelled] if tested is None else [train, test]:
        tell(table.in_words())
    label_names = [str(name) for name in train.names]
    targets, test_targets = targets_of(train, train.names), targets_of(test, train.names)
    # First: its time is known then, and the encoders get the rest.
    baseline, left_out = None, []
    if len(label_names) < 2:
        raise UserError(
            f"{labelled.source} has one label, {label_names[0]!r}; expected at least two to choose from."
        )
    limit = None if classifier.budget is None else RIVAL_SHARE * seconds_of(classifier.budget)
    if limit is not None and linear_svm_seconds(train.texts, len(label_names)) > limit:
        left_out.append("The linear SVM is not shown: to train it would take too much of the budget.")
    else:
        baseline = linear_svm_score(train.texts, targets, test.texts, test_targets)
    with warnings.catch_warnings(action="ignore", category=UserWarning):  # the report has them too
        classifier.fit_for_report(
            train.texts,
            train.labels,
            compare=compare,
            share=1 - REPORT_SHARE,
            begun=begin,
            unfinished=unfinished.folder if unfinished else None,
            held_out=test.texts,
        )
    fitted, committee = classifier.fitted_, classifier.committee_
    found = evaluate(committee, test.texts, test_targets)
    taught = fitted.teacher or committee  # the committee of all members
    unusable = Counter(train.unusable) + Counter(tested.unusable if tested else {})
    results = FitResults(
        name=name,
        sources=sources,
        label_names=label_names,
        train_counts=_counts(targets, len(label_names)),
        test_counts=_counts(test_targets, len(label_names)),
        lengths=np.array([len(text.split()) for text in train.texts]),
        data_warnings=[
            *(f"{count:,} rows left out: {reason}." for reason, count in unusable.items()),
            *left_out,
            *classifier.data_warnings_,
        ],
        fitted=fitted,
        test=found,
        member_accuracies={
            _member_name(number, member.config.is_encoder): _accuracy(logits, test_targets)
            for number, (member, logits) in enumerate(
                zip(taught.members, taught.member_logits(test.texts), strict=True), 1
            )
        },
        teacher=evaluate(fitted.teacher, test.texts, test_targets) if fitted.teacher else None,
        without=evaluate(fitted.without, test.texts, test_targets) if fitted.without else None,
        linear_svm=baseline,
        seconds=MONOTONIC() - begin,
        budget=classifier.budget,
    )
    columns = settings.get("text") or ["text"]
    facts = classifier.facts_ | {
        "source": sources[0],
        "text_columns": [columns] if isinstance(columns, str) else columns,
        "test": found.summary(),
        "without_pretraining": results.without.accuracy if results.without else None,
        "linear_svm": results.linear_svm.accuracy if results.linear_svm else None,
        "seconds": results.seconds,
    }
    hub.write(committee, facts, folder, name)
    write_fit_report(results, folder / "report.html")
    write_record(folder, "committee", settings=settings, facts=facts, test=found.summary())
    return results


def _parts(
    labelled: Labelled, tested: Labelled | None, test_share: float, seed: int
) -> tuple[Labelled, Labelled]:
    """Training and test texts, without a text that is in both; refuses what cannot be evaluated later."""
    if tested is None:
        train, test = split_off(labelled, test_share, seed)
        if not test.texts:
            raise UserError(
                f"{labelled.source} has too few texts to split test texts off; give others as `tested`."
            )
        return train, test
    if labelled.several != tested.several:
        raise UserError(
            f"{tested.source} has {'several labels' if tested.several else 'one label'} per text and"
            f" {labelled.source} has not; expected the same in both."
        )
    targets_of(tested, labelled.names)  # refuses a label that no training text has
    train = without_copies(labelled, tested.texts)
    if lost := [name for name in labelled.names if name not in train.names]:
        raise UserError(
            f"all texts of {labelled.source} with the label {str(lost[0])!r} are in {tested.source}, too;"
            " expected other texts to learn from than to test on."
        )
    return train, tested


def _counts(targets: np.ndarray, n_labels: int) -> np.ndarray:
    if targets.ndim == 2:
        return np.asarray(targets.sum(0), np.int64)
    return np.bincount(targets, minlength=n_labels)


def _member_name(number: int, is_encoder: bool) -> str:
    return f"member {number}" if is_encoder else "TF-IDF member"


def _accuracy(logits: np.ndarray, targets: np.ndarray) -> float:
    """Accuracy of one member; with several labels per text, at probabilities of one half."""
    if targets.ndim == 2:
        return float(((logits > 0) == (targets > 0)).all(1).mean())
    return float(np.mean(logits.argmax(1) == targets))
