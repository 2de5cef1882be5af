"""PyTorch models from and to their form on disk, see `storage.py`: HuggingFace's names for our parameters."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from tinylm.errors import UserError
from tinylm.model.config import ModelConfig
from tinylm.model.heads import MaskedLanguageModel, SequenceClassifier
from tinylm.model.storage import (
    CONFIG,
    WEIGHTS,
    StoredClassifier,
    read_config,
    read_weights,
    write_model,
)
from tinylm.ops.quantize import is_rounded, to_int8

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


def save_model(
    model: MaskedLanguageModel | SequenceClassifier,
    folder: Path,
    label_names: Sequence[str] = (),
    int8: bool = False,
) -> None:
    """Write `config.json` and `model.safetensors`.

    Args:
        model: a masked language model or a classifier.
        folder: where to; it is made when it does not exist.
        label_names: of a classifier, in the order of its logits.
        int8: matrices in 8 bits, a quarter of the size, which `transformers` cannot read; else fp32.
    """
    write_model(folder, model.config, weights_of(model), label_names, int8)


def load_masked_language_model(folder: Path) -> MaskedLanguageModel:
    """Read a masked language model, ours or a HuggingFace `BertForMaskedLM` or `DistilBertForMaskedLM`.

    Raises:
        UserError: no model there, a damaged file, or another architecture.
    """
    config, path = read_config(folder)[0], Path(folder) / WEIGHTS
    found = read_weights(folder)
    for name, shape in config.classifier_shapes(0).items():
        # Before a model of this size is made: `config.json` may claim any.
        if not name.startswith("classifier") and name in found and found[name].data.shape != shape:
            raise UserError(
                f"{path} does not fit {CONFIG} beside it: '{name}' has the shape {found[name].data.shape};"
                f" expected {shape}."
            )
    model = MaskedLanguageModel(config)
    weights = {name: weight.value for name, weight in found.items()}
    try:
        model.load_state_dict(from_huggingface(weights, model))
    except KeyError as error:
        raise UserError(f"{path} lacks the weight {error}: it belongs to another architecture.") from error
    except RuntimeError as error:
        detail = str(error).splitlines()[1].strip()
        raise UserError(f"{path} does not fit {CONFIG} beside it: {detail}") from error
    return model.eval()


def for_shorter_texts(model: MaskedLanguageModel, max_tokens: int) -> MaskedLanguageModel:
    """The same model without the position embeddings beyond `max_tokens`; itself if it has none there."""
    if max_tokens == model.config.max_tokens:
        return model
    shorter = MaskedLanguageModel(model.config.model_copy(update={"max_tokens": max_tokens}))
    weights = model.state_dict()
    (positions,) = (name for name in weights if name.endswith("embeddings.position.weight"))
    shorter.load_state_dict(weights | {positions: weights[positions][:max_tokens]})
    return shorter.eval()


def module_of(stored: StoredClassifier) -> SequenceClassifier:
    """The PyTorch module of a stored BERT-n, to train it or to compare with."""
    assert isinstance(stored.config, ModelConfig)
    model = SequenceClassifier(stored.config, len(stored.label_names))
    weights = {name: weight.value for name, weight in stored.weights.items()}
    model.load_state_dict(from_huggingface(weights, model))
    return model.eval()


def weights_of(model: MaskedLanguageModel | SequenceClassifier) -> dict[str, np.ndarray]:
    """A copy of a model's weights as they are now, under HuggingFace's names; fp32 where not integers."""
    return {
        name: (tensor.float() if tensor.is_floating_point() else tensor).numpy(force=True).copy()
        for name, tensor in to_huggingface(model.state_dict()).items()
    }


def round_weights(model: SequenceClassifier) -> None:
    """Give the matrices of a model the values that they have in 8 bits, in place."""
    with torch.no_grad():
        for weight in model.parameters():
            if is_rounded(weight.numpy(force=True)):
                rounded, scale = to_int8(weight.numpy(force=True))
                weight.copy_(torch.from_numpy(rounded * scale))


def to_huggingface(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
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


def from_huggingface(weights: Mapping[str, np.ndarray], model: nn.Module) -> dict[str, Tensor]:
    """The state dict of `model` out of HuggingFace's `weights`.

    Raises:
        KeyError: a weight that `model` needs is not there.
    """
    state = {}
    for name in model.state_dict():
        if match := KEY_VALUE.fullmatch(name):
            layer, kind = match.groups()
            prefix = f"bert.encoder.layer.{layer}.attention.self"
            array = np.concatenate([weights[f"{prefix}.{part}.{kind}"] for part in ("key", "value")])
        elif name == "encoder.embeddings.segment":
            array = weights[SEGMENT][0]
        else:
            array = weights[_rename(name)]
        state[name] = torch.from_numpy(np.array(array))
    return state


def _rename(name: str) -> str:
    for ours, theirs in NAMES.items():
        renamed, found = re.subn("^" + ours, theirs, name)
        if found:
            return renamed
    return name  # "classifier.weight" is the same on both sides
