"""The texts of the laboratory: what is learned, and what decides. No decision reads a test row.

- `frdev`: 16 relations of FewRel that are not among the ten of `fr10`; 315 training rows of each to learn,
  the others to validate.
- `ag` and `db`: the paper's 1,000 and 100 training rows of each label to learn, the other rows of the
  training file to validate.
- `fr10` and `fr64`: the paper's training rows (split of seed 42), 15 % of them to validate.

A copy of a training text of the task, or of a test text, does not validate; FewRel has sentences under two
relations.

W_S is the beginning of `en_leads`, shuffled; where it is longer, `en_body` and `simple_leads` follow,
shuffled together. The last 500 of `en_leads` are kept aside for the loss of masked language modelling. The
own texts are the training texts of all tasks. Neither W_S nor the own texts hold a copy of a text that
validates or of a test text.

All of it is tokenized once for a vocabulary and kept in the cache folder, so that runs need no data set.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from tinylm.bench.recipe.questions import EPOCHS
from tinylm.errors import UserError
from tinylm.infer.baselines import linear_svm
from tinylm.system.files import key_of, locked, new_file, new_folder
from tinylm.system.paths import cache_folder, cached, find_local
from tinylm.text.corpus import open_corpus
from tinylm.text.store import TokenIds, open_store
from tinylm.text.tasks import Task, copy_key, hold_out, load_task
from tinylm.text.tokenizer import Tokenizer, load_tokenizer, train_tokenizer
from tinylm.train.finetune import EncodedTask, encode_task

TASKS = tuple(EPOCHS)
TEN = (5, 10, 11, 16, 17, 25, 27, 33, 36, 39)  # the relations of `fr10`, as in the paper
LEARNED = {"frdev": 315, "ag": 1000, "db": 100}  # rows of each label
SEED = 42  # of splits and of the order of W_S; the seeds of runs are others
VALIDATION_SHARE = 0.15  # of `fr10` and `fr64`
ALL = 1_000_000  # more rows of a label than any file has
LEADS, MORE = "en_leads", ("en_body", "simple_leads")
MEASURED = 500  # paragraphs
EDITION = 1  # of these texts and of what the training does with them; results of another one are not used


@lru_cache
def splits() -> dict[str, Task]:
    """The tasks by name; the test rows of each are those that validate, taken from the training rows."""
    found = {}
    for name in TASKS:
        task, texts, labels = _split(name)
        others = tested() | set(map(copy_key, task.train_texts))
        kept = [row for row, text in enumerate(texts) if copy_key(text) not in others]
        validation = [texts[row] for row in kept]
        found[name] = replace(task, name=name, test_texts=validation, test_labels=labels[kept])
    return found


def _split(name: str) -> tuple[Task, list[str], np.ndarray]:
    if name == "ag":
        return hold_out(load_task("agnews", train_per_label=ALL, seed=SEED), LEARNED["ag"])
    if name == "db":
        return hold_out(load_task("dbpedia", train_per_label=ALL, seed=SEED), LEARNED["db"])
    if name == "frdev":
        others = np.setdiff1d(np.arange(64), TEN)
        chosen = np.random.default_rng(SEED).choice(others, 16, replace=False)
        return hold_out(load_task("fewrel", labels=sorted(chosen.tolist()), seed=SEED), LEARNED["frdev"])
    labels = TEN if name == "fr10" else None
    return hold_out(load_task("fewrel", labels=labels, seed=SEED), ALL, VALIDATION_SHARE)


@lru_cache
def tested() -> frozenset[str]:
    """Keys of all test texts."""
    tasks = (load_task(name, seed=SEED) for name in ("fewrel", "agnews", "dbpedia"))
    return frozenset(copy_key(text) for task in tasks for text in task.test_texts)


@lru_cache
def held_out() -> frozenset[str]:
    """Keys of all texts that no pre-training may see: those that validate, and test texts."""
    return tested() | {copy_key(text) for task in splits().values() for text in task.test_texts}


@lru_cache
def own_texts() -> list[str]:
    """Distinct training texts of all tasks that do not validate another task."""
    texts = {copy_key(text): text for task in splits().values() for text in task.train_texts}
    return [text for key, text in texts.items() if key not in held_out()]


@lru_cache
def paragraphs(w_s: int) -> tuple[list[str], list[str]]:
    """W_S, and the paragraphs on which the loss of masked language modelling is measured.

    Raises:
        UserError: there are fewer.
    """
    leads = _shuffled(_usable(LEADS))
    leads, measured = leads[:-MEASURED], leads[-MEASURED:]
    if w_s > len(leads):
        leads += _shuffled(text for file in MORE for text in _usable(file))
    if w_s > len(leads):
        raise UserError(f"W_S is {w_s:,}; there are {len(leads):,} paragraphs.")
    return leads[:w_s], measured


def articles_of(name: str) -> list[str]:
    """The texts of a file of Wikipedia.

    Raises:
        UserError: the file is not there.
    """
    file = f"wikipedia/{name}.parquet"
    path = find_local(file)
    if path is None:
        raise UserError(f"{file} is not there; put it into the folder that TINYLM_DATA names.")
    return [article.text for article in open_corpus(str(path)).articles()]


def _usable(name: str) -> list[str]:
    return [text for text in articles_of(name) if copy_key(text) not in held_out()]


def _shuffled(texts: Iterable[str]) -> list[str]:
    texts = list(texts)
    return [texts[row] for row in np.random.default_rng(SEED).permutation(len(texts))]


@dataclass(frozen=True)
class Prepared:
    """All texts in the tokens of one vocabulary, in a folder.

    Attributes:
        folder: see `prepare`.
        tokenizer: of its vocabulary.
    """

    folder: Path
    tokenizer: Tokenizer

    def ids(self, name: str) -> TokenIds:
        """Token ids of `w_s`, `own` or `measured`."""
        return open_store(self.folder / name)[0]

    def fingerprint(self, name: str) -> str:
        """Hash of the texts of a task."""
        return str(open_store(self.folder / f"{name}-train")[1]["fingerprint"])

    def task(self, name: str) -> EncodedTask:
        """A task of `splits`."""
        train, learned = open_store(self.folder / f"{name}-train")
        test, validated = open_store(self.folder / f"{name}-test")
        labels = (np.array(meta["labels"], np.int64) for meta in (learned, validated))
        return EncodedTask(train, next(labels), test, next(labels), learned["n_labels"])


@dataclass(frozen=True)
class Linear:
    """The strong linear model of a task.

    Attributes:
        logits: its margins on the texts that validate, `float32 [texts, labels]`.
        seconds: of processor time, for training and these predictions.
    """

    logits: np.ndarray
    seconds: float


@lru_cache(maxsize=2)
def prepare(vocabulary: int, vocabulary_of: str, w_s: int, max_tokens: int) -> Prepared:
    """All texts, tokenized now or found in the cache folder.

    Args:
        vocabulary: number of its tokens.
        vocabulary_of: see `Variant`.
        w_s: paragraphs to pre-train on.
        max_tokens: texts are cut there, [CLS] and [SEP] included.
    """
    name = (
        f"recipe/texts/{key_of({'edition': EDITION, 'texts': [vocabulary, vocabulary_of, w_s, max_tokens]})}"
    )
    folder = cached(name)
    if not folder.is_dir():
        with locked(_lock(name)):  # another process may be at the same
            if not folder.is_dir():
                chosen, measured = paragraphs(w_s)
                own = own_texts()
                if vocabulary_of == "together":
                    tokenizer = train_tokenizer([*chosen, *own], vocabulary)
                else:
                    tokenizer = train_tokenizer(chosen, vocabulary, first=own)
                _tokenize(tokenizer, {"w_s": chosen, "own": own, "measured": measured}, max_tokens, folder)
    return Prepared(folder, load_tokenizer(folder))


def _tokenize(tokenizer: Tokenizer, texts: dict[str, list[str]], max_tokens: int, folder: Path) -> None:
    with new_folder(folder) as temporary:
        tokenizer.save_vocab(temporary)
        for name, part in texts.items():
            tokenizer.encode(part, max_tokens).save(temporary / name, {})
        for name, split in splits().items():
            task = encode_task(split, tokenizer, max_tokens)
            meta = {"n_labels": task.n_labels, "fingerprint": split.fingerprint}
            task.train.save(temporary / f"{name}-train", meta | {"labels": task.train_labels.tolist()})
            task.test.save(temporary / f"{name}-test", meta | {"labels": task.test_labels.tolist()})


def linear(name: str) -> Linear:
    """The strong linear model of a task, trained now or found in the cache folder."""
    file = cached(f"recipe/linear/{name}-{EDITION}.npz")
    if not file.is_file():
        with locked(_lock(f"recipe/linear/{name}")):
            if not file.is_file():
                begin, task = time.process_time(), splits()[name]
                margins = (
                    linear_svm().fit(task.train_texts, task.train_labels).decision_function(task.test_texts)
                )
                seconds = time.process_time() - begin
                with new_file(file) as temporary, temporary.open("wb") as out:
                    np.savez_compressed(out, logits=margins.astype(np.float32), seconds=seconds)
    with np.load(file) as found:
        return Linear(found["logits"], float(found["seconds"]))


def _lock(name: str) -> Path:
    return cache_folder() / "locks" / name.replace("/", "-")
