"""Classifiers with random weights."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from tinylm.infer.classifier import Classifier
from tinylm.model.config import ModelConfig
from tinylm.model.heads import SequenceClassifier
from tinylm.model.huggingface import module_of
from tinylm.model.logits import logits_of
from tinylm.model.storage import StoredClassifier
from tinylm.text.tokenizer import SPECIAL_TOKENS, Tokenizer

LABELS = ["red", "green", "blue"]


WORDS = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]


TOKENIZERS = [
    Tokenizer([*SPECIAL_TOKENS, *WORDS, ",", "!"]),
    Tokenizer([*SPECIAL_TOKENS, *reversed(WORDS[:6]), *"abcdefgh"]),
]


def make_module(seed: int, tokenizer: Tokenizer = TOKENIZERS[0], **shape: object) -> SequenceClassifier:
    torch.manual_seed(seed)
    shape = {"layers": 1, "heads": 1, "max_tokens": 32, "init_std": 0.3} | shape
    return SequenceClassifier(ModelConfig(vocab_size=len(tokenizer), **shape), len(LABELS)).eval()


def make_classifier(seed: int, tokenizer: Tokenizer = TOKENIZERS[0], **shape: object) -> Classifier:
    return Classifier.of(make_module(seed, tokenizer, **shape), tokenizer, LABELS)


def constant_classifier(*logits: float) -> Classifier:
    """Gives every text these logits."""
    module = make_module(0)
    torch.nn.init.zeros_(module.classifier.weight)
    module.classifier.bias.data = torch.tensor(logits)
    return Classifier.of(module, TOKENIZERS[0], LABELS)


def torch_logits(member: Classifier, texts: Sequence[str]) -> np.ndarray:
    """The member's logits computed by PyTorch, from weights on their way to disk and back."""
    module = module_of(StoredClassifier(member.config, member.weights, member.label_names))
    return logits_of(module, member.tokenizer.encode(texts, member.config.max_tokens))
