"""The public DistilBERT, which the paper takes for W_S = 6 million."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from tinylm.errors import UserError
from tinylm.model.config import ModelConfig
from tinylm.model.storage import CONFIG, WEIGHTS, read_config
from tinylm.system.files import hash_files
from tinylm.system.paths import cached, data_folders


@dataclass(frozen=True)
class Public:
    """A pre-trained model that somebody published.

    Attributes:
        name: on the hub.
        folder: where it lies here.
        key: hash of its files.
        config: its architecture.
    """

    name: str
    folder: Path
    key: str
    config: ModelConfig


@lru_cache
def find_public(name: str, vocab_size: int) -> Public:
    """Find a model in `$TINYLM_DATA` or the cache folder, or download it from the hub.

    Raises:
        UserError: it is nowhere, and how to get it; or it has another vocabulary.
    """
    for folder in data_folders():
        if (folder / name / CONFIG).is_file() and (folder / name / WEIGHTS).is_file():
            return _public(name, folder / name, vocab_size)
    # Imported late: it is slow to import and only needed once.
    from huggingface_hub import hf_hub_download

    target = cached(name)
    try:
        for file in (CONFIG, WEIGHTS):
            hf_hub_download(name, file, local_dir=target)
    except Exception as error:  # the hub's client raises errors of several libraries
        raise UserError(
            f"{name} could not be downloaded from the HuggingFace hub; put its {CONFIG} and {WEIGHTS} into"
            f" {target}, or into TINYLM_DATA as {name}/. Rows with all of Wikipedia are left empty."
        ) from error
    return _public(name, target, vocab_size)


def _public(name: str, folder: Path, vocab_size: int) -> Public:
    config, _ = read_config(folder)
    if config.vocab_size != vocab_size:
        raise UserError(
            f"{folder / CONFIG} has a vocabulary of {config.vocab_size:,} tokens; the preset's tokenizer has"
            f" {vocab_size:,}."
        )
    return Public(name, folder, hash_files([folder / CONFIG, folder / WEIGHTS]), config)
