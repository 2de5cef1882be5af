"""A fine-tuned model with its tokenizer: from texts to labels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tinylm.errors import UserError
from tinylm.infer.int8 import Int8Classifier
from tinylm.model.config import check_vocabulary
from tinylm.model.heads import SequenceClassifier
from tinylm.model.huggingface import load_classifier, save_model
from tinylm.model.logits import logits_of
from tinylm.model.tfidf import TfidfClassifier
from tinylm.text.tokenizer import Tokenizer, load_tokenizer

Model = SequenceClassifier | Int8Classifier | TfidfClassifier


class Classifier:
    """One fine-tuned model.

    Args:
        model: the weights, as trained or in int8.
        tokenizer: the one it was trained with.
        label_names: in the order of the logits.
    """

    def __init__(self, model: Model, tokenizer: Tokenizer, label_names: Sequence[str]) -> None:
        check_vocabulary(model.config, tokenizer)
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.label_names = list(label_names)

    def logits(self, texts: Sequence[str]) -> np.ndarray:
        """Raw output fields, `float32 [texts, labels]`."""
        return logits_of(self.model, self.tokenizer.encode(texts, self.model.config.max_tokens))

    def int8(self) -> Classifier:
        """The same classifier with int8 weights: faster answers on a CPU, nearly the same logits.

        A linear member stays as it is: it reads a few rows of its weights.
        """
        if not isinstance(self.model, SequenceClassifier):
            return self
        return Classifier(Int8Classifier(self.model), self.tokenizer, self.label_names)

    def save(self, folder: Path, int8: bool = False) -> None:
        """Write model and tokenizer; a BERT-n in fp32 can be loaded by `transformers.pipeline`.

        Args:
            folder: where to.
            int8: see `save_model`.

        Raises:
            UserError: the weights are int8.
        """
        if isinstance(self.model, Int8Classifier):
            raise UserError("a classifier with int8 weights cannot be saved; save the one it was made from.")
        save_model(self.model, folder, self.label_names, int8)
        if int8:  # `transformers`, for which the rest is, cannot read this model
            self.tokenizer.save_vocab(folder)
        else:
            self.tokenizer.save(folder, self.model.config.max_tokens)

    @classmethod
    def load(cls, folder: Path) -> Classifier:
        """Read a folder that `save` or `transformers` wrote.

        Raises:
            UserError: no classifier there, or a damaged one.
        """
        model, label_names = load_classifier(folder)
        return cls(model, load_tokenizer(folder), label_names)
