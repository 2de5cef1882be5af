"""Suite `infer-cpu`: from texts to labels, tokenizing included, on two threads.

Ours have int8 weights, in onnxruntime. The reference is a BERT-6 of `transformers` in fp32. The other
one is the same BERT-6 in our runtime and precision, a fair rival of the committee. The weights are
random, since they do not change how long a prediction takes. Only what int8 costs in accuracy is
measured on trained weights.

The cases `engines` run one committee in three engines: onnxruntime in fp32 (ours, which `predict`
uses), our PyTorch modules (the reference) and onnxruntime in int8.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from tinylm.bench.measure import MILLISECONDS, Machine, Measured, alternate, summarise
from tinylm.bench.reference import ReferenceClassifier
from tinylm.bench.texts import N_LABELS, openings, sentences
from tinylm.bench.trained import TrainedCommittee, trained_committee
from tinylm.infer.classifier import Classifier
from tinylm.infer.committee import Committee
from tinylm.infer.latency import measure_latency
from tinylm.model import flops
from tinylm.model.config import Convolution, ModelConfig
from tinylm.model.heads import SequenceClassifier
from tinylm.model.logits import logits_of
from tinylm.ops import HEAD_WIDTH
from tinylm.text.tokenizer import Tokenizer
from tinylm.train.finetune import accuracy_of

Predict = Callable[[Sequence[str]], object]  # such as `Committee.predict`

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
# Four BERT-1 of one width, one text and batches.
ENGINES = {f"engines-{HEAD_WIDTH * heads}": [{"layers": 1, "heads": heads}] * 4 for heads in (1, 2, 4, 8, 12)}
CASES |= ENGINES | {f"throughput-{name}": members for name, members in ENGINES.items()}


def measure_case(name: str, rounds: int, machine: Machine) -> Measured:
    """Measure one of CASES."""
    tokenizer, vocabulary = openings()[0].tokenizer, openings()[1].split(", ")[1]
    chosen = sentences()
    lengths = tokenizer.encode(chosen.texts).lengths
    throughput = name.startswith("throughput")
    rows = np.arange(THROUGHPUT_TEXTS) if throughput else np.flatnonzero(lengths == TOKENS)[:LATENCY_TEXTS]
    texts = [chosen.texts[row] for row in rows]
    members = [ModelConfig(vocab_size=len(tokenizer), **shape) for shape in CASES[name]]
    details: dict[str, Any] = {"texts": f"{chosen.source}, {vocabulary}"}
    if "engines" in name:
        return compare_engines(name, tokenizer, members, texts, rounds, machine, details)
    ours = new_committee(tokenizer, members, int8=True)
    if name == "committee-5":
        details |= _accuracies(trained_committee())
    return compare(name, tokenizer, members, ours.predict, texts, rounds, machine, details)


def _accuracies(trained: TrainedCommittee) -> dict[str, Any]:
    """Test accuracy of the trained members and of the committee, in fp32 and in int8."""
    texts, labels = trained.task.test_texts, trained.task.test_labels
    committees = {"fp32": trained.committee, "int8": Committee(trained.committee.members, int8=True)}
    accuracy: dict[str, Any] = {}
    for name, committee in committees.items():
        logits = committee.member_logits(texts)
        accuracy[f"members {name}"] = [round(accuracy_of(row, labels), 4) for row in logits]
        accuracy[f"committee {name}"] = round(accuracy_of(logits.sum(0), labels), 4)
    return {
        "trained_on": f"{len(trained.task.train_texts):,} texts of {trained.task.name}",
        "accuracy": accuracy,
    }


def compare(
    name: str,
    tokenizer: Tokenizer,
    members: list[ModelConfig],
    ours: Predict,
    texts: list[str],
    rounds: int,
    machine: Machine,
    details: dict[str, Any],
) -> Measured:
    """Let ours, the reference and our own BERT-6 predict in turn.

    Args:
        name: of the case. With "throughput" in front, all texts are predicted at once, in texts
            per second; otherwise one at a time, the median in ms.
        tokenizer: of all three.
        members: architectures of ours, to count the flops.
        ours: what is measured.
        texts: to predict.
        rounds: how often.
        machine: its rates give the limit, in bf16 for convolutions and in fp32 for the rest.
        details: are part of the result's.
    """
    deep = ModelConfig(vocab_size=len(tokenizer))
    predictors: list[Predict] = [
        ours,
        ReferenceClassifier(tokenizer, deep, N_LABELS).predict,
        new_committee(tokenizer, [deep], int8=True).predict,
    ]
    lengths = tokenizer.encode(texts).lengths
    fastest = 0.0  # seconds
    for config in members:
        front = flops.front_end(config, int(lengths.max())) * len(texts)
        rest = flops.sequence_classifier(config, lengths, N_LABELS) - front
        fastest += front / machine.best + rest / machine.fp32
    per_second = len(texts) / fastest
    counts = [config.layer_count for config in members]
    details = details | {
        "tokens_per_text": round(float(lengths.mean()), 1),
        "layer_count": {
            "longest member": max(counts),
            "all members": sum(counts),
            "BERT-6": deep.layer_count,
        },
    }
    other = "BERT-6, same engine"
    if name.startswith("throughput"):
        for predict in predictors:
            predict(texts[:2])
        seconds = alternate([partial(predict, texts) for predict in predictors], rounds)
        return summarise(name, len(texts) / seconds, "texts/s", per_second, other, details)
    latencies = [measure_latency(predictors, texts) for _ in range(rounds)]
    p50, p95 = (np.array([[getattr(x, q) for x in row] for row in latencies]) for q in ("p50", "p95"))
    slow = dict(zip(("ours", "reference", "other"), np.median(p95, axis=0).tolist(), strict=True))
    details = details | {"p95": slow}
    return summarise(name, p50, MILLISECONDS, 1000 / per_second, other, details)


def compare_engines(
    name: str,
    tokenizer: Tokenizer,
    members: list[ModelConfig],
    texts: list[str],
    rounds: int,
    machine: Machine,
    details: dict[str, Any],
) -> Measured:
    """Let the same committee predict in onnxruntime, in PyTorch, and in onnxruntime with int8 weights.

    Arguments as in `compare`.
    """
    labels = [f"label {number}" for number in range(N_LABELS)]
    modules = [SequenceClassifier(config, N_LABELS) for config in members]
    classifiers = [Classifier.of(module, tokenizer, labels) for module in modules]

    def in_pytorch(texts: Sequence[str]) -> object:
        encoded = tokenizer.encode(texts)
        return sum(logits_of(module, encoded) for module in modules)

    predictors: list[Predict] = [
        Committee(classifiers).predict,
        in_pytorch,
        Committee(classifiers, int8=True).predict,
    ]
    lengths = tokenizer.encode(texts).lengths
    seconds = sum(flops.sequence_classifier(config, lengths, N_LABELS) for config in members) / machine.fp32
    details = details | {"ours": "onnxruntime fp32", "reference": "PyTorch fp32"}
    if name.startswith("throughput"):
        for predict in predictors:
            predict(texts[:2])
        taken = alternate([partial(predict, texts) for predict in predictors], rounds)
        return summarise(
            name, len(texts) / taken, "texts/s", len(texts) / seconds, "onnxruntime int8", details
        )
    latencies = [measure_latency(predictors, texts) for _ in range(rounds)]
    p50 = np.array([[latency.p50 for latency in row] for row in latencies])
    return summarise(name, p50, MILLISECONDS, 1000 * seconds / len(texts), "onnxruntime int8", details)


def new_committee(tokenizer: Tokenizer, members: list[ModelConfig], int8: bool = False) -> Committee:
    """A committee with random weights."""
    labels = [f"label {number}" for number in range(N_LABELS)]
    modules = (SequenceClassifier(config, N_LABELS) for config in members)
    return Committee([Classifier.of(module, tokenizer, labels) for module in modules], int8=int8)
