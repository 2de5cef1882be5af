"""The second part of pre-training, against sets of tokens and frequencies counted by hand."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tinylm.model.heads import MaskedLanguageModel
from tinylm.text.store import TokenIds
from tinylm.text.tokenizer import SPECIAL_TOKENS, Tokenizer
from tinylm.train import bag_of_words
from tinylm.train.bag_of_words import Bags, bag_of_words_run, predict_bags
from tinylm.train.checkpoint import Checkpoint
from tinylm.train.loop import train
from tinylm.train.recipes import RECIPES

TOPICS, WORDS = 12, 12
TOKENIZER = Tokenizer([*SPECIAL_TOKENS, "the", *(f"w{i}" for i in range(TOPICS * WORDS))])
CLS, SEP, THE = TOKENIZER.cls_id, TOKENIZER.sep_id, len(SPECIAL_TOKENS)
RECIPE = RECIPES["fast"].with_epochs(bag_of_words=3)
CONFIG = RECIPE.model_config_for(len(TOKENIZER), layers=1, heads=1, max_tokens=48)


def topical_texts(count: int) -> TokenIds:
    """Each text has "the" in it and words of its topic alone, of which there are twelve, in any order."""
    rng = np.random.default_rng(0)
    return TokenIds.from_lists(
        [CLS, THE, *THE + 1 + WORDS * rng.integers(TOPICS) + rng.integers(0, WORDS, n), THE, SEP]
        for n in rng.integers(1, 60, count)
    )


TEXTS = topical_texts(400)


def model() -> MaskedLanguageModel:
    torch.manual_seed(0)
    return MaskedLanguageModel(CONFIG).eval()


def test_bags_are_what_is_hidden_and_not_read() -> None:
    bags = Bags(TEXTS, TOKENIZER)
    in_texts = Counter(token for row in range(len(TEXTS)) for token in set(TEXTS[row].tolist()))
    # What more than a tenth of the texts have is left out; a topic is that of about a twelfth of them.
    expected = {token for token, count in in_texts.items() if count <= 0.1 * len(TEXTS)}
    assert set(bags.tokens.tolist()) == expected and THE not in expected and len(expected) > WORDS
    read, targets = bags.draw(TEXTS, np.random.default_rng(0))
    shares, bagged = [], 0
    for row in range(len(TEXTS)):
        text, kept = TEXTS[row].tolist(), read[row].tolist()
        assert (kept[0], kept[-1]) == (CLS, SEP)
        hidden = Counter(text) - Counter(kept)
        assert hidden and not Counter(kept) - Counter(text)  # something is hidden, and nothing is new
        assert len(kept) > 2
        shares.append(hidden.total() / (len(text) - 2))
        weights = {
            token: np.log(len(TEXTS) / in_texts[token]) for token in hidden if token in expected - set(kept)
        }
        total = sum(weights.values())
        found = {int(token): share for token, share in zip(bags.tokens, targets[row], strict=True) if share}
        assert found == pytest.approx({token: weight / total for token, weight in weights.items()}, rel=1e-5)
        bagged += bool(weights)
    assert np.mean(shares) == pytest.approx(0.5, abs=0.03) and bagged > 200


def test_pieces_are_read_or_hidden_together() -> None:
    long = TokenIds.from_lists([[CLS, *range(THE, THE + 64), SEP]] * 50)
    read, _ = Bags(long, TOKENIZER).draw(long, np.random.default_rng(0))
    counted = Counter(
        tuple(token in set(read[row].tolist()) for token in range(THE, THE + 64)) for row in range(50)
    )
    for pattern in counted:
        pieces = np.reshape(pattern, (4, 16))
        assert (pieces.all(1) | ~pieces.any(1)).all()
    assert len(counted) > 8  # of the 14 that have both


def test_a_corpus_whose_words_are_all_frequent_has_bags_of_them() -> None:
    texts = TokenIds.from_lists([[CLS, THE + 1, THE + 2, SEP]] * 3)
    assert set(Bags(texts, TOKENIZER).tokens.tolist()) == {THE + 1, THE + 2}
    history = predict_bags(texts, TOKENIZER, model(), RECIPE, seed=0)
    assert [record["loss"] for record in history] == [0, 0, 0]  # a word in every text weighs nothing


def test_the_encoder_learns_what_a_text_is_about() -> None:
    trained = model()
    head = {name: value.clone() for name, value in trained.state_dict().items() if "encoder" not in name}
    before = trained.encoder.state_dict()["embeddings.word.weight"].clone()
    history = predict_bags(TEXTS, TOKENIZER, trained, RECIPE.with_epochs(bag_of_words=40), seed=0)
    # Whoever knows the topic, and nothing but that, guesses among its words.
    assert history[-1]["loss"] < np.log(WORDS) < history[0]["loss"] - 1
    assert not torch.equal(before, trained.encoder.state_dict()["embeddings.word.weight"])
    for name, value in head.items():
        assert torch.equal(trained.state_dict()[name], value)


def test_a_killed_run_resumes_and_equals_an_undisturbed_one(tmp_path: Path) -> None:
    def run_of(path: Path | None) -> Any:
        checkpoint = None if path is None else Checkpoint(path, {}, every=0)
        return bag_of_words_run(TEXTS, TOKENIZER, model(), RECIPE, seed=0, checkpoint=checkpoint)

    expected, undisturbed = run_of(None)
    train(undisturbed, "undisturbed")
    _, killed = run_of(tmp_path / "checkpoint")
    stops = iter([False] * 16 + [True])
    train(killed, "killed", stop=lambda: next(stops))
    found, resumed = run_of(tmp_path / "checkpoint")
    assert resumed.state.step == 17
    train(resumed, "resumed")
    for name, value in expected.state_dict().items():
        assert torch.equal(found.state_dict()[name], value), name


def test_the_most_frequent_tokens_are_predicted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bag_of_words, "PREDICTED", 5)
    in_texts = Counter(token for row in range(len(TEXTS)) for token in set(TEXTS[row].tolist()))
    counts = [in_texts[token] for token in Bags(TEXTS, TOKENIZER).tokens.tolist()]
    assert counts == sorted((count for count in in_texts.values() if count <= 40), reverse=True)[:5]
