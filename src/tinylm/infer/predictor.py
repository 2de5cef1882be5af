"""From logits to decisions: what a committee in memory and an exported one have in common.

It needs numpy, but neither PyTorch nor onnxruntime.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np

from tinylm.errors import UserError
from tinylm.text.store import TokenIds
from tinylm.text.tokenizer import Tokenizer

LOW_COVERAGE = 0.5  # with this share of rare tokens or more, a prediction is a guess
# The same holds where a text's tokens are this much shorter than those of pre-training. Of 300 openings of
# the English Wikipedia, the shortest are 0.70 times as long; in German, French, Spanish, Polish and Turkish
# they are at most 0.62 times as long.
SHORT_PIECES = 0.65
# How labels are written in a saved model.
READ_LABEL: dict[str, Any] = {"int": int, "float": float, "bool": "True".__eq__, "str": str}


def decide(probabilities: np.ndarray, thresholds: np.ndarray | None) -> np.ndarray:
    """Which labels `probabilities [texts, labels]` mean, `bool [texts, labels]`.

    Args:
        probabilities: of each label.
        thresholds: `[labels]`; a text has every label that reaches its threshold, perhaps none. None
            where a text has one label: the most probable.
    """
    if thresholds is not None:
        return np.asarray(probabilities >= thresholds)
    labels = np.arange(probabilities.shape[1])
    return np.asarray(labels == probabilities.argmax(1)[:, None])


def check_labels(predictor: Predictor) -> None:
    """Refuse what a damaged file says of labels and columns.

    Raises:
        ValueError, KeyError, TypeError: the names are not labels of that type, or columns no names.
    """
    _ = predictor.labels
    columns = predictor.text_columns
    if columns is not None and not (
        isinstance(columns, list) and all(isinstance(column, str) for column in columns)
    ):
        raise TypeError(f"text_columns is {columns!r:.60}")


class Predictor(ABC):
    """A soft committee that predicts: the sum of its members' logits decides.

    Attributes:
        label_names: in the order of the logits.
        label_type: type of the labels in the fit, a key of `READ_LABEL`.
        member_names: such as "BERT-1, 4 heads".
        temperature: the summed logits are divided by it before they become probabilities, see
            `calibration.py`. At 1, the default, the probabilities are over-confident, unless the members'
            weights see to that as those of `tinylm fit` do.
        thresholds: `float64 [labels]` where a text may have several labels, or none; else None.
        tokenizer: of the first member.
        max_tokens: of the first member, which cuts texts there; [CLS] and [SEP] included.
        rare: `bool [vocab]`, which tokens of the first member were rare in pre-training; None if unknown.
            [UNK] is always one of them, since each time it stands for another word.
        piece_length: mean length of a token that begins with a letter, in pre-training; None if unknown.
        text_columns: columns of the table of the fit, whose texts were joined; None if unknown.
    """

    label_names: list[str]
    label_type: str = "str"
    member_names: list[str]
    temperature: float
    thresholds: np.ndarray | None
    tokenizer: Tokenizer
    max_tokens: int
    rare: np.ndarray | None
    piece_length: float | None = None
    text_columns: list[str] | None = None

    @abstractmethod
    def member_logits(self, texts: Sequence[str]) -> np.ndarray:
        """Each member's logits, `float32 [members, texts, labels]`.

        Raises:
            UserError: something that is not a text.
        """

    @property
    def multi_label(self) -> bool:
        """Whether a text may have several labels, or none."""
        return self.thresholds is not None

    @property
    def labels(self) -> list[Any]:
        """`label_names` as they were given to the fit: numbers are numbers."""
        return [READ_LABEL[self.label_type](name) for name in self.label_names]

    @property
    def classes_(self) -> np.ndarray:
        """`labels` as scikit-learn has them."""
        return np.array(self.labels)

    def decision_function(self, texts: Sequence[str]) -> np.ndarray:
        """The sum of the members' logits, `float32 [texts, labels]`."""
        out: np.ndarray = self.member_logits(texts).sum(0)
        return out

    def probabilities_of(self, logits: np.ndarray) -> np.ndarray:
        """Softmax of summed `logits [..., labels]`, or the sigmoid of each where a text may have several.

        They are divided by the temperature first, which changes no decision on one label.
        """
        logits = logits / np.float32(self.temperature)
        if self.multi_label:
            return np.asarray(0.5 * (1 + np.tanh(0.5 * logits)))  # the sigmoid, without overflow
        weights = np.exp(logits - logits.max(-1, keepdims=True))
        return np.asarray(weights / weights.sum(-1, keepdims=True))

    def predict_proba(self, texts: Sequence[str]) -> np.ndarray:
        """Probability of each label, `float32 [texts, labels]`; see `probabilities_of`."""
        return self.probabilities_of(self.decision_function(texts))

    def predict(self, texts: Sequence[str]) -> list[Any]:
        """The label of each text, or the list of its labels where it may have several."""
        labels = self.labels
        decisions = decide(self.predict_proba(texts), self.thresholds)
        found = [[labels[i] for i in np.flatnonzero(row)] for row in decisions]
        return found if self.multi_label else [label for (label,) in found]

    def rare_token_share(self, texts: Sequence[str]) -> np.ndarray:
        """Share of each text's tokens that pre-training hardly met, `float64 [texts]`.

        A text without tokens has a share of 1.

        Raises:
            UserError: the committee does not know what its pre-training met.
        """
        return self._rare_token_share(self.tokenizer.encode(texts, self.max_tokens))

    def low_coverage(self, texts: Sequence[str]) -> np.ndarray:
        """Whether a prediction is a guess, `bool [texts]`.

        It is one if half of a text's tokens are rare. It is also one if the text's tokens are much
        shorter than those of pre-training: words of another language are cut into frequent syllables.

        Raises:
            UserError: the rare tokens of the committee are unknown.
        """
        encoded = self.tokenizer.encode(texts, self.max_tokens)
        low = self._rare_token_share(encoded) >= LOW_COVERAGE
        if self.piece_length is None:
            return low
        letters = self.tokenizer.letters[encoded.ids]
        pieces, characters = (
            np.add.reduceat(values, encoded.offsets[:-1], dtype=np.int64) for values in (letters > 0, letters)
        )
        return np.asarray(low | (characters < SHORT_PIECES * self.piece_length * pieces))

    def _rare_token_share(self, encoded: TokenIds) -> np.ndarray:
        if self.rare is None:
            raise UserError("the model does not know which tokens are rare; only those of 'tinylm fit' do.")
        words = encoded.lengths - 2  # without [CLS] and [SEP]
        counts = np.add.reduceat(self.rare[encoded.ids], encoded.offsets[:-1], dtype=np.int64)
        return np.where(words > 0, counts / np.maximum(words, 1), 1.0)

    def read(self, text: str) -> tuple[int, list[tuple[int, int]] | None]:
        """How much of a text is read, and which parts of that were rare in pre-training.

        Returns:
            Number of characters up to the end of the last token that fits into `max_tokens`, and start
            and end of each rare token; None if rare tokens are unknown.
        """
        ids, spans, end = self.tokenizer.spans(text, self.max_tokens)
        if self.rare is None:
            return end, None
        return end, [span for token, span in zip(ids, spans, strict=True) if self.rare[token]]
