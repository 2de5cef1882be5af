"""The adaptive committee on members whose fields are given, and on real ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from tinylm.errors import UserError
from tinylm.infer import adaptive as adaptive_module
from tinylm.infer.adaptive import AdaptiveCommittee
from tinylm.infer.classifier import Classifier
from tinylm.infer.committee import Committee
from tinylm.model.config import ModelConfig
from tinylm.model.heads import SequenceClassifier
from tinylm.model.logits import logits_of
from tinylm.text.tokenizer import SPECIAL_TOKENS, Tokenizer

WORDS = [f"w{number}" for number in range(55)]


class Scripted:
    """A member that gives text number n the n-th of its fields; its weights allow any field."""

    def __init__(self, fields: Any, reach: float = 1e6) -> None:
        self.fields = np.asarray(fields, np.float32)
        self.output_layer = (
            np.diag([reach] * self.fields.shape[1]).astype(np.float32),
            np.zeros(2, np.float32),
        )
        self.model = self
        self.label_names = ["a", "b"]


class ScriptedCommittee(Committee):
    def encode(self, texts: Sequence[str]) -> list[Any]:
        return [np.array([int(text) for text in texts], int)] * len(self.members)

    def member_logits(self, texts: Sequence[str]) -> np.ndarray:
        return np.stack([member.fields[self.encode(texts)[0]] for member in self.members])


@pytest.fixture(autouse=True)
def _scripted_logits(monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(model: Any, ids: Any) -> np.ndarray:
        return model.fields[ids] if isinstance(model, Scripted) else logits_of(model, ids)

    monkeypatch.setattr(adaptive_module, "logits_of", answer)


def committee_of(*fields: Any, reach: float = 1e6) -> Committee:
    return ScriptedCommittee([Scripted(field, reach) for field in fields])  # type: ignore[arg-type]


TEXTS = ["0", "1", "2", "3"]
# Leads after the first member: 4, 3, 2, 1. It is wrong about text 2, as all three members decide b.
FIRST = [[4, 0], [0, 3], [2, 0], [1, 0]]
SECOND = [[0, 0], [0, 0], [0, 1], [1, 0]]
THIRD = [[0, 0], [0, 0], [0, 9], [0, 0]]


def test_it_stops_at_the_margin() -> None:
    adaptive = AdaptiveCommittee(committee_of(FIRST, SECOND, THIRD), np.array([3, 2], np.float32))
    labels, asked = adaptive.decide(TEXTS)
    # Text 3 leads by 2 after two members; text 2 by 1 only, and the third overturns it.
    assert asked.tolist() == [1, 1, 3, 2]
    assert labels.tolist() == [0, 1, 1, 0]
    assert adaptive.predict(TEXTS) == ["a", "b", "b", "a"]
    assert adaptive.predict([]) == []


def test_margins_chosen_on_held_out_texts_change_no_decision_there() -> None:
    committee = committee_of(FIRST, SECOND, THIRD)
    adaptive = AdaptiveCommittee.fit(committee, TEXTS, changed=0.0)
    # After the first member, text 2 with its lead of 2 is the one that must not stop.
    assert 2 < adaptive.margins[0] <= 3
    assert 1 < adaptive.margins[1] <= 2
    labels, asked = adaptive.decide(TEXTS)
    assert labels.tolist() == committee.logits(TEXTS).argmax(1).tolist()
    assert asked.tolist() == [1, 1, 3, 2]


def test_a_share_of_decisions_may_change() -> None:
    committee = committee_of(FIRST, SECOND, THIRD)
    adaptive = AdaptiveCommittee.fit(committee, TEXTS, changed=0.5)  # one text of four after each member
    labels, asked = adaptive.decide(TEXTS)
    assert adaptive.margins[0] == 0
    assert asked.tolist() == [1, 1, 1, 1]
    assert (labels != committee.logits(TEXTS).argmax(1)).sum() == 1


def test_a_lead_that_cannot_be_overturned_settles_without_a_margin() -> None:
    # Each member that is left can move the difference by 2 * 0.8 at most: 3.2 after the first, then 1.6.
    never = np.array([np.inf, np.inf], np.float32)
    adaptive = AdaptiveCommittee(committee_of(FIRST, SECOND, THIRD, reach=0.8), never)
    assert adaptive.decide(TEXTS)[1].tolist() == [1, 2, 3, 2]


@pytest.mark.parametrize("int8", [False, True])
def test_what_cannot_be_overturned_is_not(int8: bool) -> None:
    """Without margins, the bound from the weights alone must never change a decision."""
    tokenizer = Tokenizer([*SPECIAL_TOKENS, *WORDS])
    members = []
    for seed in range(3):
        torch.manual_seed(seed)
        model = SequenceClassifier(ModelConfig(vocab_size=60, layers=1, heads=1, init_std=0.2), 3)
        model.classifier.weight.data *= 0.3**seed  # the first says most
        members.append(Classifier(model, tokenizer, ["a", "b", "c"]))
    committee = Committee(members).int8() if int8 else Committee(members)
    random = np.random.default_rng(0)
    texts = [" ".join(random.choice(WORDS, 8)) for _ in range(300)]
    labels, asked = AdaptiveCommittee(committee, np.full(2, np.inf, np.float32)).decide(texts)
    assert labels.tolist() == committee.logits(texts).argmax(1).tolist()
    assert asked.min() < 3  # or nothing was tested


def test_refusals() -> None:
    with pytest.raises(UserError, match="needs 2 margins"):
        AdaptiveCommittee(committee_of(FIRST, SECOND, THIRD), np.zeros(3, np.float32))
    with pytest.raises(UserError, match="none were given"):
        AdaptiveCommittee.fit(committee_of(FIRST, SECOND), [])
