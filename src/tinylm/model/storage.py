"""Models on disk, in HuggingFace's own form, read and written without PyTorch.

A saved BERT-n is a HuggingFace folder: `config.json` of model type "bert" and
`model.safetensors` with HuggingFace's names, so `transformers` reads it and this
package reads what `transformers` writes. What HuggingFace's BERT does not have,
convolutions, is stored the same way under model type "tinylm", which
`transformers` refuses rather than misreads. So are TF-IDF members, and weights in
8 bits, whose scales are tensors beside them.

A file of weights is mapped into memory, and weights are read from disk when they are
used: a prediction reads only a few rows of a word embedding.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from tinylm.errors import UserError
from tinylm.model.config import (
    LAYER_NORM_EPS,
    AnyConfig,
    ModelConfig,
    TfidfConfig,
    TokenTfidfConfig,
    describe_invalid,
    heads_of_width,
)
from tinylm.model.distilbert import bert_config, bert_weights, is_distilbert
from tinylm.model.weights import Weight, Weights
from tinylm.ops.quantize import is_rounded, to_int8
from tinylm.system.plain_json import read_json

CONFIG, WEIGHTS = "config.json", "model.safetensors"
SCALE = ".scale"  # behind the name of a weight in 8 bits
# The entry of `config.json` that holds a configuration of ours.
KINDS: dict[str, type[AnyConfig]] = {
    "tinylm_linear": TokenTfidfConfig,
    "tinylm_tfidf": TfidfConfig,
    "tinylm": ModelConfig,
}
# The names that safetensors has for types. bf16, which numpy lacks, is the upper half of an fp32 number.
TYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "I64": "<i8", "I8": "i1"}


@dataclass(frozen=True)
class StoredClassifier:
    """A classifier as numbers and names.

    Attributes:
        config: its architecture.
        weights: under HuggingFace's names, see `ModelConfig.classifier_shapes`.
        label_names: in the order of the logits.
    """

    config: AnyConfig
    weights: Weights
    label_names: list[str]


def write_model(
    folder: Path,
    config: AnyConfig,
    weights: Mapping[str, np.ndarray],
    label_names: Sequence[str] = (),
    int8: bool = False,
) -> None:
    """Write `config.json` and `model.safetensors`.

    Args:
        folder: where to; it is made when it does not exist.
        config: the architecture.
        weights: under HuggingFace's names.
        label_names: of a classifier, in the order of its logits; none for a masked language model.
        int8: matrices in 8 bits, a quarter of the size, which `transformers` cannot read; else fp32.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = dict(weights)
    if int8:
        for name in [name for name, weight in weights.items() if is_rounded(weight)]:
            tensors[name], tensors[name + SCALE] = to_int8(weights[name])
    tensors = {name: np.asarray(tensor, order="C") for name, tensor in tensors.items()}
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    raw = config.to_huggingface()
    if config.is_encoder:
        raw["architectures"] = ["BertForSequenceClassification" if label_names else "BertForMaskedLM"]
    if label_names:
        raw["id2label"] = {str(i): name for i, name in enumerate(label_names)}
        raw["label2id"] = {name: i for i, name in enumerate(label_names)}
    if int8:
        raw["model_type"] = "tinylm"
    (folder / CONFIG).write_text(json.dumps(raw, indent=2) + "\n", encoding="utf-8")


def read_classifier(folder: Path) -> StoredClassifier:
    """Read a classifier, ours or a HuggingFace `BertForSequenceClassification`.

    Raises:
        UserError: no classifier there, a damaged file, or another architecture.
    """
    folder = Path(folder)
    config, raw = read_any_config(folder)
    label_names = _label_names(raw, folder / CONFIG)
    if not label_names:
        raise UserError(
            f"{folder / CONFIG} names no labels: this is a pre-trained model, not a classifier;"
            " fine-tune it first with 'tinylm finetune'."
        )
    found, weights = read_weights(folder), {}
    for name, shape in config.classifier_shapes(len(label_names)).items():
        if name not in found:
            raise UserError(
                f"{folder / WEIGHTS} lacks the weight '{name}': it belongs to another architecture."
            )
        weights[name] = found[name]
        if weights[name].data.shape != shape:
            raise UserError(
                f"{folder / WEIGHTS} does not fit {CONFIG} beside it: '{name}' has the shape"
                f" {weights[name].data.shape}; expected {shape}."
            )
        _check_type(weights[name], name, folder / WEIGHTS)
    return StoredClassifier(config, weights, label_names)


def _label_names(raw: dict[str, Any], path: Path) -> list[str]:
    """The labels of a `config.json` in the order of their numbers."""
    names = raw.get("id2label") or {}
    try:
        label_names = [names[key] for key in sorted(names, key=int)]
    except (ValueError, TypeError, KeyError, IndexError) as error:
        raise UserError(f"{path} is damaged: 'id2label' does not map numbers to labels.") from error
    if not all(isinstance(name, str) for name in label_names):
        raise UserError(f"{path} is damaged: a label of 'id2label' is no text.")
    return label_names


def _check_type(weight: Weight, name: str, path: Path) -> None:
    """Refuse numbers that nothing computes with: other integers than those of 8 bits with their scales."""
    rounded = weight.data.dtype == np.int8 and weight.scale is not None
    if rounded and weight.scale is not None:
        rounded = weight.scale.dtype == np.float32 and weight.scale.shape == (*weight.data.shape[:-1], 1)
    is_count = weight.data.dtype == np.int64 and weight.data.ndim == 0
    if not (rounded or is_count or (weight.data.dtype == np.float32 and weight.scale is None)):
        raise UserError(
            f"{path}: '{name}' is stored as {weight.data.dtype}; expected floating point, or int8 with one"
            " scale for each row."
        )


def read_config(folder: Path) -> tuple[ModelConfig, dict[str, Any]]:
    """The architecture of a saved BERT-n, and the content of `config.json`.

    Raises:
        UserError: no `config.json`, or one that does not describe a BERT-n.
    """
    config, raw = read_any_config(folder)
    if not isinstance(config, ModelConfig):
        raise UserError(f"{Path(folder) / CONFIG} describes a TF-IDF member; expected a BERT-n.")
    return config, raw


def read_any_config(folder: Path) -> tuple[AnyConfig, dict[str, Any]]:
    """`read_config` for every kind of member."""
    path = Path(folder) / CONFIG
    if not path.is_file():
        raise UserError(f"{folder} holds no model: {CONFIG} is missing.")
    raw = read_json(path)
    try:
        for key, kind in KINDS.items():
            if key in raw:
                return kind.model_validate(raw[key]), raw
        return _config_of_bert(bert_config(raw) if is_distilbert(raw) else raw, path), raw
    except KeyError as error:
        raise UserError(f"{path} lacks the setting {error}.") from error
    except TypeError as error:
        raise UserError(f"{path} is damaged: a setting has a value of another type ({error}).") from error
    except ValidationError as error:
        raise describe_invalid(error, str(path)) from error


def read_weights(folder: Path) -> dict[str, Weight]:
    """All weights of a saved model under BERT's names.

    Raises:
        UserError: no weights there, or a damaged file.
    """
    path = Path(folder) / WEIGHTS
    if not path.is_file():
        raise UserError(f"{folder} holds no weights: {WEIGHTS} is missing.")
    try:
        stored = _map_safetensors(path)
    except (ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
        raise UserError(f"{path} is damaged or cut short ({error}); save or copy the model again.") from error
    for name in [name for name in stored if name + SCALE in stored]:
        stored[name] = Weight(stored[name].data, stored.pop(name + SCALE).data, stored[name].place)
    return bert_weights(stored) if "distilbert.embeddings.word_embeddings.weight" in stored else stored


def _map_safetensors(path: Path) -> dict[str, Weight]:
    """The tensors of a file, mapped into memory, with the place of each, which safetensors does not give."""
    with safe_open(path, "np"):  # which checks the header: its length, and that tensors do not overlap
        pass
    mapped = np.asarray(np.memmap(path, np.uint8, "r"))
    start = 8 + int.from_bytes(mapped[:8].tobytes(), "little")
    header = json.loads(mapped[8:start].tobytes())
    stored = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        begin, end = (start + offset for offset in entry["data_offsets"])
        data = mapped[begin:end].view(TYPES[entry["dtype"]]).reshape(entry["shape"])
        if entry["dtype"] == "BF16":
            stored[name] = Weight((data.astype("<u4") << 16).view("<f4"))
        elif entry["dtype"] in ("F16", "F64"):
            stored[name] = Weight(data.astype(np.float32))
        else:
            stored[name] = Weight(data, place=(path, begin))
    return stored


def _config_of_bert(raw: dict[str, Any], path: Path) -> ModelConfig:
    """The ModelConfig of a BERT configuration that `transformers` wrote."""
    expected = {"model_type": "bert", "hidden_act": "gelu", "layer_norm_eps": LAYER_NORM_EPS}
    for key, value in expected.items():
        if raw.get(key) != value:
            raise UserError(f"{path}: {key} is {raw.get(key)!r}; only BERT with {key} {value!r} can be read.")
    width = raw["hidden_size"]
    heads = heads_of_width(width)
    if raw["num_attention_heads"] != heads or raw["intermediate_size"] != 4 * width:
        raise UserError(
            f"{path}: width {width}, {raw['num_attention_heads']} heads and feed-forward"
            f" {raw['intermediate_size']} is not a BERT-n; expected heads of 64 and a feed-forward of"
            " 4 x width."
        )
    return ModelConfig(
        vocab_size=raw["vocab_size"],
        layers=raw["num_hidden_layers"],
        heads=heads,
        max_tokens=raw["max_position_embeddings"],
        dropout=raw["hidden_dropout_prob"],
        init_std=raw["initializer_range"],
    )
