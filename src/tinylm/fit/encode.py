"""The first steps of a fit: split the labelled texts, collect all text, and turn it into token ids."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinylm.errors import UserError
from tinylm.fit import budget
from tinylm.fit.distill import CORPUS_TEXTS
from tinylm.fit.settings import LabelledTexts, Settings
from tinylm.fit.size import (
    StorageForm,
    size_of,
    storage_forms,
    storage_forms_of_one_vocabulary,
    tfidf_rows,
)
from tinylm.model.config import ModelConfig
from tinylm.text.corpus import open_corpus
from tinylm.text.coverage import Coverage, coverage_by, token_counts
from tinylm.text.prepare import held_out_titles
from tinylm.text.store import TokenIds
from tinylm.text.tables import why_unusable
from tinylm.text.tasks import Split, copy_key, split_rows
from tinylm.text.tokenizer import BERT, HEAD, Tokenizer, load_tokenizer, train_tokenizer
from tinylm.train.finetune import EncodedTask

# Heads of an encoder, of one block: the paper's committee is one of shallow models, and deeper and wider ones
# learn less in the same time (docs/recipe.md, "scale" and "Two encoders").
HEADS = 2
# Corpus texts are cut to this length. The masked language model reads the first `max_tokens` of them;
# the vectors that it starts from are computed from all.
CORPUS_TOKENS = 512


@dataclass(frozen=True)
class Encoded:
    """What a fit was given, its text as token ids, and the shape of the committee that reads them.

    Attributes:
        labelled, settings: what was given.
        split: the training and the validation part of the labelled texts.
        paragraphs: for pre-training, W_S; none where the encoders begin with a pre-trained model.
        own: the labelled texts but for the validation part.
        unlabelled: as many of the user's texts without labels as members can learn from; where there is no
            student, none if they are fewer than the labelled ones, which then say more.
        more: some texts of the corpus, which a student learns from, too.
        task: training part and validation part (as `test`) of the labelled texts.
        everything: all labelled texts to train on; None where none may learn the validation part, since it
            measures those that are taught.
        tokenizer: of all token ids.
        form: what the committee is stored as.
        configs: architecture of each encoder.
        corpus: name, fingerprint, licence and number of rows of the text that pre-training read beside the
            user's own; empty without such.
        coverage: of the labelled texts by the paragraphs (W_S, T_W, T_C, T_M); None where nothing says what
            the pre-trained model has read.
        token_counts: how often the encoders read each token, `int64 [vocab]`; None likewise.
        kept_out: number of corpus and unlabelled texts that pre-training did not read, since they are
            validation texts or held out.
        cut: number of labelled texts that are longer than `max_tokens`.
    """

    labelled: LabelledTexts
    settings: Settings
    split: Split
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
    coverage: Coverage | None
    token_counts: np.ndarray | None
    kept_out: int
    cut: int


def split_labelled(labelled: LabelledTexts, settings: Settings) -> Split:
    """The training and the validation part of the labelled texts."""
    most = budget.affordable(settings.seconds, budget.MOST_VALIDATION, budget.VALIDATION_PER_SECOND)
    share = min(settings.validation, most / len(labelled.texts))
    return split_rows(labelled.texts, labelled.targets, share, settings.seed)


def encode(labelled: LabelledTexts, split: Split, settings: Settings) -> Encoded:
    """Read the corpus, train the vocabulary, and turn all text into token ids."""
    texts, pretrained = _collect(labelled, split, settings), settings.pretrained
    tokenizer, form = _tokenizer_and_form(texts, len(labelled.label_names), settings)
    max_tokens = settings.recipe.max_tokens
    # dict: a text that occurs twice, such as an unlabelled copy of a labelled one, counts once.
    read = list(dict.fromkeys(texts.articles + texts.known)) if pretrained is None else []
    paragraphs = tokenizer.encode(read, max(CORPUS_TOKENS, max_tokens))
    paragraphs = paragraphs.take(np.flatnonzero(paragraphs.lengths > 2))
    if pretrained is None and not len(paragraphs):
        raise UserError("there is no text to pre-train on: the texts hold no token and there is no corpus.")
    one_more = tokenizer.encode(labelled.texts, max_tokens + 1)  # shows which texts are cut
    if settings.long_texts == HEAD:
        ids = one_more.cut(max_tokens)
    else:
        tokenizer = tokenizer.reading(settings.long_texts)
        ids = tokenizer.encode(labelled.texts, max_tokens)
    validation, everything = split.validation, None
    if len(validation) and not settings.student and not texts.learnt:
        everything = _task(labelled, ids, np.arange(len(labelled.texts)), validation[:0])
    counts: np.ndarray | None = token_counts(paragraphs, len(tokenizer))
    w_s, corpus = len(paragraphs), texts.corpus
    if pretrained is not None:
        counts, w_s, corpus = pretrained.token_counts, pretrained.w_s, pretrained.corpus
    covered = None if counts is None else coverage_by(counts, w_s, ids)
    if pretrained is not None and counts is not None:  # its encoders meet the labelled texts later
        counts = counts + token_counts(ids.take(split.train), len(tokenizer))
    return Encoded(
        labelled,
        settings,
        split,
        paragraphs,
        texts.own,
        texts.learnt,
        texts.articles[: max(CORPUS_TEXTS, len(texts.known))],
        _task(labelled, ids, split.train, validation),
        everything,
        tokenizer,
        form,
        _configs(form, tokenizer, settings),
        corpus,
        covered,
        counts,
        texts.kept_out,
        int((one_more.lengths > max_tokens).sum()),
    )


@dataclass(frozen=True)
class _Texts:
    """All texts of a fit but those for validation and test, of which `kept_out` were met elsewhere.

    `characters` are those that the TF-IDF member learns from; the other attributes are as in `Encoded`.
    """

    articles: list[str]
    own: list[str]
    unlabelled: list[str]
    learnt: list[str]
    characters: int
    corpus: dict[str, Any]
    kept_out: int

    @property
    def known(self) -> list[str]:
        """The user's own texts."""
        return self.own + self.unlabelled


def _collect(labelled: LabelledTexts, split: Split, settings: Settings) -> _Texts:
    """Read the corpus, and keep the validation and test texts out of all that is read."""
    held_out = {copy_key(labelled.texts[i]) for i in split.validation.tolist()}
    held_out |= {copy_key(text) for text in settings.held_out}
    reads_corpus = settings.pretrained is None or settings.student
    corpus_texts, corpus = _corpus_texts(settings) if reads_corpus else ([], {})
    articles, unlabelled = (
        [text for text in part if copy_key(text) not in held_out]
        for part in (corpus_texts, settings.unlabelled)
    )
    kept_out = len(corpus_texts) + len(settings.unlabelled) - len(articles) - len(unlabelled)
    train = [labelled.texts[i] for i in split.train.tolist()]
    own, unlabelled = ([text for text in part if not why_unusable(text)] for part in (train, unlabelled))
    most = budget.affordable(settings.seconds, budget.MOST_SELF_TRAINING, budget.SELF_TRAINING_PER_SECOND)
    drawn = np.random.default_rng([settings.seed, 5]).permutation(len(unlabelled))[:most]
    enough = settings.student or len(drawn) >= len(own)
    learnt = [unlabelled[i] for i in drawn.tolist()] if enough else []
    characters = sum(map(len, train)) + sum(map(len, learnt))
    return _Texts(articles, own, unlabelled, learnt, characters, corpus, kept_out)


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


def _tokenizer_and_form(texts: _Texts, n_labels: int, settings: Settings) -> tuple[Tokenizer, StorageForm]:
    """The vocabulary, and the first form of the committee that fits into `max_bytes`."""
    most, pretrained, size = settings.max_bytes, settings.pretrained, 0
    rows_of_tfidf = tfidf_rows(texts.characters, n_labels, most) if settings.tfidf_member else 0
    if pretrained is None:
        tokenizer, vocabulary = None, settings.recipe.vocabulary or sys.maxsize
        wanted = storage_forms(settings.members, vocabulary, rows_of_tfidf)
    else:
        tokenizer = pretrained.tokenizer
        wanted = storage_forms_of_one_vocabulary(settings.members, len(tokenizer), rows_of_tfidf)
    for form in wanted:
        if tokenizer is None or form.vocabulary < len(tokenizer):
            tokenizer = _tokenizer(texts.articles, texts.known, form.vocabulary, settings)
        if most is None:
            return tokenizer, form
        size = size_of(form, tokenizer, _configs(form, tokenizer, settings), n_labels)
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


def _configs(form: StorageForm, tokenizer: Tokenizer, settings: Settings) -> list[ModelConfig]:
    if settings.pretrained is not None:
        return [settings.pretrained.config] * form.encoders
    return [settings.recipe.model_config_for(len(tokenizer), layers=1, heads=HEADS)] * form.encoders
