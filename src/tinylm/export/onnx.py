"""Committees for other programs: one ONNX file, or plain HuggingFace folders."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

from tinylm.errors import UserError
from tinylm.export.runtime import DECISION, GRAPH, TFIDF, load_onnx
from tinylm.infer.classifier import Classifier
from tinylm.infer.committee import Committee, load_committee
from tinylm.infer.predictor import decide
from tinylm.infer.tfidf import TfidfMember
from tinylm.model.config import ModelConfig
from tinylm.model.graph import committee_graph
from tinylm.model.huggingface import module_of
from tinylm.model.logits import logits_of
from tinylm.model.storage import CONFIG, StoredClassifier
from tinylm.text.corpus import read_vital
from tinylm.text.tokenizer import Tokenizer

CHECKED = 200  # texts
TOLERANCE = 1e-3  # of an fp32 logit
# The code of a model that is no plain BERT, and what `transformers` calls its classes.
MODEL_CODE = "modeling_tinylm.py"
MODEL_CLASSES = {
    "AutoConfig": "TinylmConfig",
    "AutoModelForSequenceClassification": "TinylmForSequenceClassification",
}


@dataclass(frozen=True)
class OnnxExport:
    """What an export is like, beside PyTorch on the same texts.

    Attributes:
        megabytes: size of `model.onnx`, with a TF-IDF member's file.
        checked_on: the texts, in words.
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

    A TF-IDF member, which reads strings, has a file of its own beside the graph.

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
    first, readers = committee.readers[0], committee.readers
    for number, member in enumerate(committee.members, 1):
        if isinstance(member, TfidfMember):
            member.model.save(folder / TFIDF.format(number))
        elif member.tokenizer.vocab != first.tokenizer.vocab:
            raise UserError(
                f"{model}: member {number} has another vocabulary ({len(member.tokenizer):,} tokens) than"
                f" member 1 ({len(first.tokenizer):,} tokens); members in one ONNX file must share it."
            )
    max_tokens = max(member.config.max_tokens for member in readers)
    members = [(member.config, member.weights) for member in readers]
    graph = committee_graph(members, len(committee.label_names), first.tokenizer.sep_id, int8)
    onnx.save(graph.complete(), folder / GRAPH)
    first.tokenizer.save_backend(folder)
    decision = {
        "label_names": committee.labels,
        "members": committee.member_names,
        "tfidf_members": [
            number for number, member in enumerate(committee.members, 1) if isinstance(member, TfidfMember)
        ],
        "max_tokens": max_tokens,
        "temperature": committee.temperature,
        "multi_label": committee.multi_label,
        "thresholds": [] if committee.thresholds is None else committee.thresholds.tolist(),
        "hardly_seen": None if committee.rare is None else np.flatnonzero(committee.rare).tolist(),
        "piece_length": committee.piece_length,
        "text_columns": committee.text_columns,
    }
    (folder / DECISION).write_text(json.dumps(decision, ensure_ascii=False) + "\n", encoding="utf-8")
    export = _check(committee, folder)
    if not int8 and export.largest_difference > TOLERANCE:
        raise UserError(
            f"{model}: its ONNX form gives logits that differ from PyTorch's by"
            f" {export.largest_difference:.2g}, more than {TOLERANCE:g}; it was not kept."
        )
    return export


def export_huggingface(model: Path, folder: Path) -> tuple[list[Path], list[str]]:
    """Write each encoder as a folder that `transformers` loads, a single one into `folder` itself.

    A model that reads the mean over all tokens is no plain BERT: its folder holds its code too, which
    `transformers` runs with `trust_remote_code=True`.

    A TF-IDF member is left out: HuggingFace has no form for it.

    Returns:
        The folders, and the names of the members that are left out.

    Raises:
        UserError: no committee there, or a member that HuggingFace's BERT cannot express.
    """
    committee = load_committee(model)
    encoders = [member for member in committee.readers if member.config.is_encoder]
    for number, member in enumerate(encoders, 1):
        config = member.config
        if isinstance(config, ModelConfig) and config.convolution is not None:
            raise UserError(
                f"{model}: member {number} ({config.name}) has convolutions, which"
                " HuggingFace's BERT has not; export it as ONNX."
            )
    if len(encoders) == 1:
        folders = [folder]
    else:
        folders = [folder / f"member-{number}" for number in range(1, len(encoders) + 1)]
    for member, place in zip(encoders, folders, strict=True):
        member.save(place)
        if isinstance(member.config, ModelConfig) and not member.config.is_bert:
            code = Path(__file__).with_name(MODEL_CODE)
            shutil.copyfile(code, place / MODEL_CODE)
            config = json.loads((place / CONFIG).read_text(encoding="utf-8"))
            config |= {"architectures": [MODEL_CLASSES["AutoModelForSequenceClassification"]]}
            config["auto_map"] = {auto: f"{code.stem}.{name}" for auto, name in MODEL_CLASSES.items()}
            (place / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    return folders, [member.config.name for member in committee.members if not member.config.is_encoder]


def _check(committee: Committee, folder: Path) -> OnnxExport:
    """The predictions of both forms on the same texts."""
    exported = load_onnx(folder)
    texts, checked_on = _texts_to_check(committee.tokenizer)
    theirs = committee.member_logits(texts)
    for number, member in enumerate(committee.members):
        if isinstance(member, Classifier) and member.config.is_encoder:
            theirs[number] = _torch_logits(member, texts)
    ours = exported.member_logits(texts)
    one, other = (
        decide(exported.probabilities_of(logits.sum(0)), exported.thresholds) for logits in (ours, theirs)
    )
    return OnnxExport(
        megabytes=sum(file.stat().st_size for file in folder.iterdir() if file.suffix in (".onnx", ".npz"))
        / 1e6,
        checked_on=checked_on,
        largest_difference=float(np.abs(ours - theirs).max()),
        largest_logit=float(np.abs(theirs).max()),
        agreement=float((one == other).all(1).mean()),
    )


def _torch_logits(member: Classifier, texts: Sequence[str]) -> np.ndarray:
    module = module_of(StoredClassifier(member.config, member.weights, member.label_names))
    return logits_of(module, member.tokenizer.encode(texts, member.config.max_tokens))


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
