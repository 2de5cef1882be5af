"""Time: all constants that decide how a budget is spent, and how much training fits into one.

The time of a step is measured: the first steps of a run are timed on a copy that is thrown away.
Then the number of epochs is chosen so that the learning rate reaches zero just before the time is
over. A deadline stops a run that turns out to be slower than measured.

Deadlines are readings of a monotonic clock, which does not jump when the system time is corrected.
All processes of a machine read the same clock. The nodes of a cluster do not: theirs is the system time.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from tinylm.train.loop import Run

Clock = Callable[[], float]  # seconds since some moment; tests pass their own
MONOTONIC: Clock = time.monotonic
SYSTEM: Clock = time.time

# --- The whole command ---
# `tinylm fit` also reads tables, trains the baseline, tests and writes a report: this share of the
# budget, on AG News with 5 minutes. `fit` itself keeps a share for calibration and latency.
REPORT_SHARE = 0.06
CALIBRATION_SHARE = 0.05
STUDENT_SHARE = 0.15  # for distillation, where a student is wanted
# For self-training, where there are texts without labels; each arm of a comparison has half of it.
SELF_TRAINING_SHARE = 0.3

# --- Text ---
# Rows of a corpus per second of the budget, more than pre-training can read once. The minimum is for small
# budgets: a vocabulary needs that much text.
ROWS_PER_SECOND, LEAST_ROWS = 200, 10_000
# Texts that the vocabulary is trained on, of the corpus and as many of the user's own; per second of the
# budget, which takes about a tenth of it. More than 50,000 do not change which tokens are frequent.
VOCABULARY_TEXTS, VOCABULARY_TEXTS_PER_SECOND = 50_000, 150
# Tokens whose neighbours are counted, per second of the budget. That takes about a fifteenth of it.
VECTOR_TOKENS_PER_SECOND = 15_000
# Texts, and texts per second of the budget. They are evaluated after every epoch, and once more to weigh the
# members; more would not choose better.
MOST_VALIDATION, VALIDATION_PER_SECOND = 20_000, 30

# Texts without labels that the members learn from, of those that there are, and texts per second of the
# budget: reading and labelling them takes about a twentieth of it (docs/recipe.md, "Texts without labels").
MOST_SELF_TRAINING, SELF_TRAINING_PER_SECOND = 5_000, 15

# --- TF-IDF member ---
# Work of `train/tfidf.work_of` per second of the budget. That takes about a fifth of it where the task is so
# large that the encoders cannot learn much in the rest: there this is the better member.
TFIDF_WORK_PER_SECOND = 9_000_000
# With fewer validation texts its temperature is fitted on training texts too, by models that were not
# trained on them.
TFIDF_CALIBRATION_TEXTS = 1_000
# An encoder knows its training texts if their loss is below this share of the loss by chance.
LEARNT = 0.9

# --- One encoder ---
# With a budget, the epochs of a recipe are replaced. More than this do not help on small data.
MOST_PRETRAINING, MOST_FINETUNING = 30, 30
# A pre-trained encoder is fine-tuned for its recipe's epochs, and for more, up to MOST_EPOCHS, if those make
# fewer steps than LEAST_STEPS (docs/recipe.md, "Epochs").
LEAST_STEPS, MOST_EPOCHS = 150, 60
# R-Drop reads every text twice. Where less than this part of its epochs fits, the same part of them without
# it is better (docs/recipe.md, "R-Drop or more epochs").
ENOUGH_PART = 0.75
# Its rival without pre-training takes up to MOST_FINETUNING, so that the comparison is fair, and ends after
# PATIENCE epochs without a better score on the validation texts. Fewer of these than LEAST_CHOOSING choose by
# chance: then it takes RIVAL_TIMES as many epochs as the other (docs/recipe.md, "A fair rival on few rows").
PATIENCE, LEAST_CHOOSING, RIVAL_TIMES = 6, 100, 2
# Fine-tuning gets this share of an encoder's time, as far as it can use it; pre-training the rest.
# With a rival without pre-training both share half as much again, fine-tuning at most half of that.
FINETUNING_SHARE, COMPARED_SHARE = 0.4, 0.6
# The second part of pre-training gets this share of it (docs/recipe.md, "Bags of words"), if it takes so
# many seconds: in less, masked language modelling alone learns hardly anything.
BAGS_SHARE, LEAST_FOR_BAGS = 0.5, 40.0

# --- Measuring ---
WARM_UP_STEPS, MOST_STEPS = 3, 50  # steps that are not timed, and that are
LONGEST, LONGEST_SHARE = 2.0, 0.05  # seconds of measuring, and their share of the time
# Epochs are planned for this share of the time, since they are never faster than the measurement.
SLACK = 0.9
# One more pass of pre-training over fewer rows must use at least this part of a pass; less is left unused.
LEAST_PART = 0.25


def affordable(seconds: float | None, most: int, per_second: float) -> int:
    """`per_second` for each second of the budget, at most `most`; without a budget, `most`."""
    return most if seconds is None else min(most, int(per_second * seconds))


def enough_epochs(recipe_epochs: int, n_texts: int, batch_size: int) -> int:
    """Epochs after which a pre-trained encoder is fine-tuned, see LEAST_STEPS."""
    steps_per_epoch = -(-n_texts // batch_size)
    return max(recipe_epochs, min(MOST_EPOCHS, -(-LEAST_STEPS // steps_per_epoch)))


def rival_patience(n_validation: int) -> int | None:
    """Epochs without a better validation score that end a rival without pre-training; None: it takes all."""
    return None if n_validation < LEAST_CHOOSING else PATIENCE


def rival_epochs(enough: int, n_validation: int) -> int:
    """The most epochs of a rival, where so many are enough for the pre-trained encoder."""
    few = rival_patience(n_validation) is None
    return RIVAL_TIMES * enough if few else max(MOST_FINETUNING, enough)


def slots(jobs: int, workers: int, seconds: float) -> list[float]:
    """When each of several equal jobs must end, so that all end within `seconds` of a common start.

    They take the workers in turn, as `run_side_by_side` lets them, and share a worker's time equally.

    Args:
        jobs: how many there are.
        workers: how many run at a time.
        seconds: for all of them.

    Returns:
        For each job the seconds from the start at which it must have ended.
    """
    of_worker = [len(range(worker, jobs, workers)) for worker in range(workers)]
    return [seconds * (job // workers + 1) / of_worker[job % workers] for job in range(jobs)]


def seconds_per_epoch(
    run: Run, n_texts: int, batch_size: int, seconds: float, clock: Clock = MONOTONIC
) -> float:
    """How long one epoch takes, measured on a few steps.

    Args:
        run: one of the kind that will follow; its weights are useless afterwards.
        n_texts: of an epoch.
        batch_size: texts of a step.
        seconds: of which a small part may be spent on measuring.
        clock: what time is read from.
    """
    longest = min(LONGEST, LONGEST_SHARE * seconds)
    for _ in range(WARM_UP_STEPS):
        run.step()
    times = [clock()]
    while len(times) == 1 or (len(times) <= MOST_STEPS and times[-1] - times[0] < longest):
        run.step()
        times.append(clock())
    # The median, since the first batches of a shape wait until its products are compiled.
    return float(np.median(np.diff(times))) * -(-n_texts // batch_size)


def fit_into(
    seconds: float, epoch: float, n_texts: int, most_epochs: int, least_rows: int, seed: int
) -> tuple[int, np.ndarray]:
    """Epochs of fine-tuning, and rows, that a time is enough for: whole ones, since labelled texts are few.

    Args:
        seconds: the time.
        epoch: seconds of an epoch.
        n_texts: of an epoch.
        most_epochs: more are never taken.
        least_rows: fewer are never taken.
        seed: of the choice of rows, where not even one epoch fits.

    Returns:
        The number of epochs, and the rows (`int64`, rising) to take them over.
    """
    left = SLACK * seconds
    kept = n_texts if left >= epoch else max(least_rows, int(n_texts * left / epoch))
    return int(np.clip(left / max(epoch, 1e-9), 1, most_epochs)), drawn_rows(n_texts, kept, seed)


def read_into(
    seconds: float, epoch: float, n_texts: int, most_epochs: int, least_rows: int
) -> tuple[int, int]:
    """Epochs of pre-training, and the number of rows, that fill a time; arguments as of `fit_into`.

    Where 1.6 passes fit, two over 80 % of the rows use the time that one over all would leave.
    """
    passes = SLACK * seconds / max(epoch, 1e-9)
    epochs = int(np.clip(np.ceil(passes - LEAST_PART), 1, most_epochs))
    return epochs, min(n_texts, max(least_rows, int(n_texts * passes / epochs)))


def drawn_rows(n_texts: int, kept: int, seed: int) -> np.ndarray:
    """`kept` rows of `n_texts`, drawn at random: `int64`, rising."""
    return np.sort(np.random.default_rng(seed).permutation(n_texts)[:kept])
