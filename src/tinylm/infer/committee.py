"""The soft committee: shallow models vote with their logits.

Section 2.5 of the paper's appendix: the members' logits are summed as they are, no
softmax, no weights, and the decision is made on the sum. Members may differ in
architecture, vocabulary and recipe; only the labels must be the same.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tinylm.errors import UserError
from tinylm.infer.classifier import Classifier
from tinylm.infer.engine import Engine
from tinylm.infer.predictor import Predictor, check_labels
from tinylm.infer.tfidf import TfidfMember
from tinylm.model.config import TfidfConfig
from tinylm.model.storage import read_classifier
from tinylm.system.files import RECORD, read_record
from tinylm.system.plain_json import read_json
from tinylm.text.coverage import read_token_counts, write_token_counts
from tinylm.text.tokenizer import load_tokenizer

MEMBERS = "committee.json"
RARE = 5  # occurrences in pre-training below which a token means little to the model


class Committee(Predictor):
    """Several classifiers that decide together; one classifier is a committee of one.

    Args:
        members: classifiers with the same labels in the same order, and TF-IDF members beside at least
            one that reads tokens.
        temperature: see `Predictor`.
        thresholds: see `Predictor`; None for one label per text.
        token_counts: `int64 [vocab]`, how often each token of the first member's vocabulary occurred in
            pre-training; None if unknown.
        int8: compute with weights in 8 bits, which is faster for wide members and nearly as accurate.

    Raises:
        UserError: no member, or members with other labels.
    """

    def __init__(
        self,
        members: Sequence[Classifier | TfidfMember],
        *,
        temperature: float = 1.0,
        thresholds: np.ndarray | None = None,
        token_counts: np.ndarray | None = None,
        int8: bool = False,
    ) -> None:
        self.members = list(members)
        if not self.readers:
            raise UserError("a committee needs at least one encoder.")
        first = self.readers[0]
        self.label_names = self.members[0].label_names
        self.member_names = [member.config.name for member in self.members]
        self.tokenizer, self.max_tokens = first.tokenizer, first.config.max_tokens
        self.temperature, self.thresholds, self.token_counts = temperature, thresholds, token_counts
        self.rare = None if token_counts is None else token_counts < RARE
        if token_counts is not None and self.rare is not None:
            self.rare[self.tokenizer.special_ids] = False
            self.rare[self.tokenizer.unk_id] = True
            letters = self.tokenizer.letters
            met = int(token_counts[letters > 0].sum())
            self.piece_length = float(token_counts @ letters) / met if met else None
        self.int8 = int8
        self._engines: list[tuple[Engine, list[int]]] = []
        for number, member in enumerate(self.members):
            if member.label_names != self.label_names:
                raise UserError(
                    f"member {number + 1} of the committee has the labels {', '.join(member.label_names)};"
                    f" the first has {', '.join(self.label_names)}; all must have the same."
                )

    @property
    def readers(self) -> list[Classifier]:
        """The members that read tokens."""
        return [member for member in self.members if isinstance(member, Classifier)]

    def member_logits(self, texts: Sequence[str]) -> np.ndarray:
        """The logits of each member, `float32 [members, texts, labels]`."""
        if not self._engines:
            self._engines = self._new_engines(mapped=False)
        out = np.zeros((len(self.members), len(texts), len(self.label_names)), np.float32)
        for engine, numbers in self._engines:
            out[numbers] = engine.member_logits(texts)
        for number, member in enumerate(self.members):
            if isinstance(member, TfidfMember):
                out[number] = member.model.logits(texts)
        return out

    def _new_engines(self, mapped: bool) -> list[tuple[Engine, list[int]]]:
        """For each vocabulary an engine, with the numbers of its members; `mapped` as `committee_graph`."""
        from tinylm.model.graph import committee_graph

        together: dict[str, list[tuple[int, Classifier]]] = {}
        for number, member in enumerate(self.members):
            if isinstance(member, Classifier):
                together.setdefault(member.tokenizer.fingerprint, []).append((number, member))
        engines = []
        for group in together.values():
            numbers, members = [number for number, _ in group], [member for _, member in group]
            tokenizer = members[0].tokenizer
            graph = committee_graph(
                [(member.config, member.weights) for member in members],
                len(self.label_names),
                tokenizer.sep_id,
                self.int8,
                mapped,
            )
            longest = max(member.config.max_tokens for member in members)
            model = graph.structure.SerializeToString()
            engines.append((Engine(model, tokenizer, longest, graph.arrays, graph.folder), numbers))
        return engines

    def __getstate__(self) -> dict[str, Any]:
        # Engines cannot be pickled; they are made again.
        return self.__dict__ | {"_engines": []}

    def save(self, folder: Path, int8: bool = False) -> None:
        """Write every member to a folder of its own under the existing `folder`; `int8` as `write_model`."""
        folder = Path(folder)
        names = [f"member-{number}" for number in range(1, len(self.members) + 1)]
        for name, member in zip(names, self.members, strict=True):
            member.save(folder / name, int8)
        facts = {
            "members": names,
            "temperature": self.temperature,
            "multi_label": self.multi_label,
            "thresholds": None if self.thresholds is None else self.thresholds.tolist(),
        }
        (folder / MEMBERS).write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
        if self.token_counts is not None:
            write_token_counts(folder, self.token_counts)


def load_committee(folder: Path) -> Committee:
    """Read a committee, or a single classifier as a committee of one.

    Raises:
        UserError: neither is there, or a file is damaged.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder; give the folder of a classifier or a committee.")
    path = folder / MEMBERS
    if not path.is_file():
        return _ready(Committee([load_member(folder)]), folder)
    facts = read_json(path)
    try:
        folders = [_inside(folder, name) for name in facts["members"]]
        temperature = float(facts.get("temperature", 1))
        thresholds = np.array(facts["thresholds"], np.float64) if facts.get("multi_label") else None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is damaged ({error}); save the committee again.") from error
    if not 0 < temperature < float("inf"):
        raise UserError(f"{path} has the temperature {temperature}; expected a positive number.")
    members = [load_member(member) for member in folders]
    if thresholds is not None and members and thresholds.shape != (len(members[0].label_names),):
        raise UserError(
            f"{path} has thresholds of shape {thresholds.shape} for {len(members[0].label_names)} labels."
        )
    sizes = [len(member.tokenizer) for member in members if isinstance(member, Classifier)]
    counts = read_token_counts(folder, sizes[0]) if sizes else None
    committee = Committee(members, temperature=temperature, thresholds=thresholds, token_counts=counts)
    return _ready(committee, folder)


def _inside(folder: Path, name: str) -> Path:
    """The folder of a member, which is nowhere but in that of the committee."""
    if not name or Path(name).name != name or name == "..":
        raise ValueError(f"{name!r} is no name of a folder")
    return folder / name


def load_member(folder: Path) -> Classifier | TfidfMember:
    """Read one member, whatever its kind.

    Raises:
        UserError: no classifier there, or a damaged one.
    """
    stored = read_classifier(folder)
    if isinstance(stored.config, TfidfConfig):
        return TfidfMember.of(stored, folder)
    return Classifier(stored, load_tokenizer(folder))


def _ready(committee: Committee, folder: Path) -> Committee:
    """The committee with what its fit recorded and with its engines, which map large tables from their files.

    The engines are made now and not at the first prediction: by then another model may be in the folder.
    """
    try:
        facts = read_record(folder).get("facts", {})
        committee.text_columns, committee.label_type = (
            facts.get("text_columns"),
            facts.get("label_type", "str"),
        )
        check_labels(committee)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{folder / RECORD} is damaged ({error!r}); save the committee again.") from error
    committee._engines = committee._new_engines(mapped=True)
    return committee
