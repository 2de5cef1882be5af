"""Exports against PyTorch, and an export alone in a fresh environment."""

from __future__ import annotations

import json
import subprocess
import venv
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors.numpy import save_file

import tinylm as package
from helpers.command import done, record_of, refused, tinylm, weights_of
from helpers.serving import SEVEN, TOKENIZER, UNKNOWN, exported, save_counted, toys
from helpers.toys import LABELS, TOKENIZERS, make_classifier, torch_logits
from tinylm.errors import UserError
from tinylm.export import onnx as export
from tinylm.export.onnx import export_onnx
from tinylm.export.runtime import OnnxClassifier, load_onnx, load_predictor
from tinylm.infer.committee import Committee, load_committee
from tinylm.model.weights import Weight
from tinylm.system.files import write_record

TEXTS = ["one two three", "", "four five six seven eight nine ten " * 9, "Two, two!", "eleven 🙂", "one " * 6]
SOURCE = Path(__file__).parents[2]
# What an export needs where it is used, in the versions that are tested.
RUNTIME = ("numpy", "onnxruntime", "tokenizers")


@pytest.fixture(scope="module")
def committee() -> Committee:
    return Committee(toys())


@pytest.fixture(scope="module")
def loaded(committee: Committee, tmp_path_factory: pytest.TempPathFactory) -> OnnxClassifier:
    return exported(committee, tmp_path_factory.mktemp("export"))


def test_logits_are_pytorchs(committee: Committee, loaded: OnnxClassifier) -> None:
    """Every kind of member, alone and summed, texts longer than some members read among them."""
    logits = np.stack([torch_logits(member, TEXTS) for member in committee.members])
    np.testing.assert_allclose(loaded.member_logits(TEXTS), logits, atol=1e-4)
    np.testing.assert_allclose(loaded.decision_function(TEXTS), logits.sum(0), atol=1e-4)
    np.testing.assert_allclose(loaded.predict_proba(TEXTS), committee.predict_proba(TEXTS), atol=1e-4)
    assert loaded.predict(TEXTS) == committee.predict(TEXTS)
    assert np.ptp(logits, axis=1).min() > 0.1  # the texts do differ, for every member and label
    assert loaded.decision_function([]).shape == (0, 3)
    assert list(loaded.classes_) == loaded.label_names == LABELS


def test_the_graph_alone_sums(committee: Committee, loaded: OnnxClassifier, tmp_path: Path) -> None:
    """As another program uses it: one run, padded, output `logits`."""
    rows = [TOKENIZER.encode([text], 32)[0] for text in TEXTS]
    longest = max(map(len, rows))
    ids = np.array([[*row, *[0] * (longest - len(row))] for row in rows], np.int64)
    mask = np.array([[1] * len(row) + [0] * (longest - len(row)) for row in rows], np.int64)
    (logits,) = loaded._engine._session.run(["logits"], {"input_ids": ids, "attention_mask": mask})
    np.testing.assert_allclose(logits, committee.decision_function(TEXTS), atol=1e-4)


@pytest.mark.parametrize("int8", [False, True])
def test_an_prediction_does_not_depend_on_its_batch(committee: Committee, tmp_path: Path, int8: bool) -> None:
    model = exported(Committee(committee.members[:2]), tmp_path, int8)
    alone = np.concatenate([model.decision_function([text]) for text in TEXTS])
    together = model.decision_function(TEXTS)
    same = np.isclose(together, alone, rtol=0, atol=1e-4).all(1)
    # In int8 the last bit of a product can decide how a number is rounded.
    assert same.mean() > (0.7 if int8 else 0.999)
    np.testing.assert_allclose(together, alone, rtol=0, atol=0.01 * np.abs(alone).max())


def test_int8_is_smaller_and_says_nearly_the_same(tmp_path: Path) -> None:
    members = [make_classifier(seed, layers=2, heads=2, init_std=0.1) for seed in (1, 2)]
    committee = Committee(members)
    model = exported(committee, tmp_path, int8=True)
    logits = np.stack([torch_logits(member, TEXTS) for member in members])
    assert 1e-5 < np.abs(model.member_logits(TEXTS) - logits).max() < 0.05 * np.abs(logits).max()
    int8_bytes = (tmp_path / "onnx" / "model.onnx").stat().st_size
    fp32_bytes = 4 * sum(member.parameters for member in members)
    assert int8_bytes < 0.35 * fp32_bytes


def test_texts_of_any_length_and_kind(committee: Committee, loaded: OnnxClassifier) -> None:
    texts = [" " * 5000 + "one", "x" * 300_000, "two " * 100_000, "\0\n\t", "é" * 50]
    np.testing.assert_allclose(loaded.decision_function(texts), committee.decision_function(texts), atol=1e-4)
    for wrong in ([3], ["one", None], ["\ud800"], "one"):
        with pytest.raises(UserError, match="expected"):
            loaded.decision_function(wrong)


def test_rare_tokens(loaded: OnnxClassifier) -> None:
    assert set(np.flatnonzero(loaded.rare)) == {SEVEN, UNKNOWN}
    text = "One seven 🙂 Seven"
    end, spans = loaded.read(text)
    assert (end, [text[a:b] for a, b in spans or []]) == (len(text), ["seven", "🙂", "Seven"])
    end, spans = loaded.read("one " * 40 + "seven")
    assert (end, spans) == (4 * 30 - 1, [])  # 32 tokens, of which [CLS] and [SEP]


def test_numbers_stay_numbers(tmp_path: Path) -> None:
    members, folder = toys(), tmp_path / "committee"
    for member in members:
        member.label_names = ["3", "10", "7"]
    save_counted(Committee(members), folder)
    write_record(folder, "committee", facts={"label_type": "int"})
    (tmp_path / "onnx").mkdir()
    export_onnx(folder, tmp_path / "onnx")
    path = tmp_path / "onnx" / "tinylm-onnx.json"
    raw = json.loads(path.read_text())
    assert raw["label_names"] == [3, 10, 7]
    for predictor in (load_onnx(tmp_path / "onnx"), load_predictor(folder), load_committee(folder)):
        found = predictor.predict(TEXTS)
        assert {type(label) for label in found} == {int}
        assert found == [[3, 10, 7][i] for i in predictor.decision_function(TEXTS).argmax(1)]
    del raw["piece_length"]
    path.write_text(json.dumps(raw | {"label_names": ["3", "10", "7"]}))  # an older export
    old = load_onnx(tmp_path / "onnx")
    assert set(old.predict(TEXTS)) <= {"3", "10", "7"}
    assert old.low_coverage(["one", "🙂"]).tolist() == [False, True]


def test_several_labels(committee: Committee, tmp_path: Path) -> None:
    save_counted(committee, tmp_path / "committee")
    path = tmp_path / "committee" / "committee.json"
    raw = json.loads(path.read_text())
    logits = committee.decision_function(TEXTS)
    sigmoid = 1 / (1 + np.exp(-logits.astype(float) / 2))
    thresholds = np.median(sigmoid, axis=0)  # so that half of the texts have each label
    path.write_text(
        json.dumps(raw | {"multi_label": True, "thresholds": thresholds.tolist(), "temperature": 2.0})
    )
    (tmp_path / "onnx").mkdir()
    export_onnx(tmp_path / "committee", tmp_path / "onnx")
    model = load_onnx(tmp_path / "onnx")
    np.testing.assert_allclose(model.predict_proba(TEXTS), sigmoid, atol=1e-5)
    expected = [
        [name for name, p, t in zip(LABELS, row, thresholds, strict=True) if p > t] for row in sigmoid
    ]
    assert model.predict(TEXTS) == expected
    assert len({len(labels) for labels in expected}) > 1


def test_members_must_share_their_vocabulary(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"member 2 has another vocabulary \(19 tokens\) than member 1 \(17"):
        exported(Committee([make_classifier(1), make_classifier(2, TOKENIZERS[1])]), tmp_path)


def test_an_export_that_computes_otherwise_is_not_kept(
    committee: Committee, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_counted(committee, tmp_path / "committee")
    write = export.committee_graph

    def disturbed(members: list[Any], *rest: Any) -> Any:
        config, weights = members[1]
        bias = Weight(weights["classifier.bias"].value + 0.002)
        return write([members[0], (config, {**weights, "classifier.bias": bias}), *members[2:]], *rest)

    monkeypatch.setattr(export, "committee_graph", disturbed)
    said = refused(tinylm("export --to onnx", tmp_path / "committee", "--out", tmp_path / "onnx"))
    assert "differ from PyTorch's by 0.002" in said
    assert not list(tmp_path.glob("onnx*"))


def test_damaged_counts_are_named(committee: Committee, tmp_path: Path) -> None:
    save_counted(committee, tmp_path / "committee")
    path = tmp_path / "committee" / "token_counts.safetensors"
    (tmp_path / "onnx").mkdir()
    for tensors, said in (
        ({"counts": np.ones(3, np.int64)}, "counts 3 tokens; the vocabulary has 17"),
        ({}, "damaged"),
    ):
        save_file(tensors, path)
        with pytest.raises(UserError, match=rf"token_counts\.safetensors .*{said}"):
            export_onnx(tmp_path / "committee", tmp_path / "onnx")


@pytest.mark.parametrize("name", ["model.onnx", "tokenizer.json", "tinylm-onnx.json"])
@pytest.mark.parametrize("content", [None, b"", b"{}", b"\xff"])
def test_a_damaged_export_is_named(
    committee: Committee, tmp_path: Path, name: str, content: bytes | None
) -> None:
    exported(Committee(committee.members[:1]), tmp_path)
    path = tmp_path / "onnx" / name
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(UserError, match=name):
        load_onnx(tmp_path / "onnx")


# --- the command ---


def test_the_command_tells_what_came_out(committee: Committee, tmp_path: Path) -> None:
    save_counted(committee, tmp_path / "committee")
    out = done("export --to onnx", tmp_path / "committee", "--out", tmp_path / "onnx").out
    check = SimpleNamespace(**record_of(tmp_path / "onnx")["check"])
    assert check.largest_difference < 1e-3 < check.largest_logit
    assert check.agreement == 1
    assert f"{check.megabytes:.1f} MB" in out
    assert "100.0% of the decisions agree" in out
    assert package.load_onnx(tmp_path / "onnx").predict(TEXTS) == committee.predict(TEXTS)
    again = refused(tinylm("export --to onnx", tmp_path / "committee", "--out", tmp_path / "onnx"))
    assert "exists already" in again


def test_huggingface_folders(committee: Committee, tmp_path: Path) -> None:
    members = committee.members[:2]
    save_counted(Committee(members), tmp_path / "committee")
    done("export --to huggingface", tmp_path / "committee", "--out", tmp_path / "plain")
    for number, member in enumerate(members, 1):
        folder = tmp_path / "plain" / f"member-{number}"
        model = transformers.AutoModelForSequenceClassification.from_pretrained(folder)
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        inputs = tokenizer(TEXTS, padding=True, truncation=True, return_tensors="pt")
        with torch.inference_mode():
            np.testing.assert_allclose(model(**inputs).logits, torch_logits(member, TEXTS), atol=1e-4)
    done("export --to huggingface", tmp_path / "committee" / "member-1", "--out", tmp_path / "one")
    assert (tmp_path / "one" / "config.json").is_file()
    record = record_of(tmp_path / "one")
    assert (record["kind"], record["settings"]["to"]) == ("huggingface", "huggingface")
    done(
        f"export --settings {tmp_path / 'one' / 'tinylm.json'} --out",
        tmp_path / "again",
        tmp_path / "committee" / "member-1",
    )
    assert weights_of(tmp_path / "again") == weights_of(tmp_path / "one")


@pytest.mark.parametrize("pooling", ["mean", "attended"])
def test_a_huggingface_folder_that_reads_the_mean_brings_its_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pooling: str
) -> None:
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    member = make_classifier(3, pooling=pooling)
    save_counted(Committee([member]), tmp_path / "committee")
    done("export --to huggingface", tmp_path / "committee", "--out", tmp_path / "plain")
    with pytest.raises(ValueError, match="trust_remote_code"):
        transformers.AutoModelForSequenceClassification.from_pretrained(
            tmp_path / "plain", trust_remote_code=False
        )
    model = transformers.AutoModelForSequenceClassification.from_pretrained(
        tmp_path / "plain", trust_remote_code=True
    )
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "plain", trust_remote_code=True)
    inputs = tokenizer(TEXTS, padding=True, truncation=True, return_tensors="pt")
    with torch.inference_mode():
        out = model(**inputs, labels=torch.zeros(len(TEXTS), dtype=torch.long))
        alone = model(**tokenizer(TEXTS[0], return_tensors="pt")).logits[0]
    expected = torch_logits(member, TEXTS)
    np.testing.assert_allclose(out.logits, expected, atol=1e-4)
    np.testing.assert_allclose(alone, expected[0], atol=1e-4)
    assert out.loss.item() == pytest.approx(-torch.tensor(expected).log_softmax(1)[:, 0].mean().item(), 1e-3)
    assert model.config.id2label == dict(enumerate(member.label_names))


def test_mistakes_end_with_a_sentence(committee: Committee, tmp_path: Path) -> None:
    save_counted(committee, tmp_path / "committee")
    where = (tmp_path / "committee", "--out", tmp_path / "out")
    assert "member 3 (BERT-2, 1 head, 2 convolutions 2 x 4x3) has convolutions" in refused(
        tinylm("export --to huggingface", *where)
    )
    assert "--to was 'pickle'; expected onnx or huggingface" in refused(tinylm("export --to pickle", *where))
    assert "--int8 is for --to onnx" in refused(tinylm("export --to huggingface --int8", *where))
    assert "is not a folder" in refused(tinylm("export nowhere --out", tmp_path / "out"))
    assert not (tmp_path / "out").exists()


# --- alone ---


@pytest.mark.network
@pytest.mark.slow
def test_without_torch(committee: Committee, loaded: OnnxClassifier, tmp_path: Path) -> None:
    """A fresh environment with numpy, onnxruntime and tokenizers, and nothing else of ours."""
    exported(committee, tmp_path)
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / "bin" / "python"
    install = [python, "-m", "pip", "install", "--quiet", "-c", SOURCE / "constraints.txt", *RUNTIME]
    finished = subprocess.run(install, capture_output=True, text=True)
    if finished.returncode:
        pytest.skip(f"pip reaches no package index: {finished.stderr.strip().splitlines()[-1]}")
    program = """
import importlib.util, json, sys, tinylm
assert importlib.util.find_spec("torch") is None
model = tinylm.load_onnx(sys.argv[1])
texts = json.load(sys.stdin)
print(json.dumps([model.predict(texts), model.decision_function(texts).tolist(), sorted(sys.modules)]))
"""
    finished = subprocess.run(
        [python, "-c", program, tmp_path / "onnx"],
        input=json.dumps(TEXTS),
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(Path(package.__file__).parents[1])},
    )
    assert finished.returncode == 0, finished.stderr
    labels, logits, modules = json.loads(finished.stdout)
    assert labels == committee.predict(TEXTS)
    np.testing.assert_allclose(logits, committee.decision_function(TEXTS), atol=1e-4)
    assert "tinylm.export.runtime" in modules
    rooms = {module.split(".")[1] for module in modules if module.startswith("tinylm.")}
    assert rooms == {"errors", "system", "text", "model", "infer", "export"}
