"""A fine-tuned model with its tokenizer: a member of a committee."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tinylm.model.config import TfidfConfig, TokenConfig, check_vocabulary
from tinylm.model.storage import StoredClassifier, read_classifier, write_model
from tinylm.model.weights import Weight, Weights
from tinylm.text.tokenizer import Tokenizer, load_tokenizer

if TYPE_CHECKING:  # PyTorch, which predictions do not need
    from tinylm.model.heads import SequenceClassifier


class Classifier:
    """One fine-tuned model, as weights; a `Committee` of it predicts.

    Args:
        stored: configuration, weights and labels.
        tokenizer: the one it was trained with.
    """

    def __init__(self, stored: StoredClassifier, tokenizer: Tokenizer) -> None:
        assert not isinstance(stored.config, TfidfConfig)  # it has no tokenizer, see `tfidf.py`
        check_vocabulary(stored.config, tokenizer)
        self.config: TokenConfig = stored.config
        self.weights: Weights = stored.weights
        self.label_names = stored.label_names
        self.tokenizer = tokenizer

    @classmethod
    def of(cls, model: SequenceClassifier, tokenizer: Tokenizer, label_names: Sequence[str]) -> Classifier:
        """A classifier with a copy of a PyTorch model's weights, which further training does not change.

        Args:
            model: as trained.
            tokenizer: the one it was trained with.
            label_names: in the order of the logits.
        """
        from tinylm.model.huggingface import weights_of

        weights = {name: Weight(array) for name, array in weights_of(model).items()}
        return cls(StoredClassifier(model.config, weights, list(label_names)), tokenizer)

    @property
    def parameters(self) -> int:
        """Number of its weights."""
        return sum(weight.data.size for weight in self.weights.values())

    def save(self, folder: Path, int8: bool = False) -> None:
        """Write model and tokenizer; a BERT-n in fp32 can be loaded by `transformers.pipeline`.

        Args:
            folder: where to.
            int8: see `write_model`.
        """
        weights = {name: weight.value for name, weight in self.weights.items()}
        write_model(folder, self.config, weights, self.label_names, int8)
        if int8:  # `transformers`, for which the rest is, cannot read this model
            self.tokenizer.save_vocab(folder)
        else:
            self.tokenizer.save(folder, self.config.max_tokens)

    @classmethod
    def load(cls, folder: Path) -> Classifier:
        """Read a folder that `save` or `transformers` wrote.

        Raises:
            UserError: no classifier there, or a damaged one.
        """
        return cls(read_classifier(folder), load_tokenizer(folder))
