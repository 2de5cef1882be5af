"""From labelled texts to a calibrated committee, within a time.

What `TinyTextClassifier` does, without scikit-learn's conventions, in five steps: split the labelled
texts, collect and encode the text, train the members side by side, calibrate them on the validation
part, distil them into one if that is wanted, measure.

The test part of a cross-validation is not passed in, so nothing here sees it. The validation part is
kept out of pre-training too.
"""

from __future__ import annotations

import copy
import hashlib
import itertools
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tinylm.errors import UserError
from tinylm.fit import budget
from tinylm.fit.budget import MONOTONIC, Clock
from tinylm.fit.distill import CORPUS_TEXTS, taught
from tinylm.fit.member import History, Job, TrainedEncoder, TrainedMember, train_member, train_student
from tinylm.fit.size import StorageForm, size_of, storage_forms, tfidf_rows
from tinylm.infer.calibration import cross_entropy, fit_temperature, fit_thresholds, fit_weights
from tinylm.infer.classifier import Classifier
from tinylm.infer.committee import Committee
from tinylm.infer.evaluation import Evaluation, evaluate
from tinylm.infer.latency import Latency, measure_latency
from tinylm.infer.tfidf import TfidfMember
from tinylm.model.config import ModelConfig
from tinylm.model.heads import SequenceClassifier
from tinylm.model.huggingface import round_weights
from tinylm.model.logits import logits_of
from tinylm.model.tfidf import TfidfModel, count_ngrams
from tinylm.system.files import key_of
from tinylm.system.paths import cache_folder, cached
from tinylm.system.processes import LOCAL, Engine, run_side_by_side
from tinylm.system.progress import progress_log
from tinylm.text.corpus import open_corpus
from tinylm.text.coverage import Coverage, coverage, token_counts
from tinylm.text.prepare import held_out_titles
from tinylm.text.store import TokenIds
from tinylm.text.tables import why_unusable
from tinylm.text.tasks import Split, copy_key, split_rows
from tinylm.text.tokenizer import BERT, HEAD, Tokenizer, load_tokenizer, train_tokenizer
from tinylm.train.cooccurrence import MOST_TOKENS, token_vectors
from tinylm.train.finetune import EncodedTask
from tinylm.train.recipes import Recipe
from tinylm.train.tfidf import (
    FOLDS,
    MOST_WORK,
    TfidfTask,
    folds,
    held_out_logits,
    train_tfidf,
    work_of,
)

# Heads of the encoders in turn: two workers get the same load. All have one block: the paper's committee
# is one of shallow models, and deeper ones learn less in the same time (docs/recipe.md, "scale").
HEADS = (2, 4, 2)
# Corpus texts are cut to this length. The masked language model reads the first `max_tokens` of them;
# the vectors that it starts from are computed from all.
CORPUS_TOKENS = 512
LATENCY_TEXTS = 50
PRETRAINED = "pretrained"  # folder of the cache
KEPT_PRETRAININGS = 60  # there; the oldest are deleted


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


@dataclass(frozen=True)
class Encoded:
    """All text as token ids, and the shape of the committee that reads them.

    Attributes:
        paragraphs: for pre-training, W_S.
        taught: texts that a student learns from: the user's own, labelled ones but for the validation part
            and unlabelled ones, and some of the corpus.
        task: training part and validation part (as `test`) of the labelled texts.
        everything: all labelled texts to train on.
        tokenizer: of all token ids.
        form: what the committee is stored as.
        configs: architecture of each encoder, largest first.
        corpus: name, fingerprint, licence and number of rows of the corpus; empty without one.
        coverage: of the labelled texts by the paragraphs (W_S, T_W, T_C, T_M).
        kept_out: number of corpus and unlabelled texts that pre-training did not read, since they are
            validation texts or held out.
        cut: number of labelled texts that are longer than `max_tokens`.
    """

    paragraphs: TokenIds
    taught: Sequence[str]
    task: EncodedTask
    everything: EncodedTask
    tokenizer: Tokenizer
    form: StorageForm
    configs: list[ModelConfig]
    corpus: dict[str, Any]
    coverage: Coverage
    kept_out: int
    cut: int


@dataclass(frozen=True)
class Fitted:
    """A trained committee and how it was trained.

    Attributes:
        committee: calibrated, with thresholds where a text has several labels; of the student alone where
            one was trained.
        teacher: the committee that the student learnt from; None without a student.
        without: the committee without pre-training; None without `compare`.
        histories: of its encoders, in the committee's order.
        form: what it is stored as.
        split: which labelled texts were validation texts.
        corpus, coverage, kept_out, cut: as in `Encoded`.
        validation: on the validation texts, by members that had not learnt from them; None without any.
        latency: of one text on one thread.
        all_members_latency: the same of the teacher where there is one, else of the committee.
        seconds: of everything.
    """

    committee: Committee
    teacher: Committee | None
    without: Committee | None
    histories: list[History]
    form: StorageForm
    split: Split
    corpus: dict[str, Any]
    coverage: Coverage
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
            "validation_texts": len(self.split.validation),
            "corpus": self.corpus,
            "coverage": asdict(self.coverage),
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
    split = split_labelled(labelled, settings)
    encoded = encode(labelled, split, settings)
    tfidf = fit_tfidf(labelled, split, encoded.form.tfidf_rows, settings)
    deadline = encoders_end = None
    if settings.seconds is not None:
        begun = begin if settings.begun is None else settings.begun
        deadline = begun + (1 - budget.CALIBRATION_SHARE) * settings.seconds
        encoders_end = deadline - (budget.STUDENT_SHARE * settings.seconds if settings.student else 0)
    members = train_encoders(encoded, labelled, settings, encoders_end)
    encoders = [member.encoder for member in members]
    calibrated = calibrate(encoders, tfidf, encoded, labelled)
    teacher = None
    if settings.student:
        teacher = calibrated.committee
        student = distil(teacher, encoders[0].model, encoded, labelled, settings, deadline)
        calibrated = calibrate([student], None, encoded, labelled)
    committee = calibrated.committee
    without = None
    if settings.compare:
        rivals = [member.without for member in members if member.without is not None]
        without = calibrate(rivals, tfidf, encoded, labelled).committee
    rows = split.validation
    validation = None
    if len(rows):
        texts = [labelled.texts[i] for i in rows.tolist()]
        validation = evaluate(committee, texts, labelled.targets[rows], calibrated.validation_logits)
    predictors = [committee] if teacher is None else [committee, teacher]
    latencies = measure_latency([each.predict for each in predictors], labelled.texts[:LATENCY_TEXTS])
    return Fitted(
        committee,
        teacher,
        without,
        [member.history for member in members],
        encoded.form,
        split,
        encoded.corpus,
        encoded.coverage,
        encoded.kept_out,
        encoded.cut,
        validation,
        latencies[0],
        latencies[-1],
        settings.clock() - begin,
    )


# --- 1. Split ---


def split_labelled(labelled: LabelledTexts, settings: Settings) -> Split:
    """The training and the validation part of the labelled texts."""
    most = budget.affordable(settings.seconds, budget.MOST_VALIDATION, budget.VALIDATION_PER_SECOND)
    share = min(settings.validation, most / len(labelled.texts))
    return split_rows(labelled.texts, labelled.targets, share, settings.seed)


# --- 2. Encode ---


def encode(labelled: LabelledTexts, split: Split, settings: Settings) -> Encoded:
    """Read the corpus, train the vocabulary, and turn all text into token ids."""
    held_out = {copy_key(labelled.texts[i]) for i in split.validation.tolist()}
    held_out |= {copy_key(text) for text in settings.held_out}
    articles, corpus = _corpus_texts(settings)
    others = [
        [text for text in part if copy_key(text) not in held_out] for part in (articles, settings.unlabelled)
    ]
    kept_out = len(articles) + len(settings.unlabelled) - sum(map(len, others))
    articles = others[0]
    own = [labelled.texts[i] for i in split.train.tolist()]
    characters = sum(map(len, own))
    own = [text for text in own + others[1] if not why_unusable(text)]
    tokenizer, form = _tokenizer_and_form(articles, own, characters, len(labelled.label_names), settings)
    max_tokens = settings.recipe.max_tokens
    # dict: a text that occurs twice, such as an unlabelled copy of a labelled one, counts once.
    paragraphs = tokenizer.encode(list(dict.fromkeys(articles + own)), max(CORPUS_TOKENS, max_tokens))
    paragraphs = paragraphs.take(np.flatnonzero(paragraphs.lengths > 2))
    if not len(paragraphs):
        raise UserError("there is no text to pre-train on: the texts hold no token and there is no corpus.")
    one_more = tokenizer.encode(labelled.texts, max_tokens + 1)  # shows which texts are cut
    if settings.long_texts == HEAD:
        ids = one_more.cut(max_tokens)
    else:
        tokenizer = tokenizer.reading(settings.long_texts)
        ids = tokenizer.encode(labelled.texts, max_tokens)
    none = split.validation[:0]
    return Encoded(
        paragraphs,
        own + articles[: max(CORPUS_TEXTS, len(own))],
        _task(labelled, ids, split.train, split.validation),
        _task(labelled, ids, np.arange(len(labelled.texts)), none),
        tokenizer,
        form,
        _configs(form, tokenizer, settings.recipe),
        corpus,
        coverage(paragraphs, ids, len(tokenizer)),
        kept_out,
        int((one_more.lengths > max_tokens).sum()),
    )


def _task(labelled: LabelledTexts, ids: TokenIds, train: np.ndarray, test: np.ndarray) -> EncodedTask:
    weights = None if labelled.weights is None else labelled.weights[train]
    targets = labelled.targets
    return EncodedTask(
        ids.take(train), targets[train], ids.take(test), targets[test], len(labelled.label_names), weights
    )


def _corpus_texts(settings: Settings) -> tuple[list[str], dict[str, Any]]:
    """As many rows of the corpus as the time may be enough for, and facts on the corpus."""
    if settings.corpus is None:
        return [], {}
    held_out = held_out_titles(settings.corpus)
    corpus = open_corpus(settings.corpus)
    articles = (article.text for article in corpus.articles() if article.title not in held_out)
    most = None
    if settings.seconds is not None:
        most = max(budget.LEAST_ROWS, int(budget.ROWS_PER_SECOND * settings.seconds))
    rows = list(itertools.islice(articles, most))
    facts = {"corpus": corpus.name, "fingerprint": corpus.fingerprint, "licence": corpus.licence}
    return rows, facts | {"rows": len(rows)}


def _tokenizer_and_form(
    rows: Sequence[str], own: Sequence[str], characters: int, n_labels: int, settings: Settings
) -> tuple[Tokenizer, StorageForm]:
    """The vocabulary, and the first form of the committee that fits into `max_bytes`."""
    recipe, most = settings.recipe, settings.max_bytes
    rows_of_tfidf = tfidf_rows(characters, n_labels, most) if settings.tfidf_member else 0
    wanted = storage_forms(settings.members, recipe.vocabulary or sys.maxsize, rows_of_tfidf)
    tokenizer, size = None, 0
    for form in wanted:
        if tokenizer is None or form.vocabulary < len(tokenizer):
            tokenizer = _tokenizer(rows, own, form.vocabulary, settings)
        if most is None:
            return tokenizer, form
        size = size_of(form, tokenizer, _configs(form, tokenizer, recipe), n_labels)
        if size <= most:
            return tokenizer, form
    raise UserError(
        f"max_size is {most:,.0f} bytes; the smallest committee for these {n_labels} labels takes {size:,}."
    )


def _tokenizer(rows: Sequence[str], own: Sequence[str], size: int, settings: Settings) -> Tokenizer:
    if settings.recipe.vocabulary is None:
        return load_tokenizer(BERT)
    most = budget.affordable(settings.seconds, budget.VOCABULARY_TEXTS, budget.VOCABULARY_TEXTS_PER_SECOND)
    random = np.random.default_rng([settings.seed, 2])
    rows, own = (_some(texts, most, random) for texts in (rows, own))
    return train_tokenizer(rows, size, first=own)


def _some(texts: Sequence[str], most: int, random: np.random.Generator) -> Sequence[str]:
    """At most `most` of the texts, drawn at random."""
    if len(texts) <= most:
        return texts
    return [texts[i] for i in random.permutation(len(texts))[:most].tolist()]


def _configs(form: StorageForm, tokenizer: Tokenizer, recipe: Recipe) -> list[ModelConfig]:
    heads = sorted(itertools.islice(itertools.cycle(HEADS), form.encoders), reverse=True)
    return [recipe.model_config_for(len(tokenizer), layers=1, heads=count) for count in heads]


# --- 3. Train ---


@dataclass(frozen=True)
class FittedTfidf:
    """The TF-IDF member and how good it is on texts that it has not seen.

    Attributes:
        model: trained on training and validation texts, divided by its temperature.
        validation_logits: of the validation texts, by models that were not trained on them.
        loss: cross-entropy of such logits.
    """

    model: TfidfModel
    validation_logits: np.ndarray
    loss: float


def fit_tfidf(labelled: LabelledTexts, split: Split, n_rows: int, settings: Settings) -> FittedTfidf | None:
    """Train the TF-IDF member and fit its temperature; None if the committee has none (`n_rows` is 0).

    Where the time is enough, it learns from the validation texts too: their logits come from models that
    did not.
    """
    if not n_rows:
        return None
    n_labels = len(labelled.label_names)
    most = budget.affordable(settings.seconds, MOST_WORK, budget.TFIDF_WORK_PER_SECOND)
    random = np.random.default_rng([settings.seed, 4])
    order = np.concatenate([split.validation, random.permutation(split.train)])
    work = work_of([labelled.texts[i] for i in order.tolist()], n_labels).cumsum()
    used = np.sort(order[: max(len(split.validation) + 1, int((work <= most).sum()))])
    texts, targets = [labelled.texts[i] for i in used.tolist()], labelled.targets[used]
    weights = None if labelled.weights is None else labelled.weights[used]
    counts = count_ngrams(texts, n_rows)
    task = TfidfTask(counts, targets, n_labels, labelled.class_weights, weights)
    validation = np.searchsorted(used, split.validation)
    if len(validation) < budget.TFIDF_CALIBRATION_TEXTS and (FOLDS + 1) * work[-1] <= most:
        parts = folds(texts, targets, settings.seed)
    else:
        parts = [validation if len(validation) else random.permutation(len(used))[: max(1, len(used) // 10)]]
    held = np.concatenate(parts)
    if 2 * work[-1] <= most:
        logits, model = held_out_logits(task, parts), train_tfidf(task)
    else:
        model = train_tfidf(task, np.setdiff1d(np.arange(len(used)), held))
        logits = np.zeros((len(used), n_labels), np.float32)
        logits[held] = model.logits([texts[i] for i in held.tolist()])
    temperature = np.float32(fit_temperature(logits[held], targets[held]))
    logits /= temperature
    loss = cross_entropy(logits[held], targets[held])
    return FittedTfidf(model.cooled(float(temperature)), logits[validation], loss)


def train_encoders(
    encoded: Encoded, labelled: LabelledTexts, settings: Settings, deadline: float | None
) -> list[TrainedMember]:
    """Pre-train and fine-tune the encoders side by side; all are done at `deadline`, if there is one."""
    seeds = [settings.seed + number for number in range(len(encoded.configs))]
    caches = [
        _cache(encoded, config, settings, seed) for config, seed in zip(encoded.configs, seeds, strict=True)
    ]
    pretrained = all(cache is not None and cache.is_dir() for cache in caches)
    vectors = None if pretrained else _token_vectors(encoded, settings)
    jobs = [
        Job(
            name=f"member {number}",
            config=config,
            recipe=settings.recipe,
            paragraphs=encoded.paragraphs,
            vectors=vectors,
            tokenizer=encoded.tokenizer,
            task=encoded.task,
            # A student begins as an encoder and is measured on the validation texts.
            everything=encoded.everything if len(encoded.task.test) and not settings.student else None,
            class_weights=labelled.class_weights,
            seed=seed,
            deadline=None,
            cache=cache,
            compare=settings.compare,
            unfinished=_unfinished(encoded, labelled, settings, config, seed),
            clock=settings.clock,
        )
        for number, (config, seed, cache) in enumerate(zip(encoded.configs, seeds, caches, strict=True), 1)
    ]
    ends = iter(_deadlines([job.config.heads for job in jobs if not job.finished], settings, deadline))
    jobs = [job if job.finished else replace(job, deadline=next(ends)) for job in jobs]
    trained = run_side_by_side(train_member, [(job,) for job in jobs], settings.workers, settings.engine)
    _prune(cache_folder() / PRETRAINED)
    return trained


def _deadlines(sizes: Sequence[int], settings: Settings, deadline: float | None) -> list[float | None]:
    """When each encoder must be done, so that all are at `deadline`."""
    if deadline is None or not sizes:
        return [None] * len(sizes)
    now = settings.clock()
    workers = min(settings.engine.places(settings.workers), len(sizes))
    return [now + end for end in budget.slots(sizes, workers, max(deadline - now, 0))]


def _token_vectors(encoded: Encoded, settings: Settings) -> np.ndarray | None:
    window = settings.recipe.neighbour_window
    if window is None:
        return None
    most = budget.affordable(settings.seconds, MOST_TOKENS, budget.VECTOR_TOKENS_PER_SECOND)
    return token_vectors(encoded.paragraphs, encoded.tokenizer, encoded.configs[0].width, window, most)


def _cache(encoded: Encoded, config: ModelConfig, settings: Settings, seed: int) -> Path | None:
    """Where the pre-trained weights of one encoder are kept, if they are.

    The key holds the budget in place of the number of epochs, which follows from the budget and the
    machine's speed.
    """
    if not settings.cache:
        return None
    text = hashlib.sha256(encoded.paragraphs.ids.tobytes() + encoded.paragraphs.offsets.tobytes())
    recipe = settings.recipe.model_dump()
    key = [text.hexdigest(), encoded.tokenizer.fingerprint, config.model_dump(), recipe, seed]
    digest = hashlib.sha256(json.dumps([key, settings.seconds, encoded.form.encoders]).encode()).hexdigest()
    return cached(f"{PRETRAINED}/{digest[:16]}")


def _unfinished(
    encoded: Encoded, labelled: LabelledTexts, settings: Settings, config: ModelConfig, seed: int
) -> Path | None:
    """Where one encoder's finished phases are kept: a folder named by all that determines them."""
    if settings.unfinished is None:
        return None
    task = encoded.task
    texts = hashlib.sha256()
    for part in (encoded.paragraphs, task.train, task.test):
        texts.update(part.ids.tobytes() + part.offsets.tobytes())
    for array in (task.train_labels, task.test_labels, task.train_weights, labelled.class_weights):
        texts.update(b"-" if array is None else array.tobytes())
    identity = {
        "texts": texts.hexdigest(),
        "tokenizer": encoded.tokenizer.fingerprint,
        "config": config.model_dump(mode="json"),
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


# --- 4. Calibrate ---


@dataclass(frozen=True)
class Calibrated:
    """A committee, and the sum of its logits on the validation texts, `float32 [texts, labels]`.

    Its members may have learnt from these texts, but not the models whose logits are summed here.
    """

    committee: Committee
    validation_logits: np.ndarray


def calibrate(
    encoders: Sequence[TrainedEncoder],
    tfidf: FittedTfidf | None,
    encoded: Encoded,
    labelled: LabelledTexts,
) -> Calibrated:
    """A committee of copies of the encoders, with weights and thresholds from the validation texts.

    Each member's logits are multiplied by its weight, so that the committee is a plain sum. The encoders err
    alike, so all together are expected to count as much as the TF-IDF member. One that does not even know its
    training texts as well as the TF-IDF member knows new ones is expected to be worthless.
    """
    models = [copy.deepcopy(encoder.model) for encoder in encoders]
    if encoded.form.int8:  # what is measured is what will be stored
        for model in models:
            round_weights(model)
    task, targets = encoded.task, encoded.task.test_labels
    logits = [encoder.validation_logits for encoder in encoders]
    expected = np.ones(len(models))
    if tfidf is not None:
        logits.append(tfidf.validation_logits)
        known = np.array([_knows_its_texts(model, task, tfidf.loss) for model in models])
        expected = np.append(known / max(known.sum(), 1), 1.0)
    weights = fit_weights(np.stack(logits), targets, expected / expected.sum())
    for model, weight in zip(models, weights, strict=False):
        _multiply_logits(model, weight)
    summed = np.tensordot(weights, np.stack(logits), 1).astype(np.float32)
    thresholds = None
    if targets.ndim == 2:
        thresholds = np.full(len(labelled.label_names), 0.5)
        if len(summed):
            thresholds = fit_thresholds(summed, targets, temperature=1)
    members: list[Classifier | TfidfMember] = [
        Classifier.of(model, encoded.tokenizer, labelled.label_names) for model in models
    ]
    if tfidf is not None:
        members.append(TfidfMember(tfidf.model.cooled(1 / weights[-1]), labelled.label_names))
    counts = token_counts(encoded.paragraphs, len(encoded.tokenizer))
    return Calibrated(Committee(members, thresholds=thresholds, token_counts=counts), summed)


# --- 5. Distil ---


def distil(
    committee: Committee,
    start: SequenceClassifier,
    encoded: Encoded,
    labelled: LabelledTexts,
    settings: Settings,
    deadline: float | None,
) -> TrainedEncoder:
    """A student of the committee, which has not read the validation texts.

    Args:
        committee: calibrated.
        start: the encoder of it that becomes the student.
        encoded: what it was trained on.
        labelled: as in `fit_committee`.
        settings: likewise.
        deadline: when the student must be done.
    """
    ids = encoded.tokenizer.encode(encoded.taught, start.config.max_tokens)
    task = taught(committee, encoded.taught, ids, encoded.task.test, encoded.task.test_labels)
    job = Job(
        name="student",
        config=start.config,
        recipe=settings.recipe,
        paragraphs=encoded.paragraphs,
        vectors=None,
        tokenizer=encoded.tokenizer,
        task=task,
        everything=None,
        class_weights=None,
        seed=settings.seed,
        deadline=deadline,
        cache=None,
        compare=False,
        unfinished=_unfinished(encoded, labelled, settings, start.config, settings.seed),
        clock=settings.clock,
    )
    model = train_student(job, start).model
    return TrainedEncoder(model, logits_of(model, encoded.task.test))


def _knows_its_texts(model: SequenceClassifier, task: EncodedTask, loss: float) -> bool:
    """Whether an encoder predicts its training texts better than by chance and than with `loss`."""
    some = np.arange(len(task.train))[:: -(-len(task.train) // budget.TFIDF_CALIBRATION_TEXTS)]
    logits, targets = logits_of(model, task.train.take(some)), task.train_labels[some]
    by_chance = cross_entropy(np.zeros_like(logits), targets)
    return cross_entropy(logits, targets) < min(loss, budget.LEARNT * by_chance)


def _multiply_logits(model: SequenceClassifier, weight: float) -> None:
    with torch.no_grad():
        for part in model.output_weights:
            part.mul_(weight)
