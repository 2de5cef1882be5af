"""Small tables and quick estimators."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from helpers.inputs import WORDS
from tinylm import TinyTextClassifier
from tinylm.fit import member
from tinylm.fit.budget import PATIENCE
from tinylm.fit.early_stopping import Finetuning
from tinylm.fit.settings import LabelledTexts, Settings
from tinylm.train.finetune import EncodedTask, Start
from tinylm.train.loop import Run
from tinylm.train.recipes import RECIPES, Recipe

NOUNS = {topic: words.split() for topic, words in WORDS.items()}


def recipe(pretrain: int = 1, finetune: int = 5) -> Recipe:
    fast = RECIPES["fast"].with_epochs(
        pretrain=pretrain, bag_of_words=1, finetune=finetune, learning_rate=3e-3
    )
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


@dataclass
class Watched:
    """A fine-tuning: what it was given, and what came of it unless it was interrupted."""

    task: EncodedTask
    start: Start
    recipe: Recipe
    label: str
    patience: int | None
    found: Finetuning | None = None


def watch_finetunings(patch: pytest.MonkeyPatch, dies_at: int | None = None) -> list[Watched]:
    """All fine-tunings of encoders from now on; that of the number `dies_at`, from 1, is interrupted."""
    seen: list[Watched] = []
    work = member.finetune_until_best

    def watched(task: EncodedTask, tokenizer: Any, start: Any, used: Recipe, **options: Any) -> Finetuning:
        one = Watched(task, start, used, options["label"], options.get("patience", PATIENCE))
        seen.append(one)
        if len(seen) == dies_at:
            raise KeyboardInterrupt
        one.found = work(task, tokenizer, start, used, **options)
        return one.found

    patch.setattr(member, "finetune_until_best", watched)
    return seen


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
