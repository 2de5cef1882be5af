"""From labelled texts to a calibrated committee, within a time.

The way of `TinyTextClassifier` without scikit-learn's manners: split, collect the text for
pre-training, train the members side by side, choose temperature and thresholds on the
validation part. Texts that are not given here, such as the test part of a cross-validation,
are never seen; the validation part is kept out of pre-training too.
"""

from __future__ import annotations

import copy
import hashlib
import itertools
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tinylm.errors import UserError
from tinylm.fit.budget import slots
from tinylm.fit.member import Job, Member, train_member
from tinylm.fit.size import StorageForm, size_of, storage_forms
from tinylm.infer.calibration import fit_temperature, fit_thresholds
from tinylm.infer.classifier import Classifier
from tinylm.infer.committee import Committee
from tinylm.infer.evaluation import Evaluation, evaluate
from tinylm.infer.latency import Latency, measure_latency
from tinylm.model.config import ModelConfig
from tinylm.model.heads import SequenceClassifier
from tinylm.model.logits import logits_of
from tinylm.model.tfidf import TfidfClassifier
from tinylm.ops.quantize import round_weights
from tinylm.system.cores import cores
from tinylm.system.paths import cache_folder
from tinylm.system.processes import run_side_by_side, threads
from tinylm.text.corpus import open_corpus
from tinylm.text.coverage import Coverage, coverage, token_counts
from tinylm.text.prepare import held_out_titles
from tinylm.text.store import TokenIds
from tinylm.text.tables import why_unusable
from tinylm.text.tasks import Split, split_rows
from tinylm.text.tokenizer import BERT, Tokenizer, load_tokenizer, train_tokenizer
from tinylm.train.cooccurrence import MOST_TOKENS, token_vectors
from tinylm.train.finetune import EncodedTask
from tinylm.train.recipes import Recipe
from tinylm.train.tfidf import MOST_WORK, train_tfidf

# Heads of the encoders in turn. On a few thousand texts wider ones are no better, and two workers
# get the same load. All have one block: the paper's committee is one of shallow models.
HEADS = (1, 2, 1)
# Corpus texts are read to this length; the masked language model sees the first `max_tokens` of
# them, the vectors that it begins from are taken from all.
CORPUS_TOKENS = 512
# Rows of a corpus that a second of the budget can be expected to read once, and at least so many.
ROWS_PER_SECOND, LEAST_ROWS = 400, 20_000
# Training texts times labels that a second of the budget allows the linear member, a tenth of it.
LINEAR_WORK_PER_SECOND = 2_800
# Tokens whose neighbours are counted for a second of the budget, again about a tenth of it.
VECTOR_TOKENS_PER_SECOND = 40_000
MOST_VALIDATION = 20_000  # texts: more would not choose better, and are asked after every epoch
VOCABULARY_TEXTS = 50_000  # more do not change which tokens are frequent
RESERVE = 0.05  # of the budget, for what comes after the training
LATENCY_TEXTS = 50
KEPT_PRETRAININGS = 60  # in the cache folder; the oldest go


@dataclass(frozen=True)
class Settings:
    """How to fit; see `TinyTextClassifier`, whose parameters these are."""

    corpus: str | None
    unlabelled: Sequence[str]
    recipe: Recipe
    members: int
    linear: bool
    max_bytes: float | None
    seconds: float | None
    validation: float
    seed: int
    workers: int | None = None
    compare: bool = False

    def affordable(self, most: int, per_second: float) -> int:
        """At most `most`, and as much as the budget allows."""
        return most if self.seconds is None else min(most, int(per_second * self.seconds))


@dataclass(frozen=True)
class Fitted:
    """A trained committee and how it came about.

    Attributes:
        committee: calibrated, with thresholds where a text has several labels.
        form: what it is stored as.
        members: the histories of its encoders, in the committee's order.
        without: the committee that was not pre-trained, where it was asked for.
        split: which labelled texts were validation texts.
        corpus: name, fingerprint, licence and number of rows of the corpus; empty without one.
        coverage: of the labelled texts by those of pre-training (W_S, T_W, T_C, T_M).
        validation: on the validation texts, which chose the epoch; None where there are none.
        latency: of one text on one thread.
        seconds: of everything.
    """

    committee: Committee
    form: StorageForm
    members: list[Member]
    without: Committee | None
    split: Split
    corpus: dict[str, Any]
    coverage: Coverage
    validation: Evaluation | None
    latency: Latency
    seconds: float

    def facts(self) -> dict[str, Any]:
        """What a record and the model card tell, in a form that JSON can hold; no texts."""
        members = self.committee.members
        return {
            "members": [member.model.config.name for member in members],
            "multi_label": self.committee.thresholds is not None,
            "max_tokens": members[0].model.config.max_tokens,
            "encoders": self.form.encoders,
            "int8": self.form.int8,
            "parameters": sum(w.numel() for member in members for w in member.model.parameters()),
            "labelled_texts": len(self.split.train) + len(self.split.validation),
            "validation_texts": len(self.split.validation),
            "corpus": self.corpus,
            "coverage": asdict(self.coverage),
            "validation": self.validation.summary() if self.validation else None,
            "latency": asdict(self.latency),
            "seconds": self.seconds,
            "test": None,
            "tfidf": None,
        }


def fit_committee(
    texts: Sequence[str],
    targets: np.ndarray,
    label_names: Sequence[str],
    class_weights: np.ndarray | None,
    settings: Settings,
) -> Fitted:
    """Train a committee on labelled texts.

    Args:
        texts: strings of Unicode.
        targets: `int64 [texts]`, or `float32 [texts, labels]` of 0 and 1 for several labels per text.
        label_names: at least two.
        class_weights: `float32 [labels]`, or None for equal ones.
        settings: everything else.

    Raises:
        UserError: no text for pre-training, a damaged corpus, a loss that is no number.
    """
    begin = time.time()
    share = min(settings.validation, MOST_VALIDATION / len(texts))
    split = split_rows(texts, targets, share, settings.seed)
    own = [texts[i] for i in split.train.tolist()] + list(settings.unlabelled)
    own = [text for text in own if not why_unusable(text)]
    articles, corpus = _corpus_texts(settings)
    tokenizer, form = _tokenizer_and_form(articles, own, len(label_names), settings)
    max_tokens = settings.recipe.max_tokens
    # dict: a text that is there twice, as an unlabelled copy of a labelled one, counts once.
    paragraphs = tokenizer.encode(list(dict.fromkeys(articles + own)), max(CORPUS_TOKENS, max_tokens))
    paragraphs = paragraphs.take(np.flatnonzero(paragraphs.lengths > 2))
    if not len(paragraphs):
        raise UserError("there is no text to pre-train on: the texts hold no token and there is no corpus.")
    encoded = tokenizer.encode(texts, max_tokens)
    labelled = EncodedTask(
        encoded.take(split.train),
        targets[split.train],
        encoded.take(split.validation),
        targets[split.validation],
        len(label_names),
    )
    linear = []
    if form.linear:
        most = settings.affordable(MOST_WORK, LINEAR_WORK_PER_SECOND)
        linear = [train_tfidf(labelled, tokenizer, max_tokens, class_weights, settings.seed, most)]
    jobs = _jobs(settings, form, paragraphs, tokenizer, labelled, class_weights, begin)
    members = run_side_by_side(train_member, [(job,) for job in jobs], settings.workers)
    _prune(_pretrained_folder())

    def committee(models: Sequence[Any]) -> Committee:
        if form.int8:  # what is measured is what will be stored
            for model in models:
                round_weights(model)
        made = Committee([Classifier(model, tokenizer, label_names) for model in models])
        field = np.zeros(0)
        if len(labelled.test):
            fields = np.stack([logits_of(model, labelled.test) for model in models])
            for model, own_field in zip(models, fields, strict=True):
                own_field /= _cool(model, own_field, labelled.test_labels)
            field = fields.sum(0)
        made.temperature = fit_temperature(field, labelled.test_labels)
        if targets.ndim == 2:
            made.thresholds = (
                fit_thresholds(field, labelled.test_labels, made.temperature)
                if len(field)
                else np.full(len(label_names), 0.5)
            )
        made.token_counts = token_counts(paragraphs, len(tokenizer))
        return made

    without = [member.without[0] for member in members if member.without]
    made = committee([member.model for member in members] + linear)
    rows = split.validation
    with threads(1):  # models this small answer fastest on one
        (latency,) = measure_latency([made.logits], texts[:LATENCY_TEXTS])
    return Fitted(
        made,
        form,
        members,
        committee(without + copy.deepcopy(linear)) if without else None,
        split,
        corpus,
        coverage(paragraphs, encoded, len(tokenizer)),
        evaluate(made, [texts[i] for i in rows.tolist()], targets[rows]) if len(rows) else None,
        latency,
        time.time() - begin,
    )


def _corpus_texts(settings: Settings) -> tuple[list[str], dict[str, Any]]:
    """As many rows of the corpus as the time may be enough for."""
    if settings.corpus is None:
        return [], {}
    held_out = held_out_titles(settings.corpus)
    corpus = open_corpus(settings.corpus)
    articles = (article.text for article in corpus.articles() if article.title not in held_out)
    most = None if settings.seconds is None else max(LEAST_ROWS, int(ROWS_PER_SECOND * settings.seconds))
    rows = list(itertools.islice(articles, most))
    facts = {"corpus": corpus.name, "fingerprint": corpus.fingerprint, "licence": corpus.licence}
    return rows, facts | {"rows": len(rows)}


def _cool(model: SequenceClassifier | TfidfClassifier, field: np.ndarray, targets: np.ndarray) -> float:
    """Divide a member's output layer by its own temperature, which is returned.

    Members that have learnt their texts by heart have large fields whether they are right or
    wrong. The sum of the fields should listen to each as far as it is right on other texts.
    """
    temperature = fit_temperature(field, targets)
    with torch.no_grad():
        for weight in model.output_weights:
            weight.div_(temperature)
    return temperature


def _tokenizer_and_form(
    rows: Sequence[str], own: Sequence[str], n_labels: int, settings: Settings
) -> tuple[Tokenizer, StorageForm]:
    """The vocabulary, and the first form of the committee that fits."""
    recipe, most = settings.recipe, settings.max_bytes
    wanted = storage_forms(settings.members, recipe.vocabulary or sys.maxsize, settings.linear)
    tokenizer, size = None, 0
    for form in wanted:
        if tokenizer is None or form.vocabulary < len(tokenizer):
            tokenizer = _tokenizer(rows, own, form.vocabulary, settings)
        form = form.linear_where_possible(n_labels, len(tokenizer))
        if most is None:
            return tokenizer, form
        size = size_of(form, tokenizer, _configs(form, tokenizer, recipe), n_labels)
        if size <= most:
            return tokenizer, form
    raise UserError(
        f"max_size is {most:,.0f} bytes; the smallest committee for these {n_labels} labels takes {size:,}."
    )


def _configs(form: StorageForm, tokenizer: Tokenizer, recipe: Recipe) -> list[ModelConfig]:
    """Architecture of each encoder, largest first."""
    heads = sorted(itertools.islice(itertools.cycle(HEADS), form.encoders), reverse=True)
    return [recipe.model_config_for(len(tokenizer), layers=1, heads=count) for count in heads]


def _tokenizer(rows: Sequence[str], own: Sequence[str], size: int, settings: Settings) -> Tokenizer:
    if settings.recipe.vocabulary is None:
        return load_tokenizer(BERT)
    random = np.random.default_rng([settings.seed, 2])
    texts = [*rows, *own]
    if len(texts) > VOCABULARY_TEXTS:
        texts = [texts[i] for i in random.permutation(len(texts))[:VOCABULARY_TEXTS].tolist()]
    return train_tokenizer(texts, size)


def _jobs(
    settings: Settings,
    form: StorageForm,
    paragraphs: TokenIds,
    tokenizer: Tokenizer,
    labelled: EncodedTask,
    class_weights: np.ndarray | None,
    begin: float,
) -> list[Job]:
    configs = _configs(form, tokenizer, settings.recipe)
    seeds = [settings.seed + number for number in range(len(configs))]
    content = hashlib.sha256(paragraphs.ids.tobytes() + paragraphs.offsets.tobytes()).hexdigest()
    caches = []
    for config, seed in zip(configs, seeds, strict=True):
        # The budget stands for the epochs, which it determines but for the machine's speed.
        key = [content, tokenizer.fingerprint, config.model_dump(), settings.recipe.model_dump(), seed]
        digest = hashlib.sha256(json.dumps([key, settings.seconds, form.encoders]).encode()).hexdigest()
        caches.append(_pretrained_folder() / digest[:16])
    vectors, window = None, settings.recipe.neighbour_window
    if window is not None and not all(cache.is_dir() for cache in caches):
        most = settings.affordable(MOST_TOKENS, VECTOR_TOKENS_PER_SECOND)
        vectors = token_vectors(paragraphs, tokenizer, configs[0].width, window, most)
    ends: list[float | None] = [None] * len(configs)
    if settings.seconds is not None:
        workers = min(settings.workers or cores(), len(configs))
        left = (1 - RESERVE) * settings.seconds - (time.time() - begin)
        ends = [
            time.time() + end for end in slots([config.heads for config in configs], workers, max(left, 0))
        ]
    jobs = []
    for number, (config, seed, cache, end) in enumerate(zip(configs, seeds, caches, ends, strict=True), 1):
        jobs.append(
            Job(
                name=f"member {number}",
                config=config,
                recipe=settings.recipe,
                paragraphs=paragraphs,
                vectors=vectors,
                tokenizer=tokenizer,
                labelled=labelled,
                class_weights=class_weights,
                multi_label=labelled.train_labels.ndim == 2,
                seed=seed,
                deadline=end,
                cache=cache,
                compare=settings.compare,
            )
        )
    return jobs


def _pretrained_folder() -> Path:
    return cache_folder() / "pretrained"


def _prune(folder: Path) -> None:
    """Delete the oldest pre-trained weights of the cache."""
    found = sorted(folder.glob("*/model.safetensors"), key=lambda file: file.stat().st_mtime)
    for file in found[:-KEPT_PRETRAININGS]:
        for part in file.parent.iterdir():
            part.unlink(missing_ok=True)
        file.parent.rmdir()
