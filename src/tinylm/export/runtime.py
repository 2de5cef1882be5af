"""An exported committee: from texts to labels with nothing but numpy, onnxruntime and tokenizers.

An export is a folder: `model.onnx`, the graph of all encoders (see `model/graph.py`), `tokenizer.json`,
`tinylm-onnx.json`, what else a decision needs, and `tfidf-4.npz` if the fourth member is a `TfidfModel`,
which reads strings and so is not part of the graph.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tinylm.errors import UserError
from tinylm.infer.engine import Engine
from tinylm.infer.predictor import Predictor, check_labels
from tinylm.model.tfidf import TfidfModel
from tinylm.system.plain_json import read_json
from tinylm.text.tokenizer import TOKENIZER_FILE, Tokenizer, load_tokenizer

GRAPH, DECISION, TFIDF = "model.onnx", "tinylm-onnx.json", "tfidf-{}.npz"


class OnnxClassifier(Predictor):
    """A committee in ONNX form; `load_onnx` makes one."""

    def __init__(
        self,
        engine: Engine,
        tfidf: Mapping[int, TfidfModel],
        tokenizer: Tokenizer,
        decision: dict[str, Any],
    ) -> None:
        self._engine, self._tfidf, self.tokenizer = engine, tfidf, tokenizer
        self.label_names = [str(label) for label in decision["label_names"]]
        self.label_type = type(decision["label_names"][0]).__name__
        self.member_names = decision["members"]
        self.max_tokens = decision["max_tokens"]
        self.temperature = decision["temperature"]
        self.text_columns = decision.get("text_columns")  # older exports have none
        self.thresholds = np.array(decision["thresholds"], np.float64) if decision["multi_label"] else None
        self.rare = None
        if decision["hardly_seen"] is not None:  # the ids of the tokens that are rare
            self.rare = np.zeros(len(tokenizer), bool)
            self.rare[decision["hardly_seen"]] = True
        self.piece_length = decision.get("piece_length")

    def member_logits(self, texts: Sequence[str]) -> np.ndarray:
        """Each member's logits, `float32 [members, texts, labels]`.

        Raises:
            UserError: something that is not a text.
        """
        logits = list(self._engine.member_logits(texts))
        for number, model in sorted(self._tfidf.items()):
            logits.insert(number - 1, model.logits(texts))
        return np.stack(logits)


def load_onnx(folder: str | Path) -> OnnxClassifier:
    """Load what `tinylm export --to onnx` wrote.

    Raises:
        UserError: not such a folder, or a damaged file.
    """
    folder = Path(folder)
    if not (folder / DECISION).is_file():
        raise UserError(f"{folder} holds no {DECISION}; expected a folder that 'tinylm export' wrote.")
    name = DECISION
    try:
        decision = read_json(folder / DECISION)
        max_tokens = decision["max_tokens"]
        name = TOKENIZER_FILE
        tokenizer = load_tokenizer(folder)
        name = GRAPH
        engine = Engine(_regular(folder / GRAPH), tokenizer, max_tokens)
        tfidf = {}
        for number in decision.get("tfidf_members", []):  # older exports have none
            name = TFIDF.format(int(number))
            tfidf[number] = TfidfModel.load(_regular(folder / name))
        name = DECISION
        classifier = OnnxClassifier(engine, tfidf, tokenizer, decision)
        _try(classifier)
        return classifier
    except Exception as error:  # onnxruntime raises all kinds
        raise UserError(
            f"{folder / name} is missing or damaged ({error}); export the model again."
        ) from error


def _regular(path: Path) -> Path:
    """The path of a file that has an end, unlike a device that a link leads to.

    Raises:
        ValueError: it is none.
    """
    if not path.is_file():
        raise ValueError("it is no file")
    return path


def _try(classifier: OnnxClassifier) -> None:
    """Predict once, so that what does not belong together is seen when it is loaded.

    Raises:
        Exception: of any kind.
    """
    check_labels(classifier)
    if not 0 < classifier.temperature < float("inf"):
        raise ValueError(f"the temperature is {classifier.temperature}")
    shape = len(classifier.member_names), 1, len(classifier.label_names)
    thresholds = classifier.thresholds
    if thresholds is not None and thresholds.shape != (len(classifier.label_names),):
        raise ValueError(f"the thresholds are {thresholds}")
    if classifier.member_logits(["a"]).shape != shape:
        raise ValueError("the labels or members are not those of the graph")
    classifier.predict(["a"])
    if classifier.rare is not None:
        classifier.low_coverage(["a"])


def load_predictor(folder: str | Path) -> Predictor:
    """Load a committee, a single classifier or an export, whichever a folder holds.

    Raises:
        UserError: none of them is there, or a file is damaged.
    """
    if (Path(folder) / DECISION).is_file():
        return load_onnx(folder)
    from tinylm.infer.committee import load_committee

    return load_committee(Path(folder))
