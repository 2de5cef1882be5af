"""Committees for other programs: one ONNX file, or plain HuggingFace folders."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from safetensors import SafetensorError
from safetensors.numpy import load_file

from tinylm.committee import MEMBERS, Committee, load_committee
from tinylm.errors import UserError
from tinylm.model.onnx_graph import committee_graph
from tinylm.onnx_classifier import DECISION, GRAPH, load_onnx
from tinylm.text.corpus import read_vital
from tinylm.text.tokenizer import Tokenizer

TOKEN_COUNTS = "token_counts.safetensors"
HARDLY_SEEN = 5  # tokens that pre-training met less often
CHECKED = 200  # texts
TOLERANCE = 1e-3  # of an fp32 logit


@dataclass(frozen=True)
class OnnxExport:
    """What an export is like, beside PyTorch on the same texts.

    Attributes:
        megabytes: size of `model.onnx`.
        checked_on: the texts both answered, in words.
        largest_difference: of any logit of any member.
        largest_logit: the largest absolute logit of any member, to compare it with.
        agreement: share of texts with the same decision.
    """

    megabytes: float
    checked_on: str
    largest_difference: float
    largest_logit: float
    agreement: float


def export_onnx(model: Path, folder: Path, int8: bool = False) -> OnnxExport:
    """Write a committee, or a single classifier, as one ONNX file, and check it against PyTorch.

    Args:
        model: folder of the committee.
        folder: where to, an existing folder.
        int8: store the weights in 8 bits, a quarter of the size.

    Raises:
        UserError: no committee there, members with different vocabularies, or logits that
            differ from PyTorch's.
    """
    model, folder = Path(model), Path(folder)
    committee = load_committee(model)
    first = committee.members[0]
    for number, member in enumerate(committee.members[1:], 2):
        if member.tokenizer.vocab != first.tokenizer.vocab:
            raise UserError(
                f"{model}: member {number} has another vocabulary ({len(member.tokenizer):,} tokens) than"
                f" member 1 ({len(first.tokenizer):,} tokens); members in one ONNX file must share it."
            )
    max_tokens = max(member.model.config.max_tokens for member in committee.members)
    graph = committee_graph([member.model for member in committee.members], first.tokenizer.sep_id, int8)
    onnx.save(graph, folder / GRAPH)
    first.tokenizer.save_backend(folder)
    decision = {
        "label_names": committee.label_names,
        "members": [member.model.config.name for member in committee.members],
        "max_tokens": max_tokens,
        **_decision_rule(model),
        "hardly_seen": _hardly_seen(model, first.tokenizer),
    }
    (folder / DECISION).write_text(json.dumps(decision, ensure_ascii=False) + "\n", encoding="utf-8")
    export = _check(committee, folder)
    if not int8 and export.largest_difference > TOLERANCE:
        raise UserError(
            f"{model}: its ONNX form gives logits that differ from PyTorch's by"
            f" {export.largest_difference:.2g}, more than {TOLERANCE:g}; it was not kept."
        )
    return export


def export_huggingface(model: Path, folder: Path) -> list[Path]:
    """Write each member as a folder that `transformers` loads, a single one into `folder` itself.

    Returns:
        The folders.

    Raises:
        UserError: no committee there, or a member that HuggingFace's BERT cannot express.
    """
    committee = load_committee(model)
    for number, member in enumerate(committee.members, 1):
        if member.model.config.convolution is not None:
            raise UserError(
                f"{model}: member {number} ({member.model.config.name}) has convolutions, which"
                " HuggingFace's BERT has not; export it with --to onnx."
            )
    if len(committee.members) == 1:
        folders = [folder]
    else:
        folders = [folder / f"member-{number}" for number in range(1, len(committee.members) + 1)]
    for member, place in zip(committee.members, folders, strict=True):
        member.save(place)
    return folders


def _decision_rule(model: Path) -> dict[str, Any]:
    """Whether a text may have several labels, and above which probability it has each."""
    path = model / MEMBERS
    raw = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return {"multi_label": raw.get("multi_label", False), "thresholds": raw.get("thresholds") or []}


def _hardly_seen(model: Path, tokenizer: Tokenizer) -> list[int] | None:
    """Ids of the tokens that pre-training hardly met; None where their counts are not kept.

    [UNK] is one of them however often it was met: it stands for ever other words.
    """
    path = model / TOKEN_COUNTS
    if not path.is_file():
        return None
    try:
        counts = load_file(path)["counts"]
    except (SafetensorError, KeyError) as error:
        raise UserError(f"{path} is damaged ({error}); fit the model again, or remove the file.") from error
    if counts.shape != (len(tokenizer),):
        raise UserError(f"{path} counts {counts.size:,} tokens; the vocabulary has {len(tokenizer):,}.")
    seldom = np.setdiff1d(np.flatnonzero(counts < HARDLY_SEEN), tokenizer.special_ids)
    return [tokenizer.unk_id, *seldom.tolist()]


def _check(committee: Committee, folder: Path) -> OnnxExport:
    """Both forms' answers to the same texts."""
    exported = load_onnx(folder)
    texts, checked_on = _texts_to_check(committee.members[0].tokenizer)
    theirs = np.stack([member.logits(texts) for member in committee.members])
    ours = exported.member_logits(texts)
    decisions = (exported.decide(exported.probabilities(fields.sum(0))) for fields in (ours, theirs))
    return OnnxExport(
        megabytes=(folder / GRAPH).stat().st_size / 1e6,
        checked_on=checked_on,
        largest_difference=float(np.abs(ours - theirs).max()),
        largest_logit=float(np.abs(theirs).max()),
        agreement=float(np.mean([one == other for one, other in zip(*decisions, strict=True)])),
    )


def _texts_to_check(tokenizer: Tokenizer) -> tuple[list[str], str]:
    """Openings of articles where they are installed, otherwise tokens in random order."""
    try:
        articles = read_vital().values()
    except UserError:
        chance = np.random.default_rng(0)
        lengths = chance.integers(1, 100, CHECKED)
        texts = [" ".join(chance.choice(tokenizer.vocab, length)) for length in lengths]
        return texts, f"{CHECKED} texts of random tokens (the articles of tinylm[vital] are not installed)"
    return [article["extract"] for article in articles][:CHECKED], f"{CHECKED} openings of articles"
