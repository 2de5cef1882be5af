"""Int8 classifiers against the fp32 models that they are made of."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tinylm.errors import UserError
from tinylm.infer import int8
from tinylm.infer.classifier import Classifier
from tinylm.infer.committee import Committee
from tinylm.model.config import Convolution, ModelConfig
from tinylm.model.heads import SequenceClassifier
from tinylm.model.logits import logits_of, logits_of_all
from tinylm.ops.packed import make_batch
from tinylm.text.store import TokenIds
from tinylm.text.tokenizer import SPECIAL_TOKENS, Tokenizer

SHAPES = {
    "bert1": {"layers": 1},
    "bert3": {"layers": 3},
    "square kernel": {"layers": 1, "convolution": Convolution(layers=2, channels=4)},
    "even kernel": {"layers": 2, "convolution": Convolution(layers=2, channels=3, kernel=(16, 3))},
    "flat kernel": {"layers": 1, "convolution": Convolution(layers=1, channels=3, kernel=(1, 4))},
}


def texts(count: int, longest: int = 24) -> TokenIds:
    random = np.random.default_rng(0)
    return TokenIds.from_lists(
        [2, *random.integers(5, 60, random.integers(1, longest)), 3] for _ in range(count)
    )


def model_of(shape: str, seed: int = 0) -> SequenceClassifier:
    """A model whose weights are large and whose norms are not at identity, so that nothing hides."""
    torch.manual_seed(seed)
    model = SequenceClassifier(
        ModelConfig(vocab_size=60, heads=2, max_tokens=32, init_std=0.1, **SHAPES[shape]), 4
    )
    for name, parameter in model.named_parameters():
        if "norm" in name or name.endswith("bias"):
            parameter.data += 0.2 * torch.randn_like(parameter)
    if model.encoder.convolution is not None:
        model.train()
        model(make_batch(texts(16), range(16), 32)[0])  # statistics of BatchNorm
    return model.eval()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("count", [1, 9])
def test_logits_are_those_of_the_fp32_model(shape: str, count: int) -> None:
    model, paragraphs = model_of(shape), texts(count)
    exact, ours = logits_of(model, paragraphs), logits_of(int8.Int8Classifier(model), paragraphs)
    # 127 steps each side of zero: errors of up to half a percent in each of some twenty products.
    assert np.abs(ours - exact).max() < 0.05 * np.abs(exact).max()
    assert not np.array_equal(ours, exact)


@pytest.mark.parametrize("shape", SHAPES)
def test_without_rounding_the_logits_are_equal(shape: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernels take weights of any type: with fp32 ones, nothing but their arithmetic is tested."""

    def unrounded(weight: torch.Tensor, bias: torch.Tensor | None = None) -> int8.Product:
        rows = weight.detach().numpy()
        bias = torch.zeros(len(rows)) if bias is None else bias
        return int8.Product(rows, np.ones(len(rows), np.float32), bias.detach().numpy())

    monkeypatch.setattr(int8, "_quantised", unrounded)
    monkeypatch.setattr(int8, "supports_bf16", lambda: False)
    monkeypatch.setattr(int8, "_replace_linear", lambda module: None)
    model, paragraphs = model_of(shape), texts(9)
    np.testing.assert_allclose(
        logits_of(int8.Int8Classifier(model), paragraphs), logits_of(model, paragraphs), atol=2e-5
    )


def test_int8_linear_against_a_product_of_integers() -> None:
    linear = torch.nn.Linear(8, 3)
    linear.weight.data = torch.randint(-127, 128, (3, 8)).float()
    linear.weight.data[:, 0] = 127  # every row has the scale 1, so that nothing is rounded
    x = torch.randint(-127, 128, (5, 8)).float()
    x[:, 0] = -127
    torch.testing.assert_close(int8.Int8Linear(linear)(x), linear(x).detach(), rtol=1e-6, atol=1e-3)


def test_a_row_of_zeros_stays_zero() -> None:
    model = model_of("bert1")
    model.classifier.weight.data[1] = 0
    model.classifier.bias.data[1] = 0.5
    assert (logits_of(int8.Int8Classifier(model), texts(3))[:, 1] == 0.5).all()


def test_the_probe_belongs_to_the_texts_first_token() -> None:
    """A BERT-1 keeps the query of [CLS]; it must be that of the token that texts begin with."""
    model = model_of("bert1")
    other = TokenIds.from_lists([[7, 8, 9, 3]])
    np.testing.assert_allclose(
        logits_of(int8.Int8Classifier(model), other), logits_of(model, other), atol=0.05
    )


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_members_side_by_side_answer_as_they_do_alone(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    models = [int8.Int8Classifier(model_of("bert1", seed)) for seed in range(5)]
    for count in (1, 70):
        paragraphs = texts(count)
        together = logits_of_all(models, paragraphs, 32)
        for model, field in zip(models, together, strict=True):
            assert (field == logits_of(model, paragraphs)).all()


def test_a_committee_of_deep_int8_members_ends() -> None:
    """Their blocks share out work among the same threads: one waiting for another would hang."""
    models = [int8.Int8Classifier(model_of(shape)) for shape in ("bert3", "bert3", "bert1")]
    assert logits_of_all(models, texts(1), 32).shape == (3, 1, 4)


def test_a_classifier_in_int8() -> None:
    tokenizer = Tokenizer([*SPECIAL_TOKENS, *(f"w{number}" for number in range(55))])
    classifier = Classifier(model_of("bert1"), tokenizer, list("abcd"))
    members = [classifier, Classifier(model_of("bert1", 1), tokenizer, list("abcd"))]
    committee = Committee(members, temperature=2.0)
    sentences = ["w1 w2 w3", "w5", "w9 w8 w7 w50"]
    np.testing.assert_allclose(committee.int8().logits(sentences), committee.logits(sentences), atol=0.1)
    np.testing.assert_allclose(
        committee.int8().probabilities(sentences), committee.probabilities(sentences), atol=0.05
    )
    assert classifier.int8().int8().logits(sentences).shape == (3, 4)
    with pytest.raises(UserError, match="int8 weights cannot be saved"):
        classifier.int8().save(None)  # type: ignore[arg-type]


@pytest.mark.parametrize("hardware", [True, False])
def test_products_with_and_without_hardware(hardware: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(int8, "supports_int8", lambda: hardware)
    x, weight = (torch.randint(-127, 128, (rows, 64), dtype=torch.int8) for rows in (40, 24))
    assert torch.equal(int8._products(x, weight).long(), x.long() @ weight.long().t())
