"""Suite `inference`: from texts to labels, tokenizing included, on two threads.

The reference is a BERT-6 of `transformers` in fp32. Beside it stands the same BERT-6 in
our own engine and precision, the fair rival of a committee. Weights are new: they do
not change how long an answer takes.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tinylm.bench import arithmetic
from tinylm.bench.measure import MILLISECONDS, Machine, Measured, alternate, summarise
from tinylm.bench.reference import ReferenceClassifier
from tinylm.bench.texts import N_LABELS, openings, sentences
from tinylm.classifier import Classifier
from tinylm.committee import Committee
from tinylm.latency import measure_latency
from tinylm.model.config import Convolution, ModelConfig
from tinylm.model.heads import SequenceClassifier
from tinylm.text.tokenizer import Tokenizer

THREADS = 2
TOKENS = 32  # of every text of which the latency is measured
LATENCY_TEXTS = 40
THROUGHPUT_TEXTS = 128

BERT_1: dict[str, Any] = {"layers": 1}
# The five members of Table 8.
TABLE_8: list[dict[str, Any]] = [
    {"layers": 1, "heads": 8, "convolution": Convolution(layers=2, channels=64)},
    {"layers": 1, "heads": 12, "convolution": Convolution(layers=2, channels=64)},
    {"layers": 1, "heads": 24},
    {"layers": 1, "heads": 12, "convolution": Convolution(layers=2, channels=64, kernel=(16, 3))},
    {"layers": 1, "heads": 12, "convolution": Convolution(layers=3, channels=32)},
]
CASES = {
    "single-bert1": [BERT_1],
    "committee-5": [BERT_1] * 5,
    "committee-5-paper": TABLE_8,
    "throughput-committee-5": [BERT_1] * 5,
}


def measure_case(name: str, rounds: int, machine: Machine) -> Measured:
    """Measure one of CASES."""
    tokenizer, vocabulary = openings()[0].tokenizer, openings()[1].split(", ")[1]
    chosen = sentences()
    lengths = tokenizer.encode(chosen.texts).lengths
    throughput = name.startswith("throughput")
    rows = np.arange(THROUGHPUT_TEXTS) if throughput else np.flatnonzero(lengths == TOKENS)[:LATENCY_TEXTS]
    texts = [chosen.texts[row] for row in rows]
    members = [ModelConfig(vocab_size=len(tokenizer), **shape) for shape in CASES[name]]
    details = {"texts": f"{chosen.source}, {vocabulary}", "tokens_per_text": float(lengths[rows].mean())}
    return compare(name, tokenizer, members, texts, throughput, rounds, machine, details)


def compare(
    name: str,
    tokenizer: Tokenizer,
    members: list[ModelConfig],
    texts: list[str],
    throughput: bool,
    rounds: int,
    machine: Machine,
    details: dict[str, Any],
) -> Measured:
    """Let a committee, the reference and our own BERT-6 answer in turn.

    Args:
        name: of the case.
        tokenizer: of all of them.
        members: architectures of the committee, the first of which tells the vocabulary.
        texts: to answer.
        throughput: all texts at once, in texts per second; otherwise one at a time, in ms.
        rounds: how often.
        machine: its rate in fp32, in which models answer, gives the limit.
        details: goes on in those of the result.
    """
    deep = ModelConfig(vocab_size=len(tokenizer))
    answers = [
        new_committee(tokenizer, members).predict,
        ReferenceClassifier(tokenizer, deep, N_LABELS).predict,
        new_committee(tokenizer, [deep]).predict,
    ]
    lengths = tokenizer.encode(texts).lengths
    needed = sum(arithmetic.sequence_classifier(config, lengths, N_LABELS) for config in members)
    per_second = machine.fp32 * len(texts) / needed
    counts = [config.layer_count for config in members]
    details = details | {
        "layer_count": {"longest member": max(counts), "all members": sum(counts), "BERT-6": deep.layer_count}
    }
    other = "BERT-6, same engine"
    if throughput:
        for answer in answers:
            answer(texts[:2])
        seconds = alternate([lambda answer=answer: answer(texts) for answer in answers], rounds)  # type: ignore[misc]
        return summarise(name, len(texts) / seconds, "texts/s", per_second, other, details)
    latencies = [measure_latency(answers, texts) for _ in range(rounds)]
    p50, p95 = (np.array([[getattr(x, q) for x in row] for row in latencies]) for q in ("p50", "p95"))
    slow = dict(zip(("ours", "reference", "other"), np.median(p95, axis=0).tolist(), strict=True))
    details = details | {"p95": slow}
    return summarise(name, p50, MILLISECONDS, 1000 / per_second, other, details)


def new_committee(tokenizer: Tokenizer, members: list[ModelConfig]) -> Committee:
    """A committee with new weights."""
    labels = [f"label {number}" for number in range(N_LABELS)]
    return Committee(
        [Classifier(SequenceClassifier(config, N_LABELS), tokenizer, labels) for config in members]
    )
