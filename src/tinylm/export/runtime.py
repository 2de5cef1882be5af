"""An exported committee: from texts to labels with nothing but numpy, onnxruntime and tokenizers.

An export is a folder of three files: `model.onnx`, the graph of the whole committee (see
`model/onnx_graph.py`), `tokenizer.json`, and `tinylm-onnx.json`, what else a decision needs.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import tokenizers

from tinylm.errors import UserError
from tinylm.system.cores import cores
from tinylm.text.prefix import encode_prefixes

GRAPH, TOKENIZER, DECISION = "model.onnx", "tokenizer.json", "tinylm-onnx.json"
BATCH = 64  # texts


class OnnxClassifier:
    """A committee in ONNX form; `load_onnx` makes one.

    Attributes:
        label_names: in the order of the logits.
        members: what the members are called, such as "BERT-1, 4 heads".
        max_tokens: texts are cut there, [CLS] and [SEP] included.
        multi_label: whether a text may have several labels, or none.
        hardly_seen_ids: tokens that pre-training hardly met; None where nobody counted.
    """

    def __init__(
        self, session: onnxruntime.InferenceSession, tokenizer: tokenizers.Tokenizer, decision: dict[str, Any]
    ) -> None:
        self._session, self._tokenizer = session, tokenizer
        self.label_names: list[str] = decision["label_names"]
        self.members: list[str] = decision["members"]
        self.max_tokens: int = decision["max_tokens"]
        self.multi_label: bool = decision["multi_label"]
        self.temperature: float = decision["temperature"]
        self.thresholds = np.array(decision["thresholds"], np.float64)
        seldom = decision["hardly_seen"]
        self.hardly_seen_ids: frozenset[int] | None = None if seldom is None else frozenset(seldom)
        vocabulary = tokenizer.get_vocab()
        self._cls_id, self._sep_id = vocabulary["[CLS]"], vocabulary["[SEP]"]

    @property
    def classes_(self) -> np.ndarray:
        """`label_names` as scikit-learn has them."""
        return np.array(self.label_names)

    def member_logits(self, texts: Sequence[str]) -> np.ndarray:
        """Each member's raw output fields, `float32 [members, texts, labels]`.

        Raises:
            UserError: something that is no text.
        """
        rows = self._encode(texts)
        out = np.zeros((len(self.members), len(rows), len(self.label_names)), np.float32)
        # Texts of similar length share a batch, so that it holds little padding.
        order = sorted(range(len(rows)), key=lambda row: len(rows[row]))
        for start in range(0, len(order), BATCH):
            batch = order[start : start + BATCH]
            shape = (len(batch), len(rows[batch[-1]]))
            ids, mask = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
            for i, row in enumerate(batch):
                ids[i, : len(rows[row])] = rows[row]
                mask[i, : len(rows[row])] = 1
            feed = {"input_ids": ids, "attention_mask": mask}
            (out[:, batch],) = self._session.run(["member_logits"], feed)
        return out

    def logits(self, texts: Sequence[str]) -> np.ndarray:
        """The summed field, `float32 [texts, labels]`."""
        return self.member_logits(texts).sum(0)

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """Softmax of `logits [..., labels]`, or the sigmoid of each where a text may have several labels.

        They are divided by the temperature first. Where that is 1, nobody chose it: the sum of
        several confident fields is then more confident than it is right.
        """
        logits = logits / np.float32(self.temperature)
        if self.multi_label:
            return np.asarray(0.5 * (1 + np.tanh(0.5 * logits)))  # the sigmoid, without overflow
        weights = np.exp(logits - logits.max(-1, keepdims=True))
        return np.asarray(weights / weights.sum(-1, keepdims=True))

    def decide(self, probabilities: np.ndarray) -> list[list[str]]:
        """The labels that `probabilities [texts, labels]` mean: one a text, or all above their threshold."""
        if self.multi_label:
            chosen = probabilities >= self.thresholds
        else:
            chosen = np.arange(len(self.label_names)) == probabilities.argmax(1)[:, None]
        return [[self.label_names[i] for i in np.flatnonzero(row)] for row in chosen]

    def predict_proba(self, texts: Sequence[str]) -> np.ndarray:
        """Probability of each label, `float32 [texts, labels]`; see `probabilities`."""
        return self.probabilities(self.logits(texts))

    def predict(self, texts: Sequence[str]) -> list[str] | list[list[str]]:
        """The label of each text, or the list of its labels where it may have several."""
        decisions = self.decide(self.predict_proba(texts))
        return decisions if self.multi_label else [label for (label,) in decisions]

    def read(self, text: str) -> tuple[int, list[tuple[int, int]] | None]:
        """How much of a text is read, and what of that pre-training hardly met.

        Returns:
            Characters up to the end of the last token that fits into `max_tokens`, and where the
            tokens lie (start, end) that pre-training hardly met; None where nobody counted.
        """
        (encoding,) = encode_prefixes(self._tokenizer.encode_batch, [text], self.max_tokens - 2)
        room = self.max_tokens - 2
        end = len(text) if len(encoding) <= room else encoding.offsets[room - 1][1]
        if self.hardly_seen_ids is None:
            return end, None
        spans = zip(encoding.ids[:room], encoding.offsets, strict=False)
        return end, [span for token, span in spans if token in self.hardly_seen_ids]

    def _encode(self, texts: Sequence[str]) -> list[list[int]]:
        room = self.max_tokens - 2
        if isinstance(texts, str):
            raise UserError(f"the texts were {texts!r:.60}; expected a list of texts.")
        try:
            encodings = encode_prefixes(self._tokenizer.encode_batch_fast, texts, room)
        except TypeError as error:
            raise UserError(f"{error}; expected texts, strings of Unicode.") from error
        return [[self._cls_id, *encoding.ids[:room], self._sep_id] for encoding in encodings]


def load_onnx(folder: str | Path) -> OnnxClassifier:
    """Load what `tinylm export --to onnx` wrote.

    Raises:
        UserError: not such a folder, or a damaged file.
    """
    folder = Path(folder)
    if not (folder / DECISION).is_file():
        raise UserError(f"{folder} holds no {DECISION}; expected a folder that 'tinylm export' wrote.")
    options = onnxruntime.SessionOptions()
    # By default as many as the machine has cores, whatever the quota of a container.
    options.intra_op_num_threads = cores()
    # Threads that spin between two questions would win nothing for a tiny model.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    name = DECISION
    try:
        decision = json.loads((folder / DECISION).read_text(encoding="utf-8"))
        name = TOKENIZER
        tokenizer = tokenizers.Tokenizer.from_file(str(folder / TOKENIZER))
        name = GRAPH
        session = onnxruntime.InferenceSession(folder / GRAPH, options, providers=["CPUExecutionProvider"])
        name = DECISION
        return OnnxClassifier(session, tokenizer, decision)
    except Exception as error:  # tokenizers and onnxruntime raise all kinds
        raise UserError(
            f"{folder / name} is missing or damaged ({error}); export the model again."
        ) from error
