"""The encoders of a committee, trained side by side, each until its own deadline."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from tinylm.fit import budget
from tinylm.fit.encode import Encoded
from tinylm.fit.member import (
    DISTILLATION,
    Job,
    TrainedEncoder,
    TrainedMember,
    train_member,
    train_student,
)
from tinylm.fit.settings import Settings
from tinylm.model.config import ModelConfig
from tinylm.model.heads import SequenceClassifier
from tinylm.model.logits import logits_of
from tinylm.system.files import key_of
from tinylm.system.paths import cache_folder, cached
from tinylm.system.processes import run_side_by_side
from tinylm.train.cooccurrence import MOST_TOKENS, token_vectors
from tinylm.train.finetune import EncodedTask

PRETRAINED = "pretrained"  # folder of the cache
KEPT_PRETRAININGS = 60  # there; the oldest are deleted


def train_encoders(encoded: Encoded, deadline: float | None) -> list[TrainedMember]:
    """Pre-train and fine-tune the encoders side by side; all are done at `deadline`, if there is one."""
    settings = encoded.settings
    jobs = [_job(encoded, number, config, encoded.task) for number, config in enumerate(encoded.configs)]
    caches = [_cache(job, encoded) for job in jobs]
    pretrained = all(cache is not None and cache.is_dir() for cache in caches)
    vectors = None if pretrained else _token_vectors(encoded)
    jobs = [
        replace(
            job,
            vectors=vectors,
            everything=encoded.everything,
            class_weights=encoded.labelled.class_weights,
            cache=cache,
            compare=settings.compare,
        )
        for job, cache in zip(jobs, caches, strict=True)
    ]
    ends = iter(deadlines(sum(not job.finished for job in jobs), settings, deadline))
    jobs = [job if job.finished else replace(job, deadline=next(ends)) for job in jobs]
    trained = run_side_by_side(train_member, [(job,) for job in jobs], settings.workers, settings.engine)
    _prune(cache_folder() / PRETRAINED)
    return trained


def train_students(
    task: EncodedTask,
    starts: Sequence[SequenceClassifier],
    phase: str,
    encoded: Encoded,
    deadline: float | None,
) -> list[TrainedEncoder]:
    """Encoders that learn a task from their present weights, side by side; all are done at `deadline`."""
    settings = encoded.settings
    ends = deadlines(len(starts), settings, deadline)
    jobs = [_job(encoded, number, start.config, task) for number, start in enumerate(starts)]
    if phase == DISTILLATION:  # a student of all members is none of them
        jobs = [replace(job, name="student") for job in jobs]
    arguments = [
        (replace(job, deadline=end), start, phase) for job, start, end in zip(jobs, starts, ends, strict=True)
    ]
    found = run_side_by_side(train_student, arguments, settings.workers, settings.engine)
    return [TrainedEncoder(one.model, logits_of(one.model, encoded.task.test)) for one in found]


def _job(encoded: Encoded, number: int, config: ModelConfig, task: EncodedTask) -> Job:
    """What all trainings of one encoder have in common; `number` counts the encoders from 0."""
    settings = encoded.settings
    seed = settings.seed + number
    return Job(
        name=f"member {number + 1}",
        config=config,
        recipe=settings.recipe,
        paragraphs=encoded.paragraphs,
        tokenizer=encoded.tokenizer,
        task=task,
        seed=seed,
        unfinished=_unfinished(encoded, config, seed),
        clock=settings.clock,
    )


def deadlines(
    jobs: int, settings: Settings, deadline: float | None, workers: int | None = None
) -> list[float | None]:
    """When each training must be done, so that all are at `deadline`; by default all side by side."""
    if deadline is None or not jobs:
        return [None] * jobs
    now = settings.clock()
    workers = workers or min(settings.engine.places(settings.workers), jobs)
    return [now + end for end in budget.slots(jobs, workers, max(deadline - now, 0))]


def _token_vectors(encoded: Encoded) -> np.ndarray | None:
    settings = encoded.settings
    window = settings.recipe.neighbour_window
    if window is None:
        return None
    most = budget.affordable(settings.seconds, MOST_TOKENS, budget.VECTOR_TOKENS_PER_SECOND)
    return token_vectors(encoded.paragraphs, encoded.tokenizer, encoded.configs[0].width, window, most)


def _cache(job: Job, encoded: Encoded) -> Path | None:
    """Where the pre-trained weights of one encoder lie, or are kept for another fit.

    The key holds the budget in place of the number of epochs, which follows from the budget and the
    machine's speed.
    """
    if encoded.settings.pretrained is not None:
        return encoded.settings.pretrained.folder
    if not encoded.settings.cache:
        return None
    text = hashlib.sha256(job.paragraphs.ids.tobytes() + job.paragraphs.offsets.tobytes())
    recipe, config = job.recipe.model_dump(), job.config.model_dump()
    key = [text.hexdigest(), job.tokenizer.fingerprint, config, recipe, job.seed]
    time = [encoded.settings.seconds, encoded.form.encoders]
    digest = hashlib.sha256(json.dumps([key, *time]).encode()).hexdigest()
    return cached(f"{PRETRAINED}/{digest[:16]}")


def _unfinished(encoded: Encoded, config: ModelConfig, seed: int) -> Path | None:
    """Where one encoder's finished phases are kept: a folder named by all that determines them."""
    settings, task = encoded.settings, encoded.task
    if settings.unfinished is None:
        return None
    texts = hashlib.sha256()
    for part in (encoded.paragraphs, task.train, task.test):
        texts.update(part.ids.tobytes() + part.offsets.tobytes())
    for array in (task.train_labels, task.test_labels, task.train_weights, encoded.labelled.class_weights):
        texts.update(b"-" if array is None else array.tobytes())
    identity = {
        "texts": texts.hexdigest(),
        "tokenizer": encoded.tokenizer.fingerprint,
        "config": config.model_dump(mode="json"),
        "pretrained": settings.pretrained.fingerprint if settings.pretrained else None,
        "recipe": settings.recipe.model_dump(mode="json"),
        "seed": seed,
        "seconds": settings.seconds,
        "compare": settings.compare,
    }
    return settings.unfinished / key_of(identity)


def _prune(folder: Path) -> None:
    """Delete the oldest pre-trained weights of the cache."""
    found = sorted(folder.glob("*/model.safetensors"), key=lambda file: file.stat().st_mtime)
    for file in found[:-KEPT_PRETRAININGS]:
        for part in file.parent.iterdir():
            part.unlink(missing_ok=True)
        file.parent.rmdir()
