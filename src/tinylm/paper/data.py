"""What the cells of a preset are made of: corpus, tasks and selections, loaded once per process."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from tinylm.errors import UserError
from tinylm.paper.preset import Preset, Sources
from tinylm.paper.spec import Selection, TaskSpec
from tinylm.system.files import hash_files
from tinylm.system.paths import data_folders, find_local
from tinylm.text.corpus import Corpus
from tinylm.text.coverage import Coverage, coverage, distinct_tokens
from tinylm.text.prepare import TokenizedCorpus, prepare, prepare_corpus
from tinylm.text.select import (
    custom_made_rows,
    mismatched_rows,
    random_rows,
    reverse_rows,
    reverse_share_rows,
    same_lengths_rows,
)
from tinylm.text.store import TokenIds
from tinylm.text.tables import read_rows
from tinylm.text.tasks import Task, hold_out, load_task
from tinylm.text.tokenizer import Tokenizer
from tinylm.train.finetune import EncodedTask, encode_task

SELECTION_SEED = 42  # of the paper's random W_S


@dataclass(frozen=True)
class TaskData:
    """A task at the size of a preset.

    Attributes:
        task: the texts that are trained on and tested.
        encoded: the same as token ids.
        validation_texts: held-out training texts; may be empty.
        validation: the same as token ids.
        validation_labels: `int64 [validation texts]`.
        tokens: all texts of the task at the spec's size, whose distinct tokens are T_C.
        in_task: `bool [vocab]`, these tokens.
        tokens_fingerprint: tells these texts from others.
    """

    task: Task
    encoded: EncodedTask
    validation_texts: list[str]
    validation: TokenIds
    validation_labels: np.ndarray
    tokens: TokenIds
    in_task: np.ndarray
    tokens_fingerprint: str


@dataclass(frozen=True)
class Reduced:
    """What the cells of a row with a reduced vocabulary are made of.

    Attributes:
        tokenizer: knows T_W alone.
        paragraphs: W_S in its ids.
        data: the task in its ids, but for `tokens`, `in_task` and what is counted of them.
    """

    tokenizer: Tokenizer
    paragraphs: TokenIds
    data: TaskData


class Materials:
    """Corpus, tasks and W_S of one preset.

    Raises:
        UserError: a data set that is not there, with how to get it.
    """

    def __init__(self, preset: Preset) -> None:
        self.preset = preset
        self.corpus = _open_corpus(preset)
        self.tokenizer = self.corpus.tokenizer
        self.task = lru_cache(maxsize=16)(self._task)
        self.w_s = lru_cache(maxsize=4)(self._w_s)
        self.reduced_by = lru_cache(maxsize=2)(self._reduced)

    def of(self, spec: TaskSpec) -> TaskData:
        """The data of a task."""
        return self.task(spec.model_dump_json())

    def paragraphs(self, selection: Selection, size: int | None, spec: TaskSpec) -> TokenIds:
        """W_S of a selection at the preset's size."""
        # A random W_S is the same for every task: one entry of the cache then.
        task = spec.model_dump_json() if depends_on_task(selection) else None
        return self.w_s(selection.model_dump_json(), size, task)

    def coverage(self, selection: Selection, size: int | None, spec: TaskSpec) -> Coverage:
        """W_S, T_W, T_C and T_M of a selection and a task."""
        return coverage(self.paragraphs(selection, size, spec), self.of(spec).tokens, len(self.tokenizer))

    def reduced(self, selection: Selection, size: int | None, spec: TaskSpec) -> Reduced:
        """The same for a model that knows only the tokens of a W_S."""
        return self.reduced_by(selection.model_dump_json(), size, spec.model_dump_json())

    def _reduced(self, selection: str, size: int | None, spec: str) -> Reduced:
        task = TaskSpec.model_validate_json(spec)
        paragraphs = self.paragraphs(Selection.model_validate_json(selection), size, task)
        known = distinct_tokens(paragraphs, len(self.tokenizer))
        known[self.tokenizer.special_ids] = True
        tokenizer = self.tokenizer.reduced(np.flatnonzero(known))
        new_ids = np.cumsum(known) - 1  # of the tokens that are known
        data, most = self.of(task), self.preset.max_tokens
        return Reduced(
            tokenizer,
            TokenIds(new_ids[paragraphs.ids].astype(paragraphs.ids.dtype), paragraphs.offsets),
            replace(
                data,
                encoded=encode_task(data.task, tokenizer, most),
                validation=tokenizer.encode(data.validation_texts, most),
            ),
        )

    def validation_task(self, spec: TaskSpec, share: float) -> EncodedTask:
        """The training rows of a task with validation rows as its `test`; test rows are not read.

        Args:
            spec: the task.
            share: of the training rows that are held out where the preset keeps none for validation.
        """
        data = self.of(spec)
        encoded = data.encoded
        if len(data.validation):
            return EncodedTask(
                encoded.train,
                encoded.train_labels,
                data.validation,
                data.validation_labels,
                encoded.n_labels,
            )
        smaller, texts, labels = hold_out(data.task, len(data.task.train_texts), share)
        train = self.tokenizer.encode(smaller.train_texts, self.preset.max_tokens)
        held = self.tokenizer.encode(texts, self.preset.max_tokens)
        return EncodedTask(train, smaller.train_labels, held, labels, encoded.n_labels)

    def _task(self, dumped: str) -> TaskData:
        spec = self._instead(TaskSpec.model_validate_json(dumped))
        full = load_task(
            spec.name,
            labels=spec.labels,
            train_per_label=spec.train_per_label,
            test_per_label=spec.test_per_label,
        )
        train, validation, test = self.preset.rows_per_label(
            spec.train_per_label, spec.hold_out, spec.test_per_label, len(full.label_names)
        )
        # The rows of a smaller task are among those of the larger one, see `load_task`.
        used = load_task(
            spec.name, labels=spec.labels, train_per_label=train + validation, test_per_label=test
        )
        task, held_texts, held_labels = hold_out(used, train, self.preset.validation_share)
        max_tokens = self.preset.max_tokens
        tokens = self.tokenizer.encode([*full.train_texts, *full.test_texts], max_tokens)
        return TaskData(
            task=task,
            encoded=encode_task(task, self.tokenizer, max_tokens),
            validation_texts=held_texts,
            validation=self.tokenizer.encode(held_texts, max_tokens),
            validation_labels=held_labels,
            tokens=tokens,
            in_task=distinct_tokens(tokens, len(self.tokenizer)),
            tokens_fingerprint=full.fingerprint,
        )

    def _instead(self, spec: TaskSpec) -> TaskSpec:
        """The preset's stand-in for a task that the preset cannot count on."""
        if self.preset.task_instead is None:
            return spec
        labels = spec.labels and sorted({label % self.preset.labels_instead for label in spec.labels})
        changes = {
            "name": self.preset.task_instead,
            "labels": labels,
            "train_per_label": min(spec.train_per_label, self.preset.rows_instead),
            "test_per_label": min(spec.test_per_label, self.preset.rows_instead),
            "hold_out": min(spec.hold_out, self.preset.rows_instead // 2),
        }
        return spec.model_copy(update=changes)

    def _w_s(self, dumped: str, size: int | None, task: str | None) -> TokenIds:
        selection = Selection.model_validate_json(dumped)
        paragraphs = self.corpus.paragraphs
        in_task = self.task(task).in_task if task is not None else None
        if in_task is None and size is None:
            return paragraphs  # six million of them are better not copied
        if in_task is None:
            assert size is not None
            return paragraphs.take(random_rows(len(paragraphs), size, SELECTION_SEED))
        if selection.select == "same-lengths":
            assert selection.lengths_of is not None
            like = self._rows_of_task(selection.lengths_of, selection, size, in_task)
            return paragraphs.take(same_lengths_rows(paragraphs, like, SELECTION_SEED))
        return paragraphs.take(self._rows_of_task(selection.select, selection, size, in_task))

    def _rows_of_task(
        self, select: str, selection: Selection, size: int | None, in_task: np.ndarray
    ) -> np.ndarray:
        """Rows of a selection that follows the tokens of a task."""
        paragraphs = self.corpus.paragraphs
        if select == "custom-made":
            return custom_made_rows(paragraphs, in_task, None, SELECTION_SEED)[:size]
        assert size is not None
        if select == "mismatched":
            missing = selection.missing if self.preset.paper_t_m else None
            return mismatched_rows(paragraphs, in_task, size, missing, SELECTION_SEED, nearest=True)
        assert selection.absent is not None
        custom_made = custom_made_rows(paragraphs, in_task, None, SELECTION_SEED)
        size = min(size, len(custom_made))  # a reverse selection has one of them
        if isinstance(selection.absent, str):
            return reverse_rows(paragraphs, in_task, size, SELECTION_SEED)[selection.absent]
        return reverse_share_rows(paragraphs, in_task, size, selection.absent, SELECTION_SEED)


def depends_on_task(selection: Selection) -> bool:
    """Whether a selection follows the tokens of a task."""
    return selection.select in ("custom-made", "mismatched", "same-lengths", "reverse")


@lru_cache(maxsize=1)
def materials(preset: str) -> Materials:
    """The materials of a preset given as JSON, the same ones at every call."""
    return Materials(Preset.model_validate_json(preset))


def _open_corpus(preset: Preset) -> TokenizedCorpus:
    """The corpus, read as bert-base-uncased reads text also where its vocabulary is a smaller one."""
    vocabulary, max_tokens = preset.vocabulary, preset.max_tokens
    if isinstance(preset.corpus, str):
        return prepare(preset.corpus, vocabulary=vocabulary, max_tokens=max_tokens, strip_accents=True)
    corpus = _files(preset.corpus)
    return prepare_corpus(corpus, vocabulary=vocabulary, max_tokens=max_tokens, strip_accents=True)


def _files(sources: Sources) -> Corpus:
    """A corpus of several files in which every title has one opening."""
    found = {}
    for name in [*sources.articles, *sources.further]:
        path = find_local(name)
        if path is None:
            raise UserError(
                f"the corpus file {name} is in none of {', '.join(map(str, data_folders()))}; put a table"
                " with the columns title and text there (set TINYLM_DATA to use a folder of your own), or"
                " give another `corpus`."
            )
        found[name] = path

    def rows() -> Iterator[tuple[object, object]]:
        titles: set[object] = set()
        for name, path in found.items():
            is_opening = name in sources.articles
            earlier = frozenset(titles)
            for row in read_rows(path, ["text"], ["title"]):
                title = row.get("title")
                if is_opening and title in earlier:
                    continue
                if is_opening:
                    titles.add(title)
                yield title, row.get("text")

    paths = list(found.values())
    return Corpus(
        name=", ".join(found),
        licence="text of Wikipedia contributors, CC BY-SA",
        rows=rows,
        identity=lambda: hash_files(paths),
    )
