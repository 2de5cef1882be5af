"""The soft committee: shallow models vote with their raw output fields.

Section 2.5 of the paper's appendix: the members' logits are summed as they are, no
softmax, no weights, and the decision is made on the sum. Members may differ in
architecture, vocabulary and recipe; only the labels must be the same.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tinylm.classifier import Classifier
from tinylm.errors import UserError
from tinylm.model.inference import logits_of_all
from tinylm.text.store import TokenIds

MEMBERS = "committee.json"


class Committee:
    """Several classifiers that decide together; one classifier is a committee of one.

    Args:
        members: classifiers with the same labels in the same order.

    Raises:
        UserError: no member, or members with other labels.
    """

    def __init__(self, members: Sequence[Classifier]) -> None:
        if not members:
            raise UserError("a committee needs at least one member.")
        self.members = list(members)
        self.label_names = self.members[0].label_names
        for number, member in enumerate(self.members):
            if member.label_names != self.label_names:
                raise UserError(
                    f"member {number + 1} of the committee has the labels {', '.join(member.label_names)};"
                    f" the first has {', '.join(self.label_names)}; all must have the same."
                )

    def encode(self, texts: Sequence[str]) -> list[TokenIds]:
        """Token ids as each member reads them; members with one vocabulary share them."""
        read: dict[tuple[str, int], TokenIds] = {}
        readers = [(member.tokenizer.fingerprint, member.model.config.max_tokens) for member in self.members]
        for reader, member in zip(readers, self.members, strict=True):
            if reader not in read:
                read[reader] = member.tokenizer.encode(texts, reader[1])
        return [read[reader] for reader in readers]

    def member_logits(self, texts: Sequence[str]) -> np.ndarray:
        """The field of each member, `float32 [members, texts, labels]`."""
        out = np.zeros((len(self.members), len(texts), len(self.label_names)), np.float32)
        together: dict[int, tuple[TokenIds, list[int]]] = {}
        for number, ids in enumerate(self.encode(texts)):
            together.setdefault(id(ids), (ids, []))[1].append(number)
        for ids, numbers in together.values():
            models = [self.members[number].model for number in numbers]
            out[numbers] = logits_of_all(models, ids, models[0].config.max_tokens)
        return out

    def logits(self, texts: Sequence[str]) -> np.ndarray:
        """The summed field, `float32 [texts, labels]`."""
        field: np.ndarray = self.member_logits(texts).sum(0)
        return field

    def int8(self) -> Committee:
        """The same committee with int8 weights, see `Classifier.int8`."""
        return Committee([member.int8() for member in self.members])

    def probabilities(self, texts: Sequence[str]) -> np.ndarray:
        """Softmax of the summed field, `float32 [texts, labels]`.

        Its arg max is the committee's decision. The sum of several confident fields
        is more confident than it is right: do not read these as calibrated.
        """
        field = self.logits(texts)
        weights = np.exp(field - field.max(1, keepdims=True))
        return np.asarray(weights / weights.sum(1, keepdims=True))

    def predict(self, texts: Sequence[str]) -> list[str]:
        """The label of each text."""
        return [self.label_names[i] for i in self.logits(texts).argmax(1)]

    def save(self, folder: Path) -> None:
        """Write every member to a folder of its own under the existing `folder`."""
        names = [f"member-{number}" for number in range(1, len(self.members) + 1)]
        for name, member in zip(names, self.members, strict=True):
            member.save(Path(folder) / name)
        text = json.dumps({"members": names}, indent=2)
        (Path(folder) / MEMBERS).write_text(text + "\n", encoding="utf-8")


def load_committee(folder: Path) -> Committee:
    """Read a committee, or a single classifier as a committee of one.

    Raises:
        UserError: neither is there, or a file is damaged.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder; give the folder of a classifier or a committee.")
    path = folder / MEMBERS
    if not path.is_file():
        return Committee([Classifier.load(folder)])
    try:
        names = json.loads(path.read_text(encoding="utf-8"))["members"]
        folders = [folder / name for name in names]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is damaged ({error}); save the committee again.") from error
    return Committee([Classifier.load(member) for member in folders])
