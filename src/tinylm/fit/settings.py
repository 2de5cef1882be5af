"""What a fit is given: labelled texts, and how to learn from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tinylm.fit.budget import MONOTONIC, Clock
from tinylm.fit.pretrained import Pretrained
from tinylm.system.processes import LOCAL, Engine
from tinylm.text.tokenizer import HEAD
from tinylm.train.recipes import Recipe


@dataclass(frozen=True)
class LabelledTexts:
    """The texts that a committee learns from.

    Attributes:
        texts: strings of Unicode.
        targets: `int64 [texts]`, or `float32 [texts, labels]` of 0 and 1 for several labels per text.
        label_names: at least two.
        class_weights: `float32 [labels]`, or None for equal ones.
        weights: `float32 [texts]` with a mean of 1, which multiply the loss of each text; None for equal
            ones.
    """

    texts: Sequence[str]
    targets: np.ndarray
    label_names: Sequence[str]
    class_weights: np.ndarray | None = None
    weights: np.ndarray | None = None


@dataclass(frozen=True)
class Settings:
    """How to fit; see `TinyTextClassifier`, whose parameters these are.

    Attributes:
        seconds: the budget; None trains the recipe's epochs.
        pretrained: what all encoders begin with; None pre-trains them.
        compare: also train a committee without pre-training.
        student: distil the committee into one encoder.
        held_out: texts that pre-training must not read, in the corpus or elsewhere.
        begun: reading of `clock` at which the budget began; None for the start of the fit.
        unfinished: folder for what is finished, should the fit be interrupted; None keeps nothing.
        cache: whether pre-trained weights of an earlier fit on the same text are taken from the cache folder,
            and new ones kept there.
        engine: what trains the members.
        clock: returns the time, in all processes that train them.
    """

    corpus: str | None
    unlabelled: Sequence[str]
    recipe: Recipe
    members: int
    tfidf_member: bool
    max_bytes: float | None
    seconds: float | None
    validation: float
    seed: int
    pretrained: Pretrained | None = None
    workers: int | None = None
    compare: bool = False
    student: bool = False
    held_out: Sequence[str] = ()
    begun: float | None = None
    unfinished: Path | None = None
    cache: bool = True
    long_texts: str = HEAD
    engine: Engine = LOCAL
    clock: Clock = MONOTONIC
