"""Small tables and quick estimators."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from helpers.inputs import WORDS
from tinylm import TinyTextClassifier
from tinylm.fit.settings import LabelledTexts, Settings
from tinylm.train.loop import Run
from tinylm.train.recipes import RECIPES, Recipe

NOUNS = {topic: words.split() for topic, words in WORDS.items()}


def recipe(pretrain: int = 1, finetune: int = 5) -> Recipe:
    fast = RECIPES["fast"].with_epochs(pretrain=pretrain, finetune=finetune, learning_rate=3e-3)
    phase = fast.pretrain.model_copy(update={"batch_size": 32})
    return fast.model_copy(update={"vocabulary": 300, "max_tokens": 24, "pretrain": phase})


def tiny(**parameters: Any) -> TinyTextClassifier:
    settings = {"corpus": None, "recipe": recipe(), "members": 1, "budget": None, "n_jobs": 1}
    return TinyTextClassifier(**(settings | {"random_state": 0} | parameters))


def settings(**changes: Any) -> Settings:
    """Those of a fit of one encoder, below the estimator."""
    base = {"corpus": None, "unlabelled": [], "recipe": recipe(), "members": 1, "tfidf_member": False}
    base |= {"max_bytes": None, "seconds": None, "validation": 0.1, "seed": 0, "workers": 1}
    return Settings(**(base | changes))


def sentence(topic: str, chance: random.Random) -> str:
    subject, thing = chance.choices(NOUNS[topic], k=2)
    return f"the {subject} meets the {thing}"


def labelled(
    count: int, topics: tuple[str, ...] = ("farm", "sea"), seed: int = 0
) -> tuple[list[str], list[str]]:
    chance = random.Random(seed)
    labels = [topics[i % len(topics)] for i in range(count)]
    return [sentence(label, chance) for label in labels], labels


def labelled_texts(count: int) -> LabelledTexts:
    """What `labelled` returns, below the estimator."""
    texts, labels = labelled(count)
    return LabelledTexts(texts, np.array([label == "sea" for label in labels], np.int64), ["farm", "sea"])


def several_labels(count: int, seed: int = 0) -> tuple[list[str], list[list[str]]]:
    chance = random.Random(seed)
    topics = [sorted(chance.sample(sorted(NOUNS), chance.choice((0, 1, 2)))) for _ in range(count)]
    return [" ".join(["it is", *(sentence(topic, chance) for topic in row)]) for row in topics], topics


class FakeClock:
    """A clock on which time passes only with the steps of `work_takes`."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.steps: list[Run] = []  # the run of each step

    def __call__(self) -> float:
        return self.now

    def work_takes(
        self, patch: pytest.MonkeyPatch, seconds: Callable[[Run], float], *, learn: bool = False
    ) -> None:
        """Let every training step take `seconds(run)`; without `learn` it does nothing else."""
        step = Run.start_step

        def timed(run: Run) -> Tensor:
            self.now += seconds(run)
            self.steps.append(run)
            if learn:
                return step(run)
            run.state.step += 1
            return torch.ones(())

        patch.setattr(Run, "start_step", timed)
