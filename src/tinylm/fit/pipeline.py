"""From labelled texts to a calibrated committee, within a time.

What `TinyTextClassifier` does, without scikit-learn's conventions, in five steps: split the labelled
texts, collect and encode the text, train the members side by side, calibrate them on the validation
part, let them teach: one student if that is wanted, or themselves where there are texts without labels.

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
from tinylm.fit.distill import CORPUS_TEXTS, taught
from tinylm.fit.member import (
    DISTILLATION,
    FINETUNING,
    SELF_TRAINING,
    WITHOUT,
    History,
    Job,
    TrainedEncoder,
    TrainedMember,
    train_member,
    train_student,
)
from tinylm.fit.settings import LabelledTexts, Settings
from tinylm.fit.size import StorageForm, size_of, storage_forms, tfidf_rows
from tinylm.fit.tfidf_member import FittedTfidf, fit_tfidf, retrain_tfidf
from tinylm.infer.calibration import cross_entropy, fit_thresholds, fit_weights
from tinylm.infer.classifier import Classifier
from tinylm.infer.committee import Committee
from tinylm.infer.evaluation import Evaluation, evaluate
from tinylm.infer.latency import Latency, measure_latency
from tinylm.infer.tfidf import TfidfMember
from tinylm.model.config import ModelConfig
from tinylm.model.heads import SequenceClassifier
from tinylm.model.huggingface import round_weights
from tinylm.model.logits import logits_of
from tinylm.system.files import key_of
from tinylm.system.paths import cache_folder, cached
from tinylm.system.processes import run_side_by_side
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
class Encoded:
    """All text as token ids, and the shape of the committee that reads them.

    Attributes:
        paragraphs: for pre-training, W_S.
        own: the labelled texts but for the validation part.
        unlabelled: as many of the user's texts without labels as members can learn from; where there is no
            student, none if they are fewer than the labelled ones, which then say more.
        more: some texts of the corpus, which a student learns from, too.
        task: training part and validation part (as `test`) of the labelled texts.
        everything: all labelled texts to train on; None where none may learn the validation part, since it
            measures those that are taught.
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
    own: Sequence[str]
    unlabelled: Sequence[str]
    more: Sequence[str]
    task: EncodedTask
    everything: EncodedTask | None
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
        self_taught: texts without labels that the committee labelled itself, for its members to learn from.
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
    self_taught: int
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
            "self_taught_texts": self.self_taught,
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
    rows_of_tfidf, learn_all = encoded.form.tfidf_rows, encoded.everything is not None
    tfidf = fit_tfidf(labelled, split, rows_of_tfidf, settings, learn_all=learn_all)
    self_training = bool(encoded.unlabelled) and not settings.student
    deadline = encoders_end = None
    if settings.seconds is not None:
        begun = begin if settings.begun is None else settings.begun
        deadline = begun + (1 - budget.CALIBRATION_SHARE) * settings.seconds
        share = budget.STUDENT_SHARE if settings.student else self_training * budget.SELF_TRAINING_SHARE
        encoders_end = deadline - share * settings.seconds
    members = train_encoders(encoded, labelled, settings, encoders_end)
    arms = {FINETUNING: [member.encoder for member in members]}
    if settings.compare:
        arms[WITHOUT] = [member.without for member in members if member.without is not None]
    calibrated = {arm: calibrate(encoders, tfidf, encoded, labelled) for arm, encoders in arms.items()}
    ours, teacher = calibrated[FINETUNING], None
    if settings.student:
        teacher = ours.committee
        ours = distil(teacher, arms[FINETUNING][0].model, encoded, labelled, settings, deadline)
    elif self_training:
        ends = _deadlines([1] * len(arms), settings, deadline, workers=1)
        for arm, end in zip(arms, ends, strict=True):
            calibrated[arm] = self_train(
                calibrated[arm].committee, arm, arms[arm], tfidf, encoded, labelled, split, settings, end
            )
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
    own, unlabelled = ([text for text in part if not why_unusable(text)] for part in (own, others[1]))
    most = budget.affordable(settings.seconds, budget.MOST_SELF_TRAINING, budget.SELF_TRAINING_PER_SECOND)
    drawn = np.random.default_rng([settings.seed, 5]).permutation(len(unlabelled))[:most]
    enough = settings.student or len(drawn) >= len(own)
    learnt = [unlabelled[i] for i in drawn.tolist()] if enough else []
    characters += sum(map(len, learnt))
    known = own + unlabelled
    tokenizer, form = _tokenizer_and_form(articles, known, characters, len(labelled.label_names), settings)
    max_tokens = settings.recipe.max_tokens
    # dict: a text that occurs twice, such as an unlabelled copy of a labelled one, counts once.
    paragraphs = tokenizer.encode(list(dict.fromkeys(articles + known)), max(CORPUS_TOKENS, max_tokens))
    paragraphs = paragraphs.take(np.flatnonzero(paragraphs.lengths > 2))
    if not len(paragraphs):
        raise UserError("there is no text to pre-train on: the texts hold no token and there is no corpus.")
    one_more = tokenizer.encode(labelled.texts, max_tokens + 1)  # shows which texts are cut
    if settings.long_texts == HEAD:
        ids = one_more.cut(max_tokens)
    else:
        tokenizer = tokenizer.reading(settings.long_texts)
        ids = tokenizer.encode(labelled.texts, max_tokens)
    validation, everything = split.validation, None
    if len(validation) and not settings.student and not learnt:
        everything = _task(labelled, ids, np.arange(len(labelled.texts)), validation[:0])
    return Encoded(
        paragraphs,
        own,
        learnt,
        articles[: max(CORPUS_TEXTS, len(known))],
        _task(labelled, ids, split.train, validation),
        everything,
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
            everything=encoded.everything,
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


def _deadlines(
    sizes: Sequence[int], settings: Settings, deadline: float | None, workers: int | None = None
) -> list[float | None]:
    """When each training must be done, so that all are at `deadline`; by default all side by side."""
    if deadline is None or not sizes:
        return [None] * len(sizes)
    now = settings.clock()
    workers = workers or min(settings.engine.places(settings.workers), len(sizes))
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


# --- 5. Teach ---


def distil(
    committee: Committee,
    start: SequenceClassifier,
    encoded: Encoded,
    labelled: LabelledTexts,
    settings: Settings,
    deadline: float | None,
) -> Calibrated:
    """A student of the committee, which has not read the validation texts.

    Args:
        committee: calibrated.
        start: the encoder of it that becomes the student.
        encoded: what it was trained on.
        labelled: as in `fit_committee`.
        settings: likewise.
        deadline: when the student must be done.
    """
    texts = [*encoded.own, *encoded.unlabelled, *encoded.more]
    task = _taught(committee, texts, encoded, start.config)
    students = _students(task, [start], DISTILLATION, encoded, labelled, settings, deadline)
    return calibrate(students, None, encoded, labelled)


def self_train(
    committee: Committee,
    arm: str,
    encoders: Sequence[TrainedEncoder],
    tfidf: FittedTfidf | None,
    encoded: Encoded,
    labelled: LabelledTexts,
    split: Split,
    settings: Settings,
    deadline: float | None,
) -> Calibrated:
    """The same committee after its members have learned how all together label the texts without labels.

    What one member knows of a text reaches the others that way (docs/recipe.md, "Texts without labels").

    Args:
        committee: calibrated; none of its members has read the validation texts.
        arm: FINETUNING or WITHOUT pre-training.
        encoders: of the committee.
        tfidf: its TF-IDF member, if it has one.
        encoded: what they were trained on.
        labelled: as in `fit_committee`.
        split: of them.
        settings: as in `fit_committee`.
        deadline: when all must be done.
    """
    texts = [*encoded.own, *encoded.unlabelled]
    task = _taught(committee, texts, encoded, encoders[0].model.config)
    if tfidf is not None:
        probabilities = task.train_labels[len(encoded.own) :]
        thresholds = committee.thresholds
        tfidf = retrain_tfidf(tfidf, labelled, split, encoded.unlabelled, probabilities, thresholds, settings)
    starts = [encoder.model for encoder in encoders]
    phase = SELF_TRAINING if arm == FINETUNING else f"{SELF_TRAINING}, {arm}"
    students = _students(task, starts, phase, encoded, labelled, settings, deadline)
    return calibrate(students, tfidf, encoded, labelled)


def _taught(committee: Committee, texts: Sequence[str], encoded: Encoded, config: ModelConfig) -> EncodedTask:
    ids = encoded.tokenizer.encode(texts, config.max_tokens)
    return taught(committee, texts, ids, encoded.task.test, encoded.task.test_labels)


def _students(
    task: EncodedTask,
    starts: Sequence[SequenceClassifier],
    phase: str,
    encoded: Encoded,
    labelled: LabelledTexts,
    settings: Settings,
    deadline: float | None,
) -> list[TrainedEncoder]:
    """Encoders that learn a task from their present weights, side by side; all are done at `deadline`."""
    ends = _deadlines([start.config.heads for start in starts], settings, deadline)
    jobs = [
        Job(
            name=f"member {number + 1}",
            config=start.config,
            recipe=settings.recipe,
            paragraphs=encoded.paragraphs,
            vectors=None,
            tokenizer=encoded.tokenizer,
            task=task,
            everything=None,
            class_weights=None,
            seed=settings.seed + number,
            deadline=end,
            cache=None,
            compare=False,
            unfinished=_unfinished(encoded, labelled, settings, start.config, settings.seed + number),
            clock=settings.clock,
        )
        for number, (start, end) in enumerate(zip(starts, ends, strict=True))
    ]
    arguments = [(job, start, phase) for job, start in zip(jobs, starts, strict=True)]
    found = run_side_by_side(train_student, arguments, settings.workers, settings.engine)
    return [TrainedEncoder(one.model, logits_of(one.model, encoded.task.test)) for one in found]


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
