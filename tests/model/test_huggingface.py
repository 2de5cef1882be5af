"""Logits and folders against HuggingFace's own BERT."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

from tinylm.errors import UserError
from tinylm.model.config import Convolution, ModelConfig
from tinylm.model.heads import MaskedLanguageModel, SequenceClassifier
from tinylm.model.huggingface import (
    load_masked_language_model,
    module_of,
    round_weights,
    save_model,
    weights_of,
)
from tinylm.model.storage import read_classifier
from tinylm.ops.packed import make_batch
from tinylm.text.store import TokenIds

CONFIG = ModelConfig(vocab_size=99, layers=3, heads=2, max_tokens=24, init_std=0.2)
LABELS = ["red", "green", "blue"]


@pytest.fixture
def texts() -> TokenIds:
    rng = np.random.default_rng(0)
    return TokenIds.from_lists(rng.integers(5, 99, n) for n in (7, 24, 3, 23, 12, 11))


def load_classifier(folder: Path) -> tuple[SequenceClassifier, list[str]]:
    stored = read_classifier(folder)
    return module_of(stored), stored.label_names


def padded(texts: TokenIds, rows: np.ndarray) -> dict[str, torch.Tensor]:
    """The batch as HuggingFace takes it."""
    ids = torch.zeros(len(rows), 24, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for i, row in enumerate(rows):
        ids[i, : len(texts[row])] = torch.from_numpy(texts[row].astype(np.int64))
        mask[i, : len(texts[row])] = 1
    return {"input_ids": ids, "attention_mask": mask}


@torch.no_grad()
def test_masked_language_model_equals_huggingface_both_ways(texts, tmp_path):
    torch.manual_seed(1)
    model = MaskedLanguageModel(CONFIG).eval()
    with torch.no_grad():
        model.bias.normal_()
    batch, rows = make_batch(texts, range(6), 24)
    ours = model(batch, torch.arange(len(batch.ids)))

    save_model(model, tmp_path / "ours")
    reference = transformers.BertForMaskedLM.from_pretrained(tmp_path / "ours").eval()
    inputs = padded(texts, rows)
    theirs = reference(**inputs).logits[inputs["attention_mask"].bool()]
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)

    reference.save_pretrained(tmp_path / "theirs")
    again = load_masked_language_model(tmp_path / "theirs")
    torch.testing.assert_close(again(batch, torch.arange(len(batch.ids))), theirs, atol=1e-4, rtol=0)


@torch.no_grad()
def test_classifier_equals_huggingface_both_ways(texts, tmp_path):
    torch.manual_seed(2)
    model = SequenceClassifier(CONFIG, 3).eval()
    for block in model.encoder.blocks:
        block.attention.key_value.bias.normal_()
    batch, rows = make_batch(texts, range(6), 24)

    save_model(model, tmp_path / "ours", LABELS)
    reference = transformers.BertForSequenceClassification.from_pretrained(tmp_path / "ours").eval()
    theirs = reference(**padded(texts, rows)).logits
    torch.testing.assert_close(model(batch), theirs, atol=1e-4, rtol=0)
    assert reference.config.id2label == dict(enumerate(LABELS))

    reference.save_pretrained(tmp_path / "theirs")
    again, names = load_classifier(tmp_path / "theirs")
    assert names == LABELS
    torch.testing.assert_close(again(batch), theirs, atol=1e-4, rtol=0)


def test_a_folder_written_by_transformers_alone_is_read(texts, tmp_path):
    theirs = transformers.BertForMaskedLM(
        transformers.BertConfig(
            vocab_size=99, hidden_size=64, num_hidden_layers=1, num_attention_heads=1, intermediate_size=256
        )
    ).eval()
    theirs.save_pretrained(tmp_path)
    ours = load_masked_language_model(tmp_path)
    batch, rows = make_batch(texts, range(6), 24)
    inputs = padded(texts, rows)
    with torch.no_grad():
        expected = theirs(**inputs).logits[inputs["attention_mask"].bool()]
        torch.testing.assert_close(ours(batch, torch.arange(len(batch.ids))), expected, atol=1e-4, rtol=0)


@torch.no_grad()
def test_distilbert_is_read_as_a_bert(texts, tmp_path):
    torch.manual_seed(3)
    config = transformers.DistilBertConfig(
        vocab_size=99, dim=128, n_layers=2, n_heads=2, hidden_dim=512, max_position_embeddings=24
    )
    theirs = transformers.DistilBertForMaskedLM(config).eval()
    for parameter in theirs.parameters():  # biases and LayerNorms too, so that no name can be mixed up
        parameter.normal_(std=0.2)
    theirs.save_pretrained(tmp_path)
    ours = load_masked_language_model(tmp_path)
    batch, rows = make_batch(texts, range(6), 24)
    inputs = padded(texts, rows)
    expected = theirs(**inputs).logits[inputs["attention_mask"].bool()]
    torch.testing.assert_close(ours(batch, torch.arange(len(batch.ids))), expected, atol=1e-4, rtol=1e-4)


def test_a_model_with_convolutions_round_trips_and_is_refused_by_transformers(texts, tmp_path):
    convolution = Convolution(layers=2, channels=4, kernel=(4, 3))
    model = SequenceClassifier(CONFIG.model_copy(update={"convolution": convolution}), 3).eval()
    save_model(model, tmp_path, LABELS)
    again, _ = load_classifier(tmp_path)
    batch, _ = make_batch(texts, range(6), 24)
    with torch.no_grad():
        assert torch.equal(model(batch), again(batch))
    with pytest.raises((ValueError, KeyError)):
        transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path)


def test_bad_folders_are_named(tmp_path):
    with pytest.raises(UserError, match="config.json is missing"):
        load_masked_language_model(tmp_path)
    save_model(MaskedLanguageModel(CONFIG), tmp_path)
    with pytest.raises(UserError, match="not a classifier"):
        load_classifier(tmp_path)
    weights = tmp_path / "model.safetensors"
    data = weights.read_bytes()
    weights.write_bytes(data[: len(data) // 2])
    with pytest.raises(UserError, match="damaged or cut short"):
        load_masked_language_model(tmp_path)


def test_weights_of_another_architecture_are_refused(tmp_path):
    save_model(MaskedLanguageModel(CONFIG), tmp_path / "three")
    save_model(MaskedLanguageModel(CONFIG.model_copy(update={"layers": 4})), tmp_path / "four")
    save_model(MaskedLanguageModel(CONFIG.model_copy(update={"heads": 1})), tmp_path / "narrow")
    (tmp_path / "three" / "config.json").write_bytes((tmp_path / "four" / "config.json").read_bytes())
    with pytest.raises(UserError, match="another architecture"):
        load_masked_language_model(tmp_path / "three")
    (tmp_path / "narrow" / "config.json").write_bytes((tmp_path / "four" / "config.json").read_bytes())
    (tmp_path / "narrow" / "model.safetensors").unlink()
    with pytest.raises(UserError, match="model.safetensors is missing"):
        load_masked_language_model(tmp_path / "narrow")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_model_in_half_precision_is_read(texts, tmp_path, dtype):
    torch.manual_seed(3)
    save_model(SequenceClassifier(CONFIG, 3), tmp_path / "ours", LABELS)
    reference = transformers.BertForSequenceClassification.from_pretrained(tmp_path / "ours", dtype=dtype)
    reference.save_pretrained(tmp_path / "half")
    again, _ = load_classifier(tmp_path / "half")
    weights = weights_of(again)
    for name, tensor in reference.state_dict().items():
        if name in weights:
            assert (weights[name] == tensor.float().numpy()).all()


def test_a_model_gets_the_values_that_are_stored(tmp_path):
    torch.manual_seed(4)
    model = SequenceClassifier(CONFIG, 3)
    before = weights_of(model)
    save_model(model, tmp_path, LABELS, int8=True)
    round_weights(model)
    after = weights_of(model)
    for name, weight in read_classifier(tmp_path).weights.items():
        np.testing.assert_allclose(weight.value, after[name], rtol=1e-6)
        assert (weight.scale is not None) == (before[name].ndim == 2 and len(before[name]) > 2)
        assert (after[name] == before[name]).all() == (weight.scale is None)


def test_a_weight_of_another_shape_is_named(tmp_path):
    save_model(SequenceClassifier(CONFIG, 3), tmp_path, LABELS)
    raw = json.loads((tmp_path / "config.json").read_text())
    raw["tinylm"]["layers"] = 4
    (tmp_path / "config.json").write_text(json.dumps(raw))
    with pytest.raises(UserError, match=r"lacks the weight 'bert\.encoder\.layer\.3\."):
        read_classifier(tmp_path)
    raw["tinylm"] |= {"layers": 3, "max_tokens": 25}
    (tmp_path / "config.json").write_text(json.dumps(raw))
    with pytest.raises(UserError, match=r"position_embeddings.* shape \(24, 128\); expected \(25, 128\)"):
        read_classifier(tmp_path)
