"""The encoder and its heads against brute force, HuggingFace, and themselves in another batch."""

from __future__ import annotations

import math
from typing import TypeVar

import numpy as np
import pytest
import torch
import transformers
from torch import Tensor, nn

from tinylm.errors import UserError
from tinylm.model.config import Convolution, ModelConfig, heads_of_width
from tinylm.model.convolution import ConvolutionalFrontEnd
from tinylm.model.encoder import Attention, Encoder
from tinylm.model.heads import MaskedLanguageModel, SequenceClassifier
from tinylm.model.huggingface import to_huggingface
from tinylm.model.logits import logits_of
from tinylm.ops.packed import Batch, make_batch
from tinylm.text.store import TokenIds

Model = TypeVar("Model", bound=nn.Module)

MAX_TOKENS, VOCAB, LABELS = 32, 120, 3
# Attention pads texts of similar length together: 32, 31 and 28 need a mask, 7 and 7 do not.
LENGTHS = (7, 32, 3, 31, 7, 12, 28, 2)
CONFIG = ModelConfig(vocab_size=VOCAB, layers=2, heads=2, max_tokens=MAX_TOKENS, init_std=0.1)
CONVOLUTION = Convolution(layers=2, channels=3, kernel=(4, 3))
ARCHITECTURES = {
    "one block": CONFIG.model_copy(update={"layers": 1}),
    "three blocks": CONFIG.model_copy(update={"layers": 3}),
    "convolution": CONFIG.model_copy(update={"convolution": CONVOLUTION}),
    "mean": CONFIG.model_copy(update={"pooling": "mean"}),
    "attended": CONFIG.model_copy(update={"pooling": "attended"}),
}


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture
def texts() -> TokenIds:
    rng = np.random.default_rng(0)
    return TokenIds.from_lists(rng.integers(5, VOCAB, n) for n in LENGTHS)


@pytest.fixture(params=ARCHITECTURES.values(), ids=ARCHITECTURES)
def config(request: pytest.FixtureRequest) -> ModelConfig:
    return request.param


def randomised(model: Model) -> Model:
    """Noise on every parameter and running mean, so that no bias is zero and no norm the identity."""
    generator = torch.Generator().manual_seed(1)
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if name.endswith("running_var"):
            tensor.data.uniform_(0.5, 2, generator=generator)
        elif tensor.is_floating_point():
            tensor.data += 0.1 * torch.randn(tensor.shape, generator=generator)
    return model


def whole(texts: TokenIds) -> tuple[Batch, np.ndarray]:
    return make_batch(texts, range(len(texts)), MAX_TOKENS)


@torch.no_grad()
def test_a_text_gives_the_same_alone_and_among_others(texts: TokenIds, config: ModelConfig) -> None:
    model = randomised(SequenceClassifier(config, LABELS)).eval()
    batch, rows = whole(texts)
    hidden = model.encoder(batch).split(batch.lengths.tolist())
    logits = model(batch)
    for place, row in enumerate(rows):
        alone, _ = make_batch(texts, [row], MAX_TOKENS)
        torch.testing.assert_close(hidden[place], model.encoder(alone), atol=1e-5, rtol=0)
        torch.testing.assert_close(logits[place], model(alone)[0], atol=1e-5, rtol=0)
    assert logits.std(0).min() > 0.01  # the texts do differ


def test_logits_of_keeps_the_order_of_the_texts(config: ModelConfig) -> None:
    rng = np.random.default_rng(1)
    texts = TokenIds.from_lists(rng.integers(5, VOCAB, n) for n in rng.integers(2, 40, 150))
    model = randomised(SequenceClassifier(config, LABELS))
    logits = logits_of(model.train(), texts)
    assert logits.shape == (150, LABELS)
    assert logits.dtype == np.float32
    for row in (0, 1, 77, 149):
        alone = logits_of(model, texts.take(np.array([row])))
        np.testing.assert_allclose(logits[row], alone[0], atol=1e-5)


def test_first_tokens_equals_forward_with_equal_gradients(texts: TokenIds, config: ModelConfig) -> None:
    encoder = randomised(Encoder(config.model_copy(update={"dropout": 0.0, "pooling": "first"}))).eval()
    batch, _ = whole(texts)
    direction = torch.randn(len(batch), config.width, generator=torch.Generator().manual_seed(2))

    def states_and_gradients(states: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        encoder.zero_grad()
        (states * direction).sum().backward()
        return states.detach(), {name: p.grad.clone() for name, p in encoder.named_parameters()}

    expected, expected_gradients = states_and_gradients(encoder(batch)[batch.first])
    states, gradients = states_and_gradients(encoder.pooled(batch))
    torch.testing.assert_close(states, expected, atol=1e-5, rtol=0)
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, expected_gradients[name], atol=1e-4, rtol=1e-4, msg=name)


@torch.no_grad()
@pytest.mark.parametrize("pooling", ["mean", "attended"])
def test_a_classifier_reads_the_mean_of_what_huggingface_computes(texts: TokenIds, pooling: str) -> None:
    config = CONFIG.model_copy(update={"pooling": pooling})
    model = randomised(SequenceClassifier(config, LABELS)).eval()
    names = {name.removeprefix("bert."): w for name, w in to_huggingface(model.state_dict()).items()}
    bert = transformers.BertModel(transformers.BertConfig(**config.to_huggingface()))
    bert.eval().load_state_dict(names, strict=False)
    batch, rows = whole(texts)
    logits = model(batch)
    for place, row in enumerate(rows):
        ids, last = torch.from_numpy(texts[row].astype(np.int64))[None], bert.encoder.layer[-1]
        if pooling == "mean":
            read = bert(ids).last_hidden_state[0].mean(0)
        else:
            below = bert(ids, output_hidden_states=True).hidden_states[-2]
            mean = last.attention(below)[0][0].mean(0)
            read = last.output(last.intermediate(mean), mean)
        expected = model.classifier(torch.tanh(model.pooler(read)))
        torch.testing.assert_close(logits[place], expected, atol=1e-4, rtol=0)
    assert logits.std(0).min() > 0.01


def test_mlm_loss_and_gradients_equal_huggingface(texts: TokenIds) -> None:
    ours = randomised(MaskedLanguageModel(CONFIG.model_copy(update={"dropout": 0.0})))
    theirs = transformers.BertForMaskedLM(
        transformers.BertConfig(
            vocab_size=VOCAB,
            hidden_size=CONFIG.width,
            num_hidden_layers=CONFIG.layers,
            num_attention_heads=CONFIG.heads,
            intermediate_size=4 * CONFIG.width,
            max_position_embeddings=MAX_TOKENS,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
        )
    )
    missing, unexpected = theirs.load_state_dict(to_huggingface(ours.state_dict()), strict=False)
    assert not unexpected
    assert set(missing) <= {"cls.predictions.decoder.weight", "cls.predictions.decoder.bias"}  # both are tied

    batch, rows = whole(texts)
    rng = np.random.default_rng(3)
    positions = torch.from_numpy(np.flatnonzero(rng.random(len(batch.ids)) < 0.3))
    targets = torch.from_numpy(rng.integers(5, VOCAB, len(positions)))
    loss = nn.functional.cross_entropy(ours(batch, positions), targets)
    loss.backward()
    torch.testing.assert_close(ours(batch, positions, targets), loss)

    attention_mask = torch.arange(MAX_TOKENS) < torch.from_numpy(batch.lengths)[:, None]
    packed_labels = torch.full_like(batch.ids, -100).index_copy(0, positions, targets)
    input_ids = torch.zeros(len(rows), MAX_TOKENS, dtype=torch.long)
    labels = torch.full_like(input_ids, -100)
    input_ids[attention_mask], labels[attention_mask] = batch.ids, packed_labels
    reference = theirs(input_ids=input_ids, attention_mask=attention_mask.long(), labels=labels).loss
    reference.backward()

    torch.testing.assert_close(loss, reference, atol=1e-5, rtol=0)
    gradients = to_huggingface({name: p.grad for name, p in ours.named_parameters()})
    expected = {name: p.grad for name, p in theirs.named_parameters()}
    assert gradients.keys() == expected.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, expected[name], atol=1e-5, rtol=1e-4, msg=name)


@pytest.mark.parametrize("kernel", [(1, 3), (3, 3), (16, 3), (2, 4)])
@torch.no_grad()
def test_front_end_equals_loops_over_the_image(kernel: tuple[int, int]) -> None:
    tokens, width = 18, 8
    front_end = randomised(ConvolutionalFrontEnd(Convolution(layers=2, channels=3, kernel=kernel))).eval()
    image = torch.randn(1, tokens, width, generator=torch.Generator().manual_seed(3))
    out = front_end(image, image.shape[1])
    assert out.shape == image.shape

    convolutions = [part for part in front_end.modules() if isinstance(part, nn.Conv2d)]
    norms = [part for part in front_end.modules() if isinstance(part, nn.BatchNorm2d)]
    assert [c.kernel_size for c in convolutions] == [kernel, kernel, (1, 1)]
    assert [c.out_channels for c in convolutions] == [3, 3, 1]
    expected = image.double().numpy()
    for convolution, norm in zip(convolutions, norms, strict=True):
        expected = convolved_by_loops(expected, convolution)
        mean, variance, weight, bias = (
            tensor.double().numpy()[:, None, None]
            for tensor in (norm.running_mean, norm.running_var, norm.weight, norm.bias)
        )
        expected = (expected - mean) / np.sqrt(variance + norm.eps) * weight + bias
        expected = np.vectorize(lambda x: x * 0.5 * (1 + math.erf(x / math.sqrt(2))))(expected)
    np.testing.assert_allclose(out.numpy(), expected, atol=1e-5)


def convolved_by_loops(image: np.ndarray, convolution: nn.Conv2d) -> np.ndarray:
    """`[channels, tokens, width]` convolved; an even kernel sees one more place behind than before."""
    weight, bias = convolution.weight.double().numpy(), convolution.bias.double().numpy()
    _, tokens, width = image.shape
    out_channels, in_channels, *kernel = weight.shape
    before = [(size - 1) // 2 for size in kernel]
    out = np.zeros((out_channels, tokens, width))
    for o, t, w in np.ndindex(out.shape):
        out[o, t, w] = bias[o]
        for c, i, j in np.ndindex(in_channels, *kernel):
            row, column = t + i - before[0], w + j - before[1]
            if 0 <= row < tokens and 0 <= column < width:
                out[o, t, w] += weight[o, c, i, j] * image[c, row, column]
    return out


@pytest.mark.parametrize(("kernel", "reach"), [((1, 3), 0), ((3, 3), 1), ((4, 3), 2), ((16, 3), 8)])
@torch.no_grad()
def test_padded_places_within_reach_of_the_kernel_take_part(kernel: tuple[int, int], reach: int) -> None:
    length = 10
    config = CONFIG.model_copy(update={"convolution": Convolution(layers=1, channels=2, kernel=kernel)})
    encoder = randomised(Encoder(config)).eval()
    batch, _ = make_batch(TokenIds.from_lists([range(5, 5 + length)]), [0], MAX_TOKENS)
    before = encoder(batch)

    def changes(row: Tensor) -> bool:
        old = row.clone()
        row += torch.linspace(-1, 1, len(row))
        changed = not torch.equal(encoder(batch), before)
        row.copy_(old)
        return changed

    embeddings = encoder.embeddings
    for place in range(length, MAX_TOKENS):
        assert changes(embeddings.position.weight[place]) == (place < length + reach), place
    assert changes(embeddings.word.weight[0]) == (reach > 0)


def test_the_embedding_of_padding_takes_part_but_is_not_trained(texts: TokenIds) -> None:
    encoder = randomised(Encoder(ARCHITECTURES["convolution"])).eval()
    encoder(whole(texts)[0]).square().sum().backward()
    gradient = encoder.embeddings.word.weight.grad
    assert not gradient[0].any()
    assert gradient[texts.ids[0]].any()


@torch.no_grad()
def test_padding_never_reaches_a_bert_without_convolution() -> None:
    encoder = randomised(Encoder(CONFIG)).eval()
    batch, _ = make_batch(TokenIds.from_lists([range(5, 15), range(5, 14)]), [0, 1], MAX_TOKENS)
    before = encoder(batch)
    encoder.embeddings.word.weight[0] += 1
    encoder.embeddings.position.weight[10:] += 1
    assert torch.equal(encoder(batch), before)


def test_initialisation_is_berts() -> None:
    config = ModelConfig(vocab_size=500, layers=2, heads=2, convolution=CONVOLUTION)
    for model in (MaskedLanguageModel(config), SequenceClassifier(config, LABELS)):
        assert not model.encoder.embeddings.word.weight[0].any()
        identities = 0
        for name, parameter in model.named_parameters():
            owner = model.get_submodule(name.rpartition(".")[0])
            if isinstance(owner, nn.LayerNorm | nn.BatchNorm2d):
                assert (parameter == (1 if name.endswith("weight") else 0)).all(), name
                identities += 1
            elif isinstance(owner, nn.Conv2d):
                continue
            elif name.endswith("bias"):
                assert not parameter.any(), name
            else:
                # Normal, mean 0, std 0.02; five standard errors either way.
                values = parameter[1:] if name.endswith("word.weight") else parameter
                assert abs(values.std() / 0.02 - 1) < 5 / math.sqrt(2 * values.numel()), name
                assert abs(values.mean()) < 5 * 0.02 / math.sqrt(values.numel()), name
        assert identities > 10


@pytest.mark.parametrize(
    ("layers", "convolutions", "expected"), [(6, 0, 25), (1, 0, 5), (1, 2, 7), (1, 1, 6), (2, 3, 12)]
)
def test_layer_count_is_the_papers(layers: int, convolutions: int, expected: int) -> None:
    """Section 5: BERT-6 6 x 4 + 1 = 25, BERT-1 with two convolutional layers 4 + 3 = 7."""
    convolution = Convolution(layers=convolutions, channels=8) if convolutions else None
    assert ModelConfig(layers=layers, convolution=convolution).layer_count == expected


def test_width_is_64_times_heads() -> None:
    assert ModelConfig(heads=5).width == 320
    assert heads_of_width(320) == 5
    for width in (0, -64, 100, 63):
        with pytest.raises(UserError, match=f"width {width} .*64 x heads"):
            heads_of_width(width)


@torch.no_grad()
def test_dropout_works_in_training_only(texts: TokenIds) -> None:
    model = randomised(SequenceClassifier(CONFIG.model_copy(update={"dropout": 0.2}), LABELS)).eval()
    without = SequenceClassifier(CONFIG.model_copy(update={"dropout": 0.0}), LABELS).train()
    without.load_state_dict(model.state_dict())
    batch, _ = whole(texts)
    torch.testing.assert_close(model(batch), without(batch), atol=1e-6, rtol=0)

    def varies_alone(part: nn.Module) -> bool:
        """Whether the module has a dropout of its own, that of its parts being off."""
        part.training = True
        out = model(batch), model(batch)
        model.eval()
        return not torch.equal(*out)

    encoder = model.encoder
    assert not varies_alone(encoder)  # it has none of its own
    for part in (model, encoder.embeddings, *encoder.blocks, *(block.attention for block in encoder.blocks)):
        assert varies_alone(part), part


@torch.no_grad()
def test_dropout_zeroes_its_share_and_scales_the_rest(texts: TokenIds) -> None:
    embeddings = randomised(Encoder(CONFIG.model_copy(update={"dropout": 0.2}))).embeddings
    batch, _ = whole(texts)
    kept = embeddings.eval()(batch.ids, batch.positions)
    dropped = embeddings.train()(batch.ids, batch.positions)
    zero = dropped == 0
    torch.testing.assert_close(dropped[~zero], kept[~zero] / 0.8)
    n = zero.numel()
    assert abs(int(zero.sum()) - 0.2 * n) < 4 * math.sqrt(n * 0.2 * 0.8)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.no_grad()
def test_attention_dropout_keeps_the_mean_and_both_ways_spread_alike(dtype: torch.dtype) -> None:
    copies, length = 4000, 6
    attention = randomised(Attention(CONFIG.model_copy(update={"dropout": 0.3}))).to(dtype)
    text = torch.randn(length, CONFIG.width, generator=torch.Generator().manual_seed(4)).to(dtype)
    one, many = (Batch(torch.zeros(n * length, dtype=torch.long), np.full(n, length)) for n in (1, copies))
    expected = attention.eval()(text, text, one.groups)[0].float()

    attention.train()
    x = text.repeat(copies, 1)
    by_forward = attention(x, x, many.groups)[many.first].float()
    by_first_tokens = attention.first_tokens(x, many).float()
    rounding = torch.finfo(dtype).eps * expected.abs().max()
    for drawn in (by_forward, by_first_tokens):
        error = (drawn.mean(0) - expected).abs() - rounding
        assert (error < 5 * drawn.std(0) / math.sqrt(copies)).all()
    torch.testing.assert_close(by_first_tokens.std(0), by_forward.std(0), rtol=0.1, atol=0)
