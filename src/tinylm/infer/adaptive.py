"""A committee that stops asking when the answer is settled.

The members vote in turn. After each vote the leading label is returned if the members
that are left cannot overturn it, which their weights tell, or will hardly overturn it,
which texts held out from training tell: the lead then is at least a margin chosen there.
Easy texts cost one member, hard ones all.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tinylm.errors import UserError
from tinylm.infer.classifier import Model
from tinylm.infer.committee import Committee
from tinylm.model.logits import logits_of
from tinylm.model.tfidf import TfidfClassifier


class AdaptiveCommittee:
    """A soft committee whose members are asked in turn.

    Args:
        committee: two or more members.
        margins: `float32 [members - 1]`; entry k is the lead over the second label, in the
            summed field, at which the first k + 1 members decide alone.
    """

    def __init__(self, committee: Committee, margins: np.ndarray) -> None:
        if len(margins) != len(committee.members) - 1:
            raise UserError(
                f"a committee of {len(committee.members)} needs {len(committee.members) - 1} margins,"
                f" one for each member but the last; given were {len(margins)}."
            )
        self.committee = committee
        self.margins = margins
        # swing[k, a, b]: the most that members k + 1, k + 2, ... can add to b over a.
        swings = np.stack([_swing(member.model) for member in committee.members])
        self.swing = swings[::-1].cumsum(0)[::-1][1:]

    @classmethod
    def fit(cls, committee: Committee, texts: Sequence[str], changed: float = 0.004) -> AdaptiveCommittee:
        """Choose the margins on texts that no member was trained on.

        Args:
            committee: two or more members.
            texts: held out from training and from testing; their labels are not needed.
            changed: share of the texts that may be decided otherwise than by all members.
        """
        if not len(texts):
            raise UserError("margins are chosen on held-out texts; none were given.")
        fields = committee.member_logits(texts).cumsum(0)
        final = fields[-1].argmax(1)
        waiting = np.ones(len(texts), bool)
        stops = len(fields) - 1
        margins = np.full(stops, np.inf, np.float32)
        spent = 0
        for k, field in enumerate(fields[:-1]):
            # Every member may spend an equal part of what is allowed, and what those before it left.
            allowed = int(changed * len(texts) * (k + 1) / stops) - spent
            lead = _lead(field)
            wrong = np.sort(lead[waiting & (field.argmax(1) != final)])[::-1]
            margins[k] = np.nextafter(wrong[allowed], np.float32(np.inf)) if len(wrong) > allowed else 0
            stopped = waiting & (lead >= margins[k])
            spent += int((field.argmax(1) != final)[stopped].sum())
            waiting &= ~stopped
        return cls(committee, margins)

    def decide(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Number of each text's label, and how many members were asked; both `int64 [texts]`."""
        members = self.committee.members
        field = np.zeros((len(texts), len(self.committee.label_names)), np.float32)
        asked = np.zeros(len(texts), np.int64)
        waiting = np.arange(len(texts))
        for k, (member, ids) in enumerate(zip(members, self.committee.encode(texts), strict=True)):
            field[waiting] += logits_of(member.model, ids.take(waiting))
            asked[waiting] += 1
            if k < len(self.margins):
                waiting = waiting[~self._settled(field[waiting], k)]
        return field.argmax(1), asked

    def predict(self, texts: Sequence[str]) -> list[str]:
        """The label of each text."""
        return [self.committee.label_names[i] for i in self.decide(texts)[0]]

    def _settled(self, field: np.ndarray, k: int) -> np.ndarray:
        """Whether members 0 to k decide alone, `bool [texts]`."""
        leader = field.argmax(1)
        behind = field[np.arange(len(field)), leader][:, None] - field
        out: np.ndarray = (_lead(field) >= self.margins[k]) | (behind >= self.swing[k][leader]).all(1)
        return out


def _lead(field: np.ndarray) -> np.ndarray:
    """How far the first label is ahead of the second, `float32 [texts]`."""
    best = np.partition(field, -2, axis=1)
    out: np.ndarray = best[:, -1] - best[:, -2]
    return out


def _swing(model: Model) -> np.ndarray:
    """The most that a member can give to label b over label a, `float32 [a, b]`.

    An encoder's logits are W p + b, and tanh keeps every entry of p between -1 and 1.
    """
    if isinstance(model, TfidfClassifier):
        return model.swing()
    weight, bias = model.output_layer
    differences = weight[None] - weight[:, None]
    out: np.ndarray = np.abs(differences).sum(2) + bias[None] - bias[:, None]
    return out
