"""From labelled texts to a calibrated committee, within a time.

What `TinyTextClassifier` does, without scikit-learn's conventions, in five steps: split the labelled
texts, collect and encode the text, train the members side by side, calibrate them on the validation
part, let them teach: one student if that is wanted, or themselves where there are texts without labels.

The test part of a cross-validation is not passed in, so nothing here sees it. The validation part is
kept out of pre-training too.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tinylm.fit import budget
from tinylm.fit.calibrate import calibrate, expected_share
from tinylm.fit.encode import encode, split_labelled
from tinylm.fit.encoders import deadlines, train_encoders
from tinylm.fit.member import FINETUNING, WITHOUT, History
from tinylm.fit.settings import LabelledTexts, Settings
from tinylm.fit.size import StorageForm
from tinylm.fit.teach import distil, self_train
from tinylm.fit.tfidf_member import fit_tfidf
from tinylm.infer.committee import Committee
from tinylm.infer.evaluation import Evaluation, evaluate
from tinylm.infer.latency import Latency, measure_latency
from tinylm.system.processes import LOCAL, start_loading
from tinylm.system.progress import progress_log
from tinylm.text.coverage import Coverage
from tinylm.text.tasks import Split

LATENCY_TEXTS = 50


@dataclass(frozen=True)
class Fitted:
    """A trained committee and how it was trained.

    Attributes:
        committee: calibrated, with thresholds where a text has several labels; of the student alone where
            one was trained.
        teacher: the committee that the student learnt from; None without a student.
        self_taught: texts without labels that the committee labelled itself, for its members to learn from.
        without: the committee without pre-training; None without `compare`.
        histories: of its encoders, in the committee's order.
        form: what it is stored as.
        split: which labelled texts were validation texts.
        pretrained: what the encoders began with; None if they were pre-trained here.
        corpus, coverage, kept_out, cut: as in `Encoded`.
        validation: on the validation texts, by members that had not learnt from them; None without any.
        latency: of one text on one thread.
        all_members_latency: the same of the teacher where there is one, else of the committee.
        seconds: of everything.
    """

    committee: Committee
    teacher: Committee | None
    self_taught: int
    without: Committee | None
    histories: list[History]
    form: StorageForm
    split: Split
    pretrained: Path | None
    corpus: dict[str, Any]
    coverage: Coverage | None
    kept_out: int
    cut: int
    validation: Evaluation | None
    latency: Latency
    all_members_latency: Latency
    seconds: float

    def facts(self) -> dict[str, Any]:
        """The facts for a record and the model card, in a form that JSON can hold; no texts."""
        members, readers = self.committee.members, self.committee.readers
        return {
            "members": self.committee.member_names,
            "multi_label": self.committee.thresholds is not None,
            "max_tokens": readers[0].config.max_tokens,
            "encoders": len(readers),
            "int8": self.form.int8,
            "parameters": sum(member.parameters for member in members),
            "labelled_texts": len(self.split.train) + len(self.split.validation),
            "self_taught_texts": self.self_taught,
            "validation_texts": len(self.split.validation),
            "pretrained": self.pretrained and self.pretrained.name,
            "corpus": self.corpus,
            "coverage": self.coverage and asdict(self.coverage),
            "validation": self.validation.summary() if self.validation else None,
            "latency": asdict(self.latency),
            "seconds": self.seconds,
            "test": None,
            "without_pretraining": None,
            "linear_svm": None,
        }


@progress_log()
def fit_committee(labelled: LabelledTexts, settings: Settings) -> Fitted:
    """Train a committee on labelled texts.

    Raises:
        UserError: no text for pre-training, a damaged corpus, a loss that is not a number.
    """
    begin = settings.clock()
    if settings.engine is LOCAL and min(settings.members, LOCAL.places(settings.workers)) > 1:
        start_loading()  # the members' processes, while this one reads
    split = split_labelled(labelled, settings)
    encoded = encode(labelled, split, settings)
    tfidf = fit_tfidf(encoded)
    self_training = bool(encoded.unlabelled) and not settings.student
    deadline = encoders_end = None
    if settings.seconds is not None:
        begun = begin if settings.begun is None else settings.begun
        deadline = begun + (1 - budget.CALIBRATION_SHARE) * settings.seconds
        share = budget.STUDENT_SHARE if settings.student else self_training * budget.SELF_TRAINING_SHARE
        encoders_end = deadline - share * settings.seconds
    members = train_encoders(encoded, encoders_end)
    arms = {FINETUNING: [member.encoder for member in members]}
    if settings.compare:
        arms[WITHOUT] = [member.without for member in members if member.without is not None]
    calibrated = {
        arm: calibrate(encoders, tfidf, encoded, expected_share(arm, encoded))
        for arm, encoders in arms.items()
    }
    teacher = None
    if settings.student:
        teacher = calibrated[FINETUNING].committee
        calibrated[FINETUNING] = distil(calibrated[FINETUNING], encoded, deadline)
    elif self_training:
        ends = deadlines(len(arms), settings, deadline, workers=1)
        for arm, end in zip(arms, ends, strict=True):
            calibrated[arm] = self_train(calibrated[arm], arm, encoded, end)
    ours = calibrated[FINETUNING]
    committee = ours.committee
    without = calibrated[WITHOUT].committee if settings.compare else None
    rows = split.validation
    validation = None
    if len(rows):
        texts = [labelled.texts[i] for i in rows.tolist()]
        validation = evaluate(committee, texts, labelled.targets[rows], ours.validation_logits)
    predictors = [committee] if teacher is None else [committee, teacher]
    latencies = measure_latency([each.predict for each in predictors], labelled.texts[:LATENCY_TEXTS])
    return Fitted(
        committee,
        teacher,
        len(encoded.unlabelled) if self_training else 0,
        without,
        [member.history for member in members],
        encoded.form,
        split,
        settings.pretrained.folder if settings.pretrained else None,
        encoded.corpus,
        encoded.coverage,
        encoded.kept_out,
        encoded.cut,
        validation,
        latencies[0],
        latencies[-1],
        settings.clock() - begin,
    )
