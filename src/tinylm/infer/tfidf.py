"""The TF-IDF member of a committee, beside its `Classifier`s."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tinylm.errors import UserError
from tinylm.model.config import TfidfConfig
from tinylm.model.storage import SCALE, WEIGHTS, StoredClassifier, write_model
from tinylm.model.tfidf import TfidfModel


class TfidfMember:
    """A `TfidfModel` with the names of its labels. It has no tokenizer and does not predict alone.

    Args:
        model: as trained.
        label_names: in the order of the logits.
    """

    def __init__(self, model: TfidfModel, label_names: Sequence[str]) -> None:
        self.model = model
        self.config = TfidfConfig(rows=len(model.idf))
        self.label_names = list(label_names)

    @classmethod
    def of(cls, stored: StoredClassifier, folder: Path) -> TfidfMember:
        """What `save` wrote and `read_classifier` read.

        Raises:
            UserError: it has no scales.
        """
        weight, idf, bias = (stored.weights[f"tfidf.{name}"] for name in ("weight", "idf", "bias"))
        if weight.scale is None:
            raise UserError(f"{folder / WEIGHTS} lacks the scales of its weights; save the committee again.")
        return cls(TfidfModel(idf.data, weight.data, weight.scale, bias.data), stored.label_names)

    @property
    def parameters(self) -> int:
        """Number of its weights."""
        return self.model.weight.size

    def save(self, folder: Path, int8: bool = False) -> None:
        """Write the model, always in 8 bits, whatever `int8` is."""
        model = self.model
        weights = {
            "tfidf.weight": model.weight,
            "tfidf.weight" + SCALE: model.scale,
            "tfidf.idf": model.idf,
            "tfidf.bias": model.bias,
        }
        write_model(folder, self.config, weights, self.label_names)
