"""A fine-tuned model with its tokenizer: from texts to labels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tinylm.model.heads import SequenceClassifier
from tinylm.model.huggingface import load_sequence_classifier, save_model
from tinylm.model.inference import logits_of
from tinylm.text.tokenizer import Tokenizer, load_tokenizer
from tinylm.train.pretrain import check_vocabulary


class Classifier:
    """One fine-tuned model.

    Args:
        model: the weights.
        tokenizer: the one it was trained with.
        label_names: in the order of the logits.
    """

    def __init__(self, model: SequenceClassifier, tokenizer: Tokenizer, label_names: Sequence[str]) -> None:
        check_vocabulary(model.config, tokenizer)
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.label_names = list(label_names)

    def logits(self, texts: Sequence[str]) -> np.ndarray:
        """Raw output fields, `float32 [texts, labels]`."""
        return logits_of(self.model, self.tokenizer.encode(texts, self.model.config.max_tokens))

    def save(self, folder: Path) -> None:
        """Write model and tokenizer; a BERT-n can be loaded by `transformers.pipeline`."""
        save_model(self.model, folder, self.label_names)
        self.tokenizer.save(folder, self.model.config.max_tokens)

    @classmethod
    def load(cls, folder: Path) -> Classifier:
        """Read a folder that `save` or `transformers` wrote.

        Raises:
            UserError: no classifier there, or a damaged one.
        """
        model, label_names = load_sequence_classifier(folder)
        return cls(model, load_tokenizer(folder), label_names)
