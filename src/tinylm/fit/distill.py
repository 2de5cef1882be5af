"""Distillation: one encoder, the student, learns to predict as a whole committee does (Hinton et al. 2015).

It learns the committee's probabilities in place of labels. They say more of a text than its label does, and
texts without labels have them, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tinylm.errors import UserError
from tinylm.fit.budget import enough_epochs
from tinylm.fit.early_stopping import finetune_until_best
from tinylm.fit.member import DISTILLATION, loss_of
from tinylm.infer.classifier import Classifier
from tinylm.infer.committee import Committee
from tinylm.infer.predictor import Predictor, decide
from tinylm.model.huggingface import module_of
from tinylm.model.storage import StoredClassifier
from tinylm.system.progress import progress_log
from tinylm.text.store import TokenIds
from tinylm.train.finetune import EncodedTask
from tinylm.train.recipes import Recipe

# Share, and number, of the texts on which student and committee are compared.
HELD_OUT, MOST_HELD_OUT = 0.1, 2_000
LEAST_TEXTS = 10
# Texts of a corpus that a student also learns from, or as many as the user's own where those are more. Five
# thousand openings of Wikipedia articles raised its accuracy on validation rows by 0.002 (AG News) and 0.006
# (16 relations of FewRel), where it is 0.004 and 0.015 below its committee (docs/recipe.md).
CORPUS_TEXTS = 5_000


@dataclass(frozen=True)
class Distilled:
    """A student and how well it follows its committee.

    Attributes:
        student: a committee of one.
        agreement: share of the held-out texts on which both decide alike; where a text may have several
            labels, of texts times labels.
        held_out: number of these texts.
        learnt: number of the others.
    """

    student: Committee
    agreement: float
    held_out: int
    learnt: int


@progress_log()
def distill(
    committee: Committee, texts: Sequence[str], recipe: Recipe, *, seed: int, more: Sequence[str] = ()
) -> Distilled:
    """Train the widest encoder of a committee further, until it predicts as all members do together.

    Args:
        committee: the teacher.
        texts: labels are not needed; the committee's training texts are as good as others, and more are
            better.
        recipe: its `finetune` phase; few texts get more epochs.
        seed: of what is held out, of order and dropout.
        more: texts of another kind, such as those of a corpus, of which none is held out.

    Raises:
        UserError: fewer than ten different texts.
    """
    texts = list(dict.fromkeys(texts))
    if len(texts) < LEAST_TEXTS:
        raise UserError(f"there are {len(texts)} different texts; distillation needs at least {LEAST_TEXTS}.")
    encoder = max(committee.readers, key=lambda reader: reader.parameters)
    order = np.random.default_rng(seed).permutation(len(texts)).tolist()
    count = min(MOST_HELD_OUT, round(HELD_OUT * len(texts)))
    held_out, learnt = ([texts[row] for row in rows] for rows in (order[:count], order[count:]))
    learnt += more
    decisions = decide(committee.predict_proba(held_out), committee.thresholds)
    tokenizer, most = encoder.tokenizer, encoder.config.max_tokens
    task = taught(
        committee,
        learnt,
        tokenizer.encode(learnt, most),
        tokenizer.encode(held_out, most),
        decisions.astype(np.float32) if committee.multi_label else decisions.argmax(1),
    )
    epochs = enough_epochs(recipe.finetune.epochs, len(learnt), recipe.finetune.batch_size)
    found = finetune_until_best(
        task,
        tokenizer,
        module_of(StoredClassifier(encoder.config, encoder.weights, encoder.label_names)),
        recipe.with_epochs(finetune=epochs),
        seed=seed,
        label=DISTILLATION,
        loss=loss_of(task),
    )
    student = Committee(
        [Classifier.of(found.model, tokenizer, committee.label_names)],
        thresholds=committee.thresholds,
        token_counts=committee.token_counts if encoder is committee.readers[0] else None,
    )
    return Distilled(student, found.log.scores[found.log.kept - 1], len(held_out), len(learnt))


def taught(
    committee: Predictor, texts: Sequence[str], ids: TokenIds, test: TokenIds, test_targets: np.ndarray
) -> EncodedTask:
    """The task of a student.

    Args:
        committee: whose probabilities take the place of labels, `float32 [texts, labels]`.
        texts: that it learns from.
        ids: the same, as the student reads them.
        test: texts that choose the epoch.
        test_targets: their labels, as in `EncodedTask`.
    """
    probabilities = committee.predict_proba(texts)
    return EncodedTask(ids, probabilities, test, test_targets, probabilities.shape[1])
