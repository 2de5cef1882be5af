"""Classifiers with random weights."""

from __future__ import annotations

import torch

from tinylm.infer.classifier import Classifier
from tinylm.model.config import ModelConfig
from tinylm.model.heads import SequenceClassifier
from tinylm.text.tokenizer import SPECIAL_TOKENS, Tokenizer

LABELS = ["red", "green", "blue"]


WORDS = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]


TOKENIZERS = [
    Tokenizer([*SPECIAL_TOKENS, *WORDS, ",", "!"]),
    Tokenizer([*SPECIAL_TOKENS, *reversed(WORDS[:6]), *"abcdefgh"]),
]


def make_classifier(seed: int, tokenizer: Tokenizer = TOKENIZERS[0], **shape: object) -> Classifier:
    torch.manual_seed(seed)
    shape = {"layers": 1, "heads": 1, "max_tokens": 32, "init_std": 0.3} | shape
    config = ModelConfig(vocab_size=len(tokenizer), **shape)
    return Classifier(SequenceClassifier(config, len(LABELS)), tokenizer, LABELS)


def constant_classifier(*field: float) -> Classifier:
    """Answers every text with this field."""
    member = make_classifier(0)
    torch.nn.init.zeros_(member.model.classifier.weight)
    member.model.classifier.bias.data = torch.tensor(field)
    return member
