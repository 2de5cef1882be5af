"""The last step of a fit: a committee teaches one student, or its own members.

It labels texts with its probabilities, which say more than one member knows, and encoders learn these.
"""

from __future__ import annotations

from collections.abc import Sequence

from tinylm.fit.calibrate import Calibrated, calibrate
from tinylm.fit.distill import taught
from tinylm.fit.encode import Encoded
from tinylm.fit.encoders import train_students
from tinylm.fit.member import DISTILLATION, FINETUNING, SELF_TRAINING
from tinylm.fit.tfidf_member import retrain_tfidf
from tinylm.train.finetune import EncodedTask


def distil(teacher: Calibrated, encoded: Encoded, deadline: float | None) -> Calibrated:
    """A student of a committee: its largest encoder, which has not read the validation texts.

    Args:
        teacher: the committee.
        encoded: what it was trained on.
        deadline: when the student must be done.
    """
    task = _labelled_by(teacher, [*encoded.own, *encoded.unlabelled, *encoded.more], encoded)
    students = train_students(task, [teacher.encoders[0].model], DISTILLATION, encoded, deadline)
    return calibrate(students, None, encoded)


def self_train(teacher: Calibrated, arm: str, encoded: Encoded, deadline: float | None) -> Calibrated:
    """The same committee after its members have learned how all together label the texts without labels.

    What one member knows of a text reaches the others that way (docs/recipe.md, "Texts without labels").

    Args:
        teacher: the committee; none of its members has read the validation texts.
        arm: FINETUNING or WITHOUT pre-training.
        encoded: what it was trained on.
        deadline: when all must be done.
    """
    task = _labelled_by(teacher, [*encoded.own, *encoded.unlabelled], encoded)
    tfidf = teacher.tfidf
    if tfidf is not None:
        probabilities = task.train_labels[len(encoded.own) :]
        tfidf = retrain_tfidf(tfidf, encoded, probabilities, teacher.committee.thresholds)
    starts = [encoder.model for encoder in teacher.encoders]
    phase = SELF_TRAINING if arm == FINETUNING else f"{SELF_TRAINING}, {arm}"
    return calibrate(train_students(task, starts, phase, encoded, deadline), tfidf, encoded)


def _labelled_by(teacher: Calibrated, texts: Sequence[str], encoded: Encoded) -> EncodedTask:
    ids = encoded.tokenizer.encode(texts, encoded.configs[0].max_tokens)
    return taught(teacher.committee, texts, ids, encoded.task.test, encoded.task.test_labels)
