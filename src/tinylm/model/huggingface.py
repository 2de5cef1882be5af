"""Models on disk, in HuggingFace's own form.

A saved BERT-n is a HuggingFace folder: `config.json` of model type "bert" and
`model.safetensors` with HuggingFace's names, so `transformers` reads it and this
package reads what `transformers` writes. What HuggingFace's BERT does not have,
convolutions, is stored the same way under model type "tinylm", which
`transformers` refuses rather than misreads. So are linear members and weights in
8 bits, which have their scales beside them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tinylm.errors import UserError
from tinylm.model.config import ModelConfig, describe_invalid, heads_of_width
from tinylm.model.distilbert import bert_config, bert_weights, is_distilbert
from tinylm.model.encoder import LAYER_NORM_EPS
from tinylm.model.heads import MaskedLanguageModel, SequenceClassifier
from tinylm.model.tfidf import TfidfClassifier, TfidfConfig
from tinylm.ops.quantize import is_rounded, to_int8

CONFIG, WEIGHTS = "config.json", "model.safetensors"
SCALE = ".scale"  # behind the name of a weight in 8 bits

# Ours -> HuggingFace's, applied to the front of a parameter's name.
NAMES = {
    r"encoder\.embeddings\.word\.": "bert.embeddings.word_embeddings.",
    r"encoder\.embeddings\.position\.": "bert.embeddings.position_embeddings.",
    r"encoder\.embeddings\.norm\.": "bert.embeddings.LayerNorm.",
    r"encoder\.blocks\.(\d+)\.attention\.query\.": r"bert.encoder.layer.\1.attention.self.query.",
    r"encoder\.blocks\.(\d+)\.attention\.output\.": r"bert.encoder.layer.\1.attention.output.dense.",
    r"encoder\.blocks\.(\d+)\.attention_norm\.": r"bert.encoder.layer.\1.attention.output.LayerNorm.",
    r"encoder\.blocks\.(\d+)\.expand\.": r"bert.encoder.layer.\1.intermediate.dense.",
    r"encoder\.blocks\.(\d+)\.contract\.": r"bert.encoder.layer.\1.output.dense.",
    r"encoder\.blocks\.(\d+)\.feed_forward_norm\.": r"bert.encoder.layer.\1.output.LayerNorm.",
    r"encoder\.convolution\.": "bert.convolution.",
    r"transform\.": "cls.predictions.transform.dense.",
    r"norm\.": "cls.predictions.transform.LayerNorm.",
    r"bias$": "cls.predictions.bias",
    r"pooler\.": "bert.pooler.dense.",
}
SEGMENT = "bert.embeddings.token_type_embeddings.weight"
KEY_VALUE = re.compile(r"encoder\.blocks\.(\d+)\.attention\.key_value\.(weight|bias)")


Model = MaskedLanguageModel | SequenceClassifier | TfidfClassifier


def save_model(model: Model, folder: Path, label_names: Sequence[str] = (), int8: bool = False) -> None:
    """Write `config.json` and `model.safetensors`.

    Args:
        model: a masked language model or a classifier.
        folder: where to; it is made when it does not exist.
        label_names: of a classifier, in the order of its logits.
        int8: matrices in 8 bits, a quarter of the size, which `transformers` cannot read; else fp32.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    weights = to_huggingface(model.state_dict())
    if int8:
        for name in [name for name, weight in weights.items() if is_rounded(weight)]:
            weights[name], weights[name + SCALE] = to_int8(weights[name])
    tensors = {name: tensor.contiguous() for name, tensor in weights.items()}
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    config = _huggingface_config(model, label_names)
    if int8:
        config["model_type"] = "tinylm"
    (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def load_masked_language_model(folder: Path) -> MaskedLanguageModel:
    """Read a masked language model, ours or a HuggingFace `BertForMaskedLM` or `DistilBertForMaskedLM`.

    Raises:
        UserError: no model there, a damaged file, or another architecture.
    """
    model = MaskedLanguageModel(read_config(folder)[0])
    _load_state(model, folder)
    return model.eval()


def load_classifier(folder: Path) -> tuple[SequenceClassifier | TfidfClassifier, list[str]]:
    """Read a classifier, ours, encoder or linear, or a HuggingFace `BertForSequenceClassification`.

    Returns:
        The classifier and the names of its labels in the order of its logits.

    Raises:
        UserError: no model there, a damaged file, or another architecture.
    """
    config, raw = _read(folder)
    names = raw.get("id2label") or {}
    label_names = [names[key] for key in sorted(names, key=int)]
    if not label_names:
        raise UserError(
            f"{Path(folder) / CONFIG} names no labels: this is a pre-trained model, not a classifier;"
            " fine-tune it first with 'tinylm finetune'."
        )
    model: SequenceClassifier | TfidfClassifier
    if isinstance(config, TfidfConfig):
        model = TfidfClassifier(config, len(label_names))
    else:
        model = SequenceClassifier(config, len(label_names))
    _load_state(model, folder)
    return model.eval(), label_names


def read_config(folder: Path) -> tuple[ModelConfig, dict[str, Any]]:
    """The architecture of a saved model, and `config.json` as it stands.

    Raises:
        UserError: no `config.json`, or one that describes no BERT-n.
    """
    config, raw = _read(folder)
    if isinstance(config, TfidfConfig):
        raise UserError(f"{Path(folder) / CONFIG} describes a linear classifier; expected a BERT-n.")
    return config, raw


def _read(folder: Path) -> tuple[ModelConfig | TfidfConfig, dict[str, Any]]:
    path = Path(folder) / CONFIG
    if not path.is_file():
        raise UserError(f"{folder} holds no model: {CONFIG} is missing.")
    try:
        raw: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is not valid JSON: {error}.") from error
    if not isinstance(raw, dict):
        raise UserError(f"{path} describes no model: expected a JSON object.")
    try:
        if "tinylm_linear" in raw:
            return TfidfConfig.model_validate(raw["tinylm_linear"]), raw
        if "tinylm" in raw:
            return ModelConfig.model_validate(raw["tinylm"]), raw
        return _config_of_bert(bert_config(raw) if is_distilbert(raw) else raw, path), raw
    except KeyError as error:
        raise UserError(f"{path} lacks the setting {error}.") from error
    except ValidationError as error:
        raise describe_invalid(error, str(path)) from error


def to_huggingface(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename a state dict of ours to HuggingFace's names, splitting keys and values."""
    out = {}
    for name, tensor in state.items():
        if match := KEY_VALUE.fullmatch(name):
            layer, kind = match.groups()
            for part, piece in zip(("key", "value"), tensor.chunk(2), strict=True):
                out[f"bert.encoder.layer.{layer}.attention.self.{part}.{kind}"] = piece
        elif name == "encoder.embeddings.segment":
            out[SEGMENT] = torch.stack([tensor, torch.zeros_like(tensor)])
        else:
            out[_rename(name)] = tensor
    return out


def from_huggingface(weights: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """The state dict of `model` out of HuggingFace's `weights`.

    Raises:
        KeyError: a weight that `model` needs is not there.
    """
    state = {}
    for name in model.state_dict():
        if match := KEY_VALUE.fullmatch(name):
            layer, kind = match.groups()
            prefix = f"bert.encoder.layer.{layer}.attention.self"
            state[name] = torch.cat([weights[f"{prefix}.{part}.{kind}"] for part in ("key", "value")])
        elif name == "encoder.embeddings.segment":
            state[name] = weights[SEGMENT][0]
        else:
            state[name] = weights[_rename(name)]
    return state


def _rename(name: str) -> str:
    for ours, theirs in NAMES.items():
        renamed, found = re.subn("^" + ours, theirs, name)
        if found:
            return renamed
    return name  # "classifier.weight" is the same on both sides


def _load_state(model: nn.Module, folder: Path) -> None:
    path = Path(folder) / WEIGHTS
    if not path.is_file():
        raise UserError(f"{folder} holds no weights: {WEIGHTS} is missing.")
    try:
        weights = load_file(path)
    except SafetensorError as error:
        raise UserError(f"{path} is damaged or cut short ({error}); save or copy the model again.") from error
    for name in [name for name in weights if name + SCALE in weights]:
        weights[name] = weights[name] * weights.pop(name + SCALE)
    if "distilbert.embeddings.word_embeddings.weight" in weights:
        weights = bert_weights(weights)
    try:
        model.load_state_dict(from_huggingface(weights, model))
    except KeyError as error:
        raise UserError(f"{path} lacks the weight {error}: it belongs to another architecture.") from error
    except RuntimeError as error:
        detail = str(error).splitlines()[1].strip()
        raise UserError(f"{path} does not fit {CONFIG} beside it: {detail}") from error


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
            f" {raw['intermediate_size']} is no BERT-n; expected heads of 64 and a feed-forward of 4 x width."
        )
    return ModelConfig(
        vocab_size=raw["vocab_size"],
        layers=raw["num_hidden_layers"],
        heads=heads,
        max_tokens=raw["max_position_embeddings"],
        dropout=raw["hidden_dropout_prob"],
        init_std=raw["initializer_range"],
    )


def _huggingface_config(model: Model, label_names: Sequence[str]) -> dict[str, Any]:
    if isinstance(model, TfidfClassifier):
        linear = model.config.model_dump(mode="json")
        return {"model_type": "tinylm", "tinylm_linear": linear, **_labels(label_names)}
    config = model.config
    is_classifier = isinstance(model, SequenceClassifier)
    raw: dict[str, Any] = {
        "architectures": ["BertForSequenceClassification" if is_classifier else "BertForMaskedLM"],
        "model_type": "bert" if config.convolution is None else "tinylm",
        "vocab_size": config.vocab_size,
        "hidden_size": config.width,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "intermediate_size": 4 * config.width,
        "hidden_act": "gelu",
        "hidden_dropout_prob": config.dropout,
        "attention_probs_dropout_prob": config.dropout,
        "max_position_embeddings": config.max_tokens,
        "type_vocab_size": 2,
        "initializer_range": config.init_std,
        "layer_norm_eps": LAYER_NORM_EPS,
        "pad_token_id": 0,
        "tie_word_embeddings": True,
        "tinylm": config.model_dump(mode="json"),
    }
    return raw | _labels(label_names) if is_classifier else raw


def _labels(names: Sequence[str]) -> dict[str, Any]:
    return {
        "id2label": {str(i): name for i, name in enumerate(names)},
        "label2id": {name: i for i, name in enumerate(names)},
    }
