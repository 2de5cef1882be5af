"""Batches, their order, and what masked language modelling hides in them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from tinylm.model.config import ModelConfig
from tinylm.model.heads import Candidates, MaskedLanguageModel
from tinylm.ops.packed import PAD_ID, Batch, make_batch
from tinylm.text.store import TokenIds
from tinylm.text.tokenizer import SPECIAL_TOKENS, Tokenizer
from tinylm.train.masking import MASKS, CandidateSampling, Masked, Masking, epoch_batches, generator
from tinylm.train.pretrain import pretrain
from tinylm.train.recipes import RECIPES

VOCAB = 250
CLS, SEP = 2, 3


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    """Special tokens with unusual ids, so that code which relies on small ids fails."""
    words = [f"word{i}" for i in range(VOCAB - len(SPECIAL_TOKENS))]
    pad, unk, *others = SPECIAL_TOKENS
    return Tokenizer([pad, *words[:100], unk, *words[100:], *others])


def within_four_sigma(count: int, n: int, share: float) -> bool:
    return abs(count - n * share) <= 4 * math.sqrt(n * share * (1 - share))


@pytest.mark.parametrize("rate", [0.15, 0.3])
def test_masking_statistics(tokenizer: Tokenizer, rate: float) -> None:
    rng = np.random.default_rng(0)
    ids = rng.integers(0, VOCAB, 400_000)
    masked = Masking(tokenizer, rate).draw(torch.from_numpy(ids), np.random.default_rng(1))
    after, positions, targets = (tensor.numpy() for tensor in (masked.ids, masked.positions, masked.targets))

    assert len(np.unique(positions)) == len(positions)
    assert (targets == ids[positions]).all()
    assert not np.isin(targets, tokenizer.special_ids).any()
    untouched = np.ones(len(ids), bool)
    untouched[positions] = False
    assert (after[untouched] == ids[untouched]).all()

    ordinary = int((~np.isin(ids, tokenizer.special_ids)).sum())
    assert within_four_sigma(len(positions), ordinary, rate)
    # A random token is [MASK], or the token itself, one time in VOCAB each.
    became, chosen = after[positions], len(positions)
    assert within_four_sigma((became == tokenizer.mask_id).sum(), chosen, 0.8 + 0.1 / VOCAB)
    assert within_four_sigma((became == targets).sum(), chosen, 0.1 + 0.1 / VOCAB)
    other = (became != tokenizer.mask_id) & (became != targets)
    assert within_four_sigma(other.sum(), chosen, 0.1 * (1 - 2 / VOCAB))


def test_chance_of_a_candidate(tokenizer: Tokenizer) -> None:
    """Counted over many steps; the masked tokens of each are drawn by frequency."""
    random = np.random.default_rng(0)
    frequencies = np.zeros(VOCAB)
    ordinary = np.setdiff1d(np.arange(VOCAB), tokenizer.special_ids)
    frequencies[ordinary] = random.permutation(1 / np.arange(1, len(ordinary) + 1))
    frequencies /= frequencies.sum()
    sampling = CandidateSampling(frequencies, tokenizer.special_ids, 15)
    steps = 4_000
    seen, claimed = np.zeros(VOCAB), np.zeros(VOCAB)
    for _ in range(steps):
        targets = torch.from_numpy(random.choice(VOCAB, 20, p=frequencies))
        candidates, indices = sampling.draw(targets, random)
        assert torch.equal(candidates.ids[indices], targets)
        assert (candidates.ids.diff() > 0).all() and len(candidates.ids) <= 20 + 15
        seen[candidates.ids] += 1
        claimed[candidates.ids] = candidates.log_chance.exp()
    assert not seen[tokenizer.special_ids].any()
    for token in ordinary.tolist():
        assert within_four_sigma(seen[token], steps, claimed[token])


def test_all_tokens_as_candidates_are_the_whole_softmax() -> None:
    torch.manual_seed(0)
    model = MaskedLanguageModel(ModelConfig(vocab_size=VOCAB, layers=1, heads=1, max_tokens=16, dropout=0))
    model.bias.data.normal_()
    ids = TokenIds.from_lists([[CLS, 7, 9, 11, SEP], [CLS, 30, SEP]])
    batch, _ = make_batch(ids, np.arange(2), 16)
    positions, targets = torch.tensor([1, 3, 6]), torch.tensor([7, 200, 30])
    everything = Candidates(torch.arange(VOCAB), torch.zeros(VOCAB))
    losses, gradients = [], []
    for candidates in (None, everything):
        model.zero_grad()
        loss = model(batch, positions, targets, candidates)
        loss.backward()
        model.encoder.embeddings.word.weight.grad[PAD_ID] = 0  # never a candidate, so it has no gradient
        losses.append(loss.item())
        gradients.append([p.grad.clone() for p in model.parameters()])
    assert losses[0] == pytest.approx(losses[1], abs=1e-6)
    for whole, sampled in zip(*gradients, strict=True):
        torch.testing.assert_close(whole, sampled, rtol=1e-4, atol=1e-6)
    # A candidate that is drawn in every tenth step counts ten times: its logit is raised by log 10.
    rare = Candidates(torch.arange(VOCAB), torch.full((VOCAB,), -math.log(10)))
    rare.log_chance[targets] = 0
    weights = model(batch, positions).exp()
    others = weights.sum(1) - weights[:, targets].sum(1)
    by_hand = -(weights[range(3), targets] / (10 * others + weights[:, targets].sum(1))).log().mean()
    assert model(batch, positions, targets, rare).item() == pytest.approx(by_hand.item(), rel=1e-4)


def test_random_tokens_come_from_the_whole_vocabulary(tokenizer: Tokenizer) -> None:
    token = 7
    ids = torch.full((400_000,), token)
    masked = Masking(tokenizer, 0.15).draw(ids, np.random.default_rng(2))
    counts = np.bincount(masked.ids.numpy(), minlength=VOCAB)
    counts = np.delete(counts, [token, tokenizer.mask_id])
    expected = counts.sum() / len(counts)
    chi_squared = float(((counts - expected) ** 2 / expected).sum())
    freedom = len(counts) - 1
    assert abs(chi_squared - freedom) < 4 * math.sqrt(2 * freedom)


def test_positions_are_chosen_independently_of_their_place(tokenizer: Tokenizer) -> None:
    masked = Masking(tokenizer, 0.15).draw(torch.full((200_000,), 7), np.random.default_rng(3))
    chosen = np.zeros(200_000, bool)
    chosen[masked.positions] = True
    for tenth in chosen.reshape(10, -1):
        assert within_four_sigma(tenth.sum(), len(tenth), 0.15)
    neighbours = chosen[1:] & chosen[:-1]
    assert within_four_sigma(neighbours[::2].sum(), len(neighbours[::2]), 0.15**2)


def test_the_batch_itself_is_left_alone(tokenizer: Tokenizer) -> None:
    ids = torch.arange(VOCAB).repeat(40)
    before = ids.clone()
    masked = Masking(tokenizer, 0.5).draw(ids, np.random.default_rng(4))
    assert torch.equal(ids, before)
    assert not torch.equal(masked.ids, before)


def test_every_step_has_masks_of_its_own(tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Masked] = []
    draw = Masking.draw

    def recorded(self: Masking, ids: torch.Tensor, random: np.random.Generator) -> Masked:
        drawn.append(draw(self, ids, random))
        return drawn[-1]

    monkeypatch.setattr(Masking, "draw", recorded)
    # One text, so that order cannot be what differs.
    text = TokenIds.from_lists([[tokenizer.cls_id, *range(5, 67), tokenizer.sep_id]])
    paper = RECIPES["paper"]
    recipe = paper.model_copy(update={"pretrain": paper.pretrain.model_copy(update={"epochs": 6})})
    config = ModelConfig(vocab_size=VOCAB, layers=1, heads=1, max_tokens=64)
    for seed in (1, 1, 2):
        pretrain(text, tokenizer, config, recipe, seed=seed)
    positions = [tuple(masked.positions.tolist()) for masked in drawn]
    first, again, other = positions[:6], positions[6:12], positions[12:]
    assert len(set(first)) == 6
    assert again == first
    assert not set(other) & set(first)


def test_random_numbers_depend_on_seed_purpose_and_number() -> None:
    def numbers(*key: int) -> list[float]:
        return generator(*key).random(4).tolist()

    assert numbers(1, MASKS, 2) == numbers(1, MASKS, 2)
    keys = [(1, MASKS, 2), (2, MASKS, 1), (1, MASKS, 3), (1, MASKS + 1, 2), (3, MASKS, 2)]
    assert len({tuple(numbers(*key)) for key in keys}) == len(keys)


@pytest.mark.parametrize(("n_texts", "batch_size"), [(103, 10), (100, 10), (3, 10), (1, 1)])
def test_an_epoch_takes_every_row_once(n_texts: int, batch_size: int) -> None:
    batches = epoch_batches(n_texts, batch_size, seed=1, epoch=0)
    assert len(batches) == math.ceil(n_texts / batch_size)
    assert all(len(batch) == batch_size for batch in batches[:-1])
    assert sorted(np.concatenate(batches).tolist()) == list(range(n_texts))


def test_the_order_depends_on_seed_and_epoch_alone() -> None:
    def order(seed: int, epoch: int) -> tuple[int, ...]:
        return tuple(np.concatenate(epoch_batches(50, 8, seed, epoch)).tolist())

    np.random.seed(0)
    first = order(1, 0)
    np.random.seed(1)
    torch.manual_seed(1)
    assert order(1, 0) == first
    assert len({order(seed, epoch) for seed in (1, 2, 3) for epoch in range(4)}) == 12


def test_make_batch_puts_the_longest_first_and_cuts_keeping_sep() -> None:
    texts = [[CLS, *range(10, 10 + n), SEP] for n in (3, 9, 0, 5, 3, 20)]
    batch, rows = make_batch(TokenIds.from_lists(texts), [4, 1, 2, 5, 0], max_tokens=8)
    # Rows 5 (22 tokens) and 1 (11) are cut to 8; rows 4 and 0 are equally long and keep their order.
    assert rows.tolist() == [5, 1, 4, 0, 2]
    assert batch.lengths.tolist() == [8, 8, 5, 5, 2]
    assert batch.ids.dtype == torch.int64
    expected = [
        [CLS, *range(10, 16), SEP],
        [CLS, *range(10, 16), SEP],
        [CLS, 10, 11, 12, SEP],
        [CLS, 10, 11, 12, SEP],
        [CLS, SEP],
    ]
    assert batch.ids.tolist() == sum(expected, [])
    assert batch.positions.tolist() == [i for text in expected for i in range(len(text))]
    assert batch.text_of_token.tolist() == [i for i, text in enumerate(expected) for _ in text]
    assert batch.first.tolist() == [0, 8, 16, 21, 26]


def random_batch() -> Batch:
    rng = np.random.default_rng(5)
    texts = TokenIds.from_lists(rng.integers(1, 200, n) for n in (*rng.integers(2, 65, 60), 30, 30, 30))
    return make_batch(texts, range(len(texts)), 64)[0]


def test_groups_hold_every_token_once_in_order() -> None:
    batch = random_batch()
    seen, texts = [], iter(batch.ids.split(batch.lengths.tolist()))
    for group in batch.groups:
        padded = group.keys.pad(batch.ids[:, None]).squeeze(2)
        mask = group.keys.mask(batch.ids.device)
        for row, real in zip(padded, torch.ones_like(padded).bool() if mask is None else mask, strict=True):
            tokens = next(texts)
            assert row[: len(tokens)].equal(tokens)
            assert not row[len(tokens) :].any()
            assert real.tolist() == [place < len(tokens) for place in range(len(row))]
        seen.append(group.keys.unpad(padded))
    assert torch.cat(seen).equal(batch.ids)
    assert next(texts, None) is None


def test_query_groups_hold_the_positions_of_their_own_texts() -> None:
    batch = random_batch()
    positions = np.flatnonzero(np.random.default_rng(6).random(len(batch.ids)) < 0.03)
    text_of_query = batch.text_of_token[positions].tolist()
    text = 0
    masked = batch.query_groups(torch.from_numpy(positions))
    for group, masked_group in zip(batch.groups, masked, strict=True):
        assert masked_group.keys == group.keys
        for start, length in zip(masked_group.queries.starts, masked_group.queries.lengths, strict=True):
            assert text_of_query.count(text) == length
            assert all(text_of_query[row] == text for row in range(start, start + length))
            text += 1
    assert text == len(batch)
    assert len(set(text_of_query)) < len(batch)  # some texts have no query
