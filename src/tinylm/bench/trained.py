"""A committee that has learned a real task, for what speed must not cost: accuracy.

Five BERT-1 of the paper's width, fine-tuned on 100 texts of each class of DBpedia (topics of
`vital` where DBpedia is not available). Their word embeddings start from the neighbours of tokens
in `vital`, rotated at random for each member, and no masked language modelling follows.
Training takes some minutes; the weights are kept in the cache folder.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from tinylm.bench.texts import openings
from tinylm.infer.classifier import Classifier
from tinylm.infer.committee import Committee, load_committee
from tinylm.model.config import ModelConfig
from tinylm.system.files import key_of, new_folder, write_record
from tinylm.system.paths import cached, find_local
from tinylm.text.tasks import Task, hold_out, load_task
from tinylm.text.tokenizer import Tokenizer
from tinylm.train.cooccurrence import token_vectors
from tinylm.train.finetune import encode_task, finetune
from tinylm.train.pretrain import new_model
from tinylm.train.recipes import RECIPES

MEMBERS = 5
TRAIN_PER_LABEL = 100
ROWS = {"dbpedia": (600, 500), "vital-topics": (150, 100)}  # per label: trained or held out, and test
# Plain fine-tuning of [CLS], as the members have whose speed is measured.
RECIPE = RECIPES["sketch"].with_epochs(finetune=6, learning_rate=3e-4)


@dataclass(frozen=True)
class TrainedCommittee:
    """What it has learned, and the texts it has not seen.

    Attributes:
        committee: weights in fp32.
        task: its training texts are those that the members were trained on.
        held_out: texts of the same labels that are neither trained nor tested on.
    """

    committee: Committee
    task: Task
    held_out: list[str]


@lru_cache
def trained_committee() -> TrainedCommittee:
    """Train the members, or find them in the cache folder."""
    tokenizer = openings()[0].tokenizer
    name = "dbpedia" if find_local("dbpedia/train.csv") else "vital-topics"
    train_rows, test_rows = ROWS[name]
    full = load_task(name, train_per_label=train_rows, test_per_label=test_rows)
    task, held_out, _ = hold_out(full, TRAIN_PER_LABEL)
    identity = {
        "task": full.fingerprint,
        "tokenizer": tokenizer.fingerprint,
        "train_per_label": TRAIN_PER_LABEL,
        "neighbour_window": RECIPE.neighbour_window,
        "finetune": RECIPE.finetune.model_dump(),
    }
    folder = cached(f"bench/{name}-{key_of(identity)}")
    if not folder.is_dir():
        committee = _train(task, tokenizer)
        with new_folder(folder) as partial:
            committee.save(partial)
            write_record(partial, "committee", identity=identity)
    return TrainedCommittee(load_committee(folder), task, held_out)


def _train(task: Task, tokenizer: Tokenizer) -> Committee:
    config = ModelConfig(vocab_size=len(tokenizer), layers=1)
    encoded, paragraphs = encode_task(task, tokenizer), openings()[0].paragraphs
    assert RECIPE.neighbour_window is not None
    vectors = token_vectors(paragraphs, tokenizer, config.width, RECIPE.neighbour_window)
    members = []
    for seed in range(MEMBERS):
        label = f"member {seed + 1} of {MEMBERS}"
        start = new_model(paragraphs, tokenizer, config, RECIPE, seed=seed, vectors=vectors)
        result = finetune(encoded, tokenizer, start, RECIPE, seed=seed, label=label, test_each_epoch=False)
        members.append(Classifier.of(result.model, tokenizer, task.label_names))
    return Committee(members)
