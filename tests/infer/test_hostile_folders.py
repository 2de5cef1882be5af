"""Model folders that mean harm: nothing is run, no path leaves the folder, no claim of a size is believed."""

from __future__ import annotations

import json
import shutil
import struct
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from helpers.command import refused, tinylm
from helpers.serving import save_counted
from helpers.toys import LABELS, make_classifier
from tinylm.errors import UserError
from tinylm.export.onnx import export_onnx
from tinylm.export.runtime import load_predictor
from tinylm.infer.committee import Committee
from tinylm.infer.tfidf import TfidfMember
from tinylm.model.huggingface import load_masked_language_model
from tinylm.model.tfidf import TfidfModel
from tinylm.system.files import verify, write_record


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`committee` with an encoder and a TF-IDF member, and its `onnx`."""
    folder = tmp_path_factory.mktemp("models")
    ones = np.ones((64, 3), np.float32)
    tfidf = TfidfModel(ones[:, 0], ones.astype(np.int8), ones[:, :1], ones[0])
    save_counted(Committee([make_classifier(1), TfidfMember(tfidf, LABELS)]), folder / "committee")
    write_record(folder / "committee", "committee", facts={"label_type": "str"})
    (folder / "onnx").mkdir()
    export_onnx(folder / "committee", folder / "onnx")
    return folder


@pytest.fixture
def folder(models: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    shutil.copytree(models, tmp_path / "models")
    return tmp_path / "models"


def said(folder: Path) -> str:
    """The sentence that refuses a folder, from the library and from the command line."""
    with pytest.raises(UserError) as error:
        load_predictor(folder)
    sentence = str(error.value)
    assert refused(tinylm("predict", folder, "one")).split()[:4] == sentence.split()[:4]
    return sentence


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


# --- weights ---


def write_safetensors(path: Path, entries: dict[str, Any], data: bytes, length: int | None = None) -> None:
    header = json.dumps(entries).encode()
    path.write_bytes(struct.pack("<Q", len(header) if length is None else length) + header + data)


def entry(begin: int, end: int, shape: list[int], kind: str = "F16") -> dict[str, Any]:
    return {"dtype": kind, "shape": shape, "data_offsets": [begin, end]}


@pytest.mark.parametrize(
    "entries",
    [
        {f"w{i}": entry(0, 4096, [2048]) for i in range(500)},  # each would be read into memory
        {"w": entry(0, 1 << 40, [1 << 39])},
        {"w": entry(-4096, 0, [2048])},
        {"w": entry(4096, 0, [2048])},
        {"w": entry(0, 4096, [1 << 62, 1 << 62])},
        {"w": entry(0, 4096, [-1])},
        {"w": entry(0, 4096, [2048], "pickle")},
        {"w": "no tensor"},
    ],
)
def test_headers_that_lie(folder: Path, entries: dict[str, Any]) -> None:
    write_safetensors(folder / "committee/member-1/model.safetensors", entries, bytes(4096))
    assert "model.safetensors is damaged or cut short" in said(folder / "committee")


@pytest.mark.parametrize("length", [0, 7, 1 << 20, 1 << 40, (1 << 64) - 1])
def test_a_length_of_the_header_that_lies(folder: Path, length: int) -> None:
    path = folder / "committee/member-1/model.safetensors"
    write_safetensors(path, {"w": entry(0, 4096, [2048])}, bytes(4096), length)
    assert "model.safetensors is damaged or cut short" in said(folder / "committee")


def test_integers_for_weights(folder: Path) -> None:
    path = folder / "committee/member-1/model.safetensors"
    length = int.from_bytes(path.read_bytes()[:8], "little")
    header, data = json.loads(path.read_bytes()[8 : 8 + length]), path.read_bytes()[8 + length :]
    name = "bert.embeddings.LayerNorm.weight"
    (begin, end), shape = header[name]["data_offsets"], header[name]["shape"]
    assert end - begin == 4 * shape[0]
    header[name] = entry(begin, end, [shape[0] // 2], "I64")
    header["classifier.bias"] |= {"dtype": "F32"}
    write_safetensors(path, header, data)
    assert "has the shape" in said(folder / "committee")
    header[name] = entry(begin, begin + 8 * (shape[0] // 2), [shape[0]], "I64")
    # The same shape needs twice the bytes: make room behind the others.
    size = max(other["data_offsets"][1] for key, other in header.items() if key != "__metadata__")
    header["filling"] = entry(begin, end, [shape[0]], "F32")
    header[name] = entry(size, size + 8 * shape[0], [shape[0]], "I64")
    write_safetensors(path, header, data + bytes(8 * shape[0]))
    assert f"'{name}' is stored as int64" in said(folder / "committee")


# --- configurations ---


@pytest.mark.parametrize(
    "claimed", [{"layers": 10**9}, {"heads": 10**9}, {"convolution": {"layers": 10**9, "channels": 1}}]
)
def test_a_size_that_nothing_has(folder: Path, claimed: dict[str, Any]) -> None:
    path = folder / "committee/member-1/config.json"
    edit(path, tinylm=json.loads(path.read_text())["tinylm"] | claimed)
    assert "less than or equal to 1000" in said(folder / "committee")


def test_a_pretrained_model_is_not_made_before_its_weights_fit(tmp_path: Path) -> None:
    from tinylm.model.config import ModelConfig
    from tinylm.model.heads import MaskedLanguageModel
    from tinylm.model.huggingface import save_model

    save_model(MaskedLanguageModel(ModelConfig(layers=1, heads=1, vocab_size=20)), tmp_path)
    path = tmp_path / "config.json"
    edit(path, tinylm=json.loads(path.read_text())["tinylm"] | {"heads": 1000, "layers": 1000})
    with pytest.raises(UserError, match="has the shape"):  # a model of 49 terabytes
        load_masked_language_model(tmp_path)


@pytest.mark.parametrize("labels", [["red"], {"a": "red"}, {"0": 3, "1": None, "2": []}, 7])
def test_labels_that_are_none(folder: Path, labels: Any) -> None:
    edit(folder / "committee/member-1/config.json", id2label=labels)
    assert "config.json" in said(folder / "committee")


def test_a_configuration_nested_without_end(folder: Path) -> None:
    (folder / "committee/member-1/config.json").write_text("[" * 100_000)
    assert "is not valid JSON" in said(folder / "committee")


@pytest.mark.parametrize(
    "record", [[], {"facts": []}, {"facts": {"label_type": "eval"}}, {"facts": {"text_columns": 3}}]
)
def test_a_record_of_something_else(folder: Path, record: Any) -> None:
    (folder / "committee/tinylm.json").write_text(json.dumps(record))
    assert "tinylm.json is damaged" in said(folder / "committee")


def test_verify_refuses_sources_that_are_no_names(folder: Path) -> None:
    edit(folder / "committee/tinylm.json", sources=[{}])
    with pytest.raises(UserError, match="cannot be verified"):
        verify(folder / "committee")


# --- paths ---


@pytest.mark.parametrize("name", ["../elsewhere", "..", ".", "", "member-1/../member-1", "{absolute}", 3])
def test_members_are_in_the_folder(folder: Path, name: Any) -> None:
    shutil.copytree(folder / "committee/member-1", folder / "elsewhere")
    if name == "{absolute}":
        name = str(folder / "elsewhere")
    edit(folder / "committee/committee.json", members=[name])
    assert "committee.json is damaged" in said(folder / "committee")


def test_a_graph_reads_no_other_files(folder: Path) -> None:
    graph = onnx.load(folder / "onnx/model.onnx")
    weight = max(graph.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    (folder / "elsewhere").write_bytes(weight.raw_data)
    size = len(weight.raw_data)
    weight.ClearField("raw_data")
    weight.data_location = onnx.TensorProto.EXTERNAL
    for key, value in {"location": "../elsewhere", "offset": "0", "length": str(size)}.items():
        weight.external_data.add(key=key, value=value)
    (folder / "onnx/model.onnx").write_bytes(graph.SerializeToString())
    assert "model.onnx is missing or damaged" in said(folder / "onnx")


@pytest.mark.parametrize("target", ["/dev/zero", "nowhere", "config.json", "."])
@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_links_lead_to_no_harm(folder: Path, name: str, target: str) -> None:
    path = folder / "committee/member-1" / name
    path.unlink()
    path.symlink_to(target)
    assert str(folder) in said(folder / "committee")


# --- exports ---


@pytest.mark.parametrize("name", ["model.onnx", "tfidf-2.npz"])
def test_devices_for_files_of_an_export(folder: Path, name: str) -> None:
    (folder / "onnx" / name).unlink()
    (folder / "onnx" / name).symlink_to("/dev/zero")
    assert f"{name} is missing or damaged (it is no file)" in said(folder / "onnx")


@pytest.mark.parametrize(
    "changes",
    [
        {"label_names": ["red"]},
        {"label_names": []},
        {"label_names": [["red"], 1, None]},
        {"members": []},
        {"temperature": 0},
        {"temperature": "warm"},
        {"max_tokens": -5},
        {"max_tokens": "long"},
        {"multi_label": True, "thresholds": [0.5]},
        {"hardly_seen": [10**9]},
        {"piece_length": "long"},
        {"text_columns": "text"},
        {"tfidf_members": ["../../x"]},
        {"tfidf_members": [7, 8]},
    ],
)
def test_decisions_that_do_not_fit(folder: Path, changes: dict[str, Any]) -> None:
    edit(folder / "onnx/tinylm-onnx.json", **changes)
    assert "is missing or damaged" in said(folder / "onnx")


def test_arrays_that_are_compressed_or_objects(folder: Path) -> None:
    path = folder / "onnx/tfidf-2.npz"
    with np.load(path) as found:
        arrays = dict(found)
    np.savez_compressed(path, **arrays)
    assert "its arrays are compressed" in said(folder / "onnx")
    np.savez(path, **arrays | {"bias": np.array([print] * 3, object)})
    assert "allow_pickle=False" in said(folder / "onnx")
    np.savez(path, **arrays | {"scale": arrays["scale"][:5]})
    assert "scale is float32 (5, 1)" in said(folder / "onnx")
