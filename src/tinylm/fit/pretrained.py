"""A pre-trained model that all encoders of a fit begin with, in place of pre-training of their own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tinylm.errors import UserError
from tinylm.model.config import ModelConfig
from tinylm.model.huggingface import load_masked_language_model
from tinylm.model.storage import WEIGHTS
from tinylm.system.files import hash_files, read_record
from tinylm.text.coverage import read_token_counts
from tinylm.text.tokenizer import Tokenizer, load_tokenizer


@dataclass(frozen=True)
class Pretrained:
    """What a fit has to know of a pre-trained model.

    Attributes:
        folder: of it.
        config: its architecture, that of all encoders, for texts as long as they shall be.
        tokenizer: its vocabulary.
        fingerprint: of its weights.
        corpus: name, fingerprint, licence and number of rows of the text that it has read; empty if unknown.
        w_s: paragraphs of it; 0 if unknown.
        token_counts: how often each token occurs in them, `int64 [vocab]`; None if unknown.
    """

    folder: Path
    config: ModelConfig
    tokenizer: Tokenizer
    fingerprint: str
    corpus: dict[str, Any]
    w_s: int
    token_counts: np.ndarray | None


def read_pretrained(folder: str | Path, max_tokens: int) -> Pretrained:
    """Read what `tinylm pretrain` wrote, or a `BertForMaskedLM` or `DistilBertForMaskedLM` of HuggingFace.

    Args:
        folder: of the model.
        max_tokens: to which the encoders shall cut their texts.

    Raises:
        UserError: no such model there, a damaged file, or one that reads shorter texts only.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(
            f"{folder} is not a folder; expected one that 'tinylm pretrain' wrote, or a BERT of HuggingFace."
        )
    config = load_masked_language_model(folder).config
    if config.max_tokens < max_tokens:
        raise UserError(f"max_tokens is {max_tokens}; expected at most {config.max_tokens}, as {folder} has.")
    config = config.model_copy(update={"max_tokens": max_tokens})
    tokenizer = load_tokenizer(folder)
    counts = read_token_counts(folder, len(tokenizer))
    fingerprint = hash_files([folder / WEIGHTS])
    read = read_record(folder).get("corpus", {})
    w_s = read.get("w_s", 0)
    facts = {key: read.get(key) for key in ("corpus", "fingerprint", "licence")} | {"rows": w_s}
    return Pretrained(folder, config, tokenizer, fingerprint, facts if read else {}, w_s, counts)
