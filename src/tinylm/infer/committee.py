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
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from scipy.special import expit, softmax

from tinylm.errors import UserError
from tinylm.infer.classifier import Classifier
from tinylm.model.logits import logits_of_all
from tinylm.text.store import TokenIds

MEMBERS, TOKEN_COUNTS = "committee.json", "token_counts.safetensors"
HARDLY_SEEN = 5  # occurrences in pre-training below which a token means little to the model


class Committee:
    """Several classifiers that decide together; one classifier is a committee of one.

    Args:
        members: classifiers with the same labels in the same order.
        temperature: the summed field is divided by it before it becomes probabilities,
            see `calibration.py`; 1 gives those of the bare sum, which is over-confident.
        thresholds: for texts with several labels, `[labels]`: a label is given from this
            probability on, each by itself. None for one label per text.
        token_counts: `int64 [vocab]`, how often pre-training saw each token of the first
            member's vocabulary; None where that is not known.

    Raises:
        UserError: no member, or members with other labels.
    """

    def __init__(
        self,
        members: Sequence[Classifier],
        *,
        temperature: float = 1.0,
        thresholds: np.ndarray | None = None,
        token_counts: np.ndarray | None = None,
    ) -> None:
        if not members:
            raise UserError("a committee needs at least one member.")
        self.members = list(members)
        self.label_names = self.members[0].label_names
        self.temperature, self.thresholds, self.token_counts = temperature, thresholds, token_counts
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
        return Committee(
            [member.int8() for member in self.members],
            temperature=self.temperature,
            thresholds=self.thresholds,
            token_counts=self.token_counts,
        )

    def probabilities(self, texts: Sequence[str]) -> np.ndarray:
        """Probabilities of the labels, `float32 [texts, labels]`, as `probabilities_of` makes them."""
        return self.probabilities_of(self.logits(texts))

    def probabilities_of(self, field: np.ndarray) -> np.ndarray:
        """Softmax of the field over the temperature; with several labels per text, each label's sigmoid.

        The arg max of the softmax is the committee's decision whatever the temperature.
        """
        scaled = field / np.float32(self.temperature)
        return np.asarray(softmax(scaled, axis=1) if self.thresholds is None else expit(scaled))

    def given(self, probabilities: np.ndarray) -> np.ndarray:
        """Which labels the committee gives, `bool [texts, labels]`: the best, or those above a threshold."""
        if self.thresholds is not None:
            return np.asarray(probabilities >= self.thresholds)
        return np.eye(probabilities.shape[1], dtype=bool)[probabilities.argmax(1)]

    def predict(self, texts: Sequence[str]) -> list[str]:
        """The best label of each text."""
        return [self.label_names[i] for i in self.logits(texts).argmax(1)]

    @property
    def hardly_seen_ids(self) -> np.ndarray | None:
        """Tokens of the first member that pre-training hardly saw, `int64`; None where nobody counted.

        [UNK] is one of them however often it was met: it stands for ever other words.
        """
        if self.token_counts is None:
            return None
        tokenizer = self.members[0].tokenizer
        seldom = np.setdiff1d(np.flatnonzero(self.token_counts < HARDLY_SEEN), tokenizer.special_ids)
        return np.append(seldom, tokenizer.unk_id)

    def hardly_seen(self, texts: Sequence[str]) -> np.ndarray:
        """Share of each text's tokens that pre-training hardly saw, `float64 [texts]`.

        [UNK] counts as never seen. A text without tokens has a share of 1.

        Raises:
            UserError: the committee does not know what its pre-training saw.
        """
        if (ids := self.hardly_seen_ids) is None:
            raise UserError(f"the committee has no {TOKEN_COUNTS}; only those of 'tinylm fit' have it.")
        first = self.members[0]
        unseen = np.zeros(len(first.tokenizer), bool)
        unseen[ids] = True
        encoded = first.tokenizer.encode(texts, first.model.config.max_tokens)
        words = encoded.lengths - 2  # without [CLS] and [SEP]
        hits = np.add.reduceat(unseen[encoded.ids], encoded.offsets[:-1], dtype=np.int64)
        return np.where(words > 0, hits / np.maximum(words, 1), 1.0)

    def save(self, folder: Path, int8: bool = False) -> None:
        """Write every member to a folder of its own under the existing `folder`; `int8` as `save_model`."""
        folder = Path(folder)
        names = [f"member-{number}" for number in range(1, len(self.members) + 1)]
        for name, member in zip(names, self.members, strict=True):
            member.save(folder / name, int8)
        facts = {
            "members": names,
            "temperature": self.temperature,
            "multi_label": self.thresholds is not None,
            "thresholds": None if self.thresholds is None else self.thresholds.tolist(),
        }
        (folder / MEMBERS).write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
        if self.token_counts is not None:
            save_file({"counts": self.token_counts}, folder / TOKEN_COUNTS)


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
        facts = json.loads(path.read_text(encoding="utf-8"))
        folders = [folder / name for name in facts["members"]]
        temperature = float(facts.get("temperature", 1))
        thresholds = np.array(facts["thresholds"], np.float64) if facts.get("multi_label") else None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is damaged ({error}); save the committee again.") from error
    members = [Classifier.load(member) for member in folders]
    if thresholds is not None and members and thresholds.shape != (len(members[0].label_names),):
        raise UserError(
            f"{path} has thresholds of shape {thresholds.shape} for {len(members[0].label_names)} labels."
        )
    counts = _read_counts(folder / TOKEN_COUNTS, members)
    return Committee(members, temperature=temperature, thresholds=thresholds, token_counts=counts)


def _read_counts(path: Path, members: Sequence[Classifier]) -> np.ndarray | None:
    if not path.is_file():
        return None
    try:
        counts = np.asarray(load_file(path)["counts"])
    except (SafetensorError, KeyError) as error:
        raise UserError(f"{path} is damaged ({error}); save the committee again.") from error
    if members and counts.shape != (len(members[0].tokenizer),):
        raise UserError(
            f"{path} counts {len(counts):,} tokens; the vocabulary has {len(members[0].tokenizer):,}."
        )
    return counts
