"""Feed damaged and hostile files and requests to everything that reads them.

    python -m tests.fuzz [--minutes N] [--seed N] [TARGET ...]

Each target reads what hypothesis made of good files: values of JSON and YAML replaced, bytes changed, cut out
or doubled, files exchanged for links and folders. What is read must be right or refused with a
`UserError` (HTTP: a status of 4xx), soon, and within memory that the size of the file bounds.
"""

from __future__ import annotations

import argparse
import asyncio
import bz2
import functools
import gzip
import io
import itertools
import json
import lzma
import random
import re
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hypothesis
import pyarrow
import pyarrow.feather
import pyarrow.parquet
from hypothesis import strategies as st

from tinylm.errors import UserError

sys.path.insert(0, str(Path(__file__).parent))

SECONDS = 60  # for one example, on a machine that does much else
MEMORY = 128 << 20  # bytes beside twice the file
MOST_MEMORY = 4 << 30  # what the system lets an example have, so that a bomb harms nobody else
ROWS = [{"text": f'the barn {i}, the "sea"', "label": "farm" if i % 2 else "sea", "n": i} for i in range(6)]


class HangError(AssertionError):
    """An example took too long."""


@contextmanager
def bounded(size: int) -> Iterator[None]:
    """Fail where the block takes more than a minute, or much more memory than twice `size` bytes."""

    def hang(number: int, frame: object) -> None:
        raise HangError(f"no end after {SECONDS} s")

    before, handler = _reset_peak(), signal.signal(signal.SIGALRM, hang)
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (_memory("VmSize") + MOST_MEMORY, hard))
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
        signal.signal(signal.SIGALRM, handler)
    used = _memory("VmHWM") - before
    assert used <= MEMORY + 2 * size, f"{used >> 20} MB for a file of {size:,} bytes"


def _reset_peak() -> int:
    """Let the peak of this process's memory begin anew; returns its memory now, in bytes."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:  # not Linux: the peak is that of the process, and only growth beyond it is seen
        return _memory("VmHWM")
    return _memory("VmRSS")


def _memory(name: str) -> int:
    try:
        found = re.search(rf"^{name}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    except OSError:
        return 0
    return 1024 * int(found[1]) if found else 0


# --- damage ---

NUMBERS = st.sampled_from(
    [
        -1,
        0,
        1,
        2,
        3,
        7,
        63,
        64,
        255,
        10**4,
        10**6,
        2**31 - 1,
        2**31,
        2**32,
        10**10,
        2**62,
        2**63,
        2**64,
        -(2**63),
    ]
)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | NUMBERS
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["", "..", "../..", "/etc/passwd", "text", "\ud800", "bert", "int", "1e999"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The ways to all values within a JSON value, itself included."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(way for key, entry in inner for way in places(entry, (*path, key)))]


def replaced(value: Any, way: tuple[Any, ...], new: Any, remove: bool) -> Any:
    """A JSON value with another value at the end of a way, or without it."""
    if not way:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    if len(way) == 1 and remove:
        del copy[way[0]]
    else:
        copy[way[0]] = replaced(copy[way[0]], way[1:], new, remove)
    return copy


@st.composite
def damaged_json(draw: st.DrawFn, text: bytes) -> bytes:
    """JSON with one to three other values, sometimes nested without end, or damaged as bytes."""
    if draw(st.integers(0, 5)) == 0:
        return draw(damaged_bytes(text) | st.sampled_from([b"[" * 50_000, b'{"a":' * 50_000, b"", b"\xff"]))
    value = json.loads(text)
    for _ in range(draw(st.integers(1, 3))):
        way = draw(st.sampled_from(places(value)))
        value = replaced(value, way, draw(VALUES), draw(st.booleans()))
    return json.dumps(value).encode()


@st.composite
def damaged_bytes(draw: st.DrawFn, data: bytes) -> bytes:
    """Bytes of which a few were changed, inserted, cut out or doubled."""
    for _ in range(draw(st.integers(1, 4))):
        place, end = sorted(draw(st.tuples(*[st.integers(0, len(data))] * 2)))
        match draw(st.sampled_from(["change", "insert", "cut", "double", "truncate"])):
            case "change":
                new = draw(st.binary(min_size=1, max_size=9))
                data = data[:place] + new + data[place + len(new) :]
            case "insert":
                data = data[:place] + draw(st.binary(max_size=40)) + data[place:]
            case "cut":
                data = data[:place] + data[end:]
            case "double":
                data = data[:end] + data[place:end] * draw(st.integers(1, 3)) + data[end:]
            case "truncate":
                data = data[:place]
    return data


@st.composite
def damaged_safetensors(draw: st.DrawFn, data: bytes) -> bytes:
    """A file of weights with another header: lengths, offsets, shapes and types that lie."""
    if draw(st.integers(0, 4)) == 0:
        return draw(damaged_bytes(data))
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:end])
    for _ in range(draw(st.integers(1, 3))):
        entry = header[draw(st.sampled_from(sorted(header)))]
        key = draw(st.sampled_from(["data_offsets", "shape", "dtype"]))
        entry[key] = draw(
            {
                "data_offsets": st.lists(NUMBERS | st.integers(0, len(data)), min_size=2, max_size=2)
                | VALUES,
                "shape": st.lists(NUMBERS, max_size=4) | VALUES,
                "dtype": st.sampled_from(["F64", "F16", "BF16", "I64", "I8", "U8", "F8_E4M3"]) | VALUES,
            }[key]
        )
    text = json.dumps(header).encode()
    length = draw(st.just(len(text)) | NUMBERS.filter(lambda number: 0 <= number < 2**64))
    return length.to_bytes(8, "little") + text + data[end:]


# --- what is read ---


@dataclass(frozen=True)
class Target:
    """Something that reads.

    Attributes:
        examples: of what it is to read.
        read: reads an example, which it may write into the empty folder first.
    """

    examples: st.SearchStrategy[Any]
    read: Callable[[Path, Any], object]


LINK, FOLDER = b"link to ", b"folder"  # what a file may be exchanged for


@functools.cache
def models() -> dict[str, dict[str, bytes]]:
    """The files of a committee's folder and of its export, by their names."""
    import numpy as np

    from helpers.serving import save_counted, toys
    from helpers.toys import LABELS
    from tinylm.export.onnx import export_onnx
    from tinylm.infer.committee import Committee
    from tinylm.infer.tfidf import TfidfMember
    from tinylm.model.tfidf import TfidfModel
    from tinylm.system.files import write_record

    chance = np.random.default_rng(0)
    idf, scale, bias = (chance.random(shape, np.float32) for shape in (64, (64, 1), 3))
    tfidf = TfidfMember(TfidfModel(idf, chance.integers(-9, 9, (64, 3), np.int8), scale, bias), LABELS)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        save_counted(Committee([*toys()[::2], tfidf]), folder / "committee")
        write_record(folder / "committee", "committee", facts={"text_columns": ["text"], "label_type": "str"})
        (folder / "onnx").mkdir()
        export_onnx(folder / "committee", folder / "onnx")
        write_record(folder / "onnx", "onnx")
        return {
            kind: {
                path.relative_to(folder / kind).as_posix(): path.read_bytes()
                for path in sorted((folder / kind).rglob("*"))
                if path.is_file()
            }
            for kind in ("committee", "onnx")
        }


def damaged_file(name: str, content: bytes) -> st.SearchStrategy[bytes]:
    """One file of a model's folder, damaged as befits its kind, or what it is exchanged for."""
    targets = ["/dev/zero", "..", name.rpartition("/")[2], "/etc/passwd", "nowhere"]
    exchanged = st.sampled_from([FOLDER, *(LINK + target.encode() for target in targets)])
    befitting = (
        damaged_json(content)
        if name.endswith(".json")
        else damaged_safetensors(content)
        if name.endswith(".safetensors")
        else damaged_bytes(content)
    )
    return st.one_of(*[befitting] * 9, exchanged)


def damaged_folder(kind: str) -> st.SearchStrategy[tuple[str, str, bytes]]:
    """Kind of folder, name of a file, and its new content."""
    files = models()[kind]
    return st.sampled_from(sorted(files)).flatmap(
        lambda name: st.tuples(st.just(kind), st.just(name), damaged_file(name, files[name]))
    )


def read_folder(folder: Path, example: tuple[str, str, bytes]) -> None:
    """Load a model and predict with it; compare it with its record."""
    from tinylm.export.runtime import load_predictor
    from tinylm.system.files import verify

    kind, damaged, new = example
    for name, content in models()[kind].items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name != damaged:
            path.write_bytes(content)
        elif new == FOLDER:
            path.mkdir()
        elif new.startswith(LINK):
            path.symlink_to(new.removeprefix(LINK).decode())
        else:
            path.write_bytes(new)
    with allowed():
        verify(folder)
    predictor = load_predictor(folder)
    texts = ["one two seven", "", "eleven " * 40]
    probabilities = predictor.predict_proba(texts)
    assert probabilities.shape == (3, len(predictor.label_names))
    assert len(predictor.predict(texts)) == 3
    predictor.read(texts[0])
    if predictor.rare is not None:
        predictor.low_coverage(texts)


@functools.cache
def tables() -> dict[str, bytes]:
    """A table in each form, by file name."""
    import openpyxl

    lines = [f'"{row["text"].replace(chr(34), chr(34) * 2)}",{row["label"]},{row["n"]}' for row in ROWS]
    found = {
        "a.csv": "\n".join(["text,label,n", *lines]).encode(),
        "a.tsv": "\n".join(["text\tlabel", *(f"{row['text']}\t{row['label']}" for row in ROWS)]).encode(
            "utf-16"
        ),
        "a.txt": "\n".join(f"__label__{row['label']} {row['text']} \xe9" for row in ROWS).encode("latin-1"),
        "a.jsonl": "\n".join(json.dumps(row) for row in ROWS).encode(),
        "rows.json": json.dumps(ROWS).encode(),
        "columns.json": json.dumps(
            {k: {str(i): row[k] for i, row in enumerate(ROWS)} for k in ROWS[0]}
        ).encode(),
        "split.json": json.dumps({"columns": ["text", "label"], "data": [["a", "b"], ["c", "d"]]}).encode(),
    }
    table = pyarrow.Table.from_pylist(ROWS)
    features = {"info": {"features": {"n": {"names": ["zero", "one"], "_type": "ClassLabel"}}}}
    table = table.replace_schema_metadata({b"huggingface": json.dumps(features).encode()})
    for name, write in (
        ("a.parquet", pyarrow.parquet.write_table),
        ("a.feather", functools.partial(pyarrow.feather.write_feather, compression="uncompressed")),
        ("b.feather", functools.partial(pyarrow.feather.write_feather, compression="zstd")),
    ):
        write(table, buffer := io.BytesIO())
        found[name] = buffer.getvalue()
    with pyarrow.ipc.new_stream(buffer := io.BytesIO(), table.schema) as stream:
        stream.write_table(table)
    found["a.arrow"] = buffer.getvalue()
    book = openpyxl.Workbook()
    for row in [list(ROWS[0]), *(list(row.values()) for row in ROWS)]:
        book.active.append(row)
    book.save(buffer := io.BytesIO())
    found["a.xlsx"] = buffer.getvalue()
    for ending, compress in ((".gz", gzip.compress), (".bz2", bz2.compress), (".xz", lzma.compress)):
        found["a.csv" + ending] = compress(found["a.csv"])
    found["a.jsonl.zst"] = bytes(pyarrow.compress(found["a.jsonl"], "zstd"))
    return found


@st.composite
def damaged_table(draw: st.DrawFn) -> tuple[str, bytes]:
    """The name of a table and its content, which is sometimes another's."""
    name = draw(st.sampled_from(sorted(tables())))
    content = (
        tables()[draw(st.sampled_from(sorted(tables())))] if draw(st.integers(0, 9)) == 0 else tables()[name]
    )
    if name.endswith(".json") and draw(st.booleans()):
        return name, draw(damaged_json(tables()[name]))
    if name == "a.jsonl" and draw(st.booleans()):
        row = json.dumps(ROWS[0]).encode()
        return name, b"\n".join(draw(st.lists(damaged_json(row) | st.just(row), min_size=1, max_size=4)))
    if name == "a.xlsx":
        return name, draw(damaged_zip(content))
    if name.endswith(".parquet") and draw(st.booleans()):
        return name, draw(parquet_of_anything())
    return name, draw(damaged_bytes(content))


@st.composite
def damaged_zip(draw: st.DrawFn, data: bytes) -> bytes:
    """A zip of which one part is damaged before it is compressed again."""
    import zipfile

    if draw(st.booleans()) or not zipfile.is_zipfile(io.BytesIO(data)):
        return draw(damaged_bytes(data))
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    name = draw(st.sampled_from(sorted(parts)))
    numbers = re.sub(rb"\d+", lambda _: str(draw(NUMBERS)).encode(), parts[name])
    parts[name] = draw(damaged_bytes(parts[name]) | st.just(numbers))
    with zipfile.ZipFile(buffer := io.BytesIO(), "w") as archive:
        for part, content in parts.items():
            archive.writestr(part, content)
    return buffer.getvalue()


@st.composite
def parquet_of_anything(draw: st.DrawFn) -> bytes:
    """A sound file whose cells and notes are not what a table of texts has."""
    import datetime

    types = {
        pyarrow.string(): ["a"],
        pyarrow.timestamp("us"): [2**62],
        pyarrow.timestamp("s", tz="nowhere"): [0],
        pyarrow.date32(): [2**30],
        pyarrow.decimal128(38, 38): [None],
        pyarrow.list_(pyarrow.int64()): [[1]],
        pyarrow.struct([("a", pyarrow.string())]): [{"a": "b"}],
        pyarrow.map_(pyarrow.string(), pyarrow.int64()): [[("a", 1)]],
        pyarrow.binary(): [b"\xff\x00"],
        pyarrow.duration("ns"): [2**61],
        pyarrow.time64("ns"): [datetime.time(1)],
    }
    kind = draw(st.sampled_from(sorted(types, key=str)))
    if pyarrow.types.is_date32(kind):
        values = pyarrow.array([2**30], pyarrow.int32()).view(kind)
    elif pyarrow.types.is_timestamp(kind) or pyarrow.types.is_duration(kind):
        values = pyarrow.array(types[kind], pyarrow.int64()).view(kind)
    else:
        values = pyarrow.array(types[kind], kind)
    table = pyarrow.table({"text": values, "label": pyarrow.array([draw(st.integers(-2, 3))])})
    features = {"info": {"features": {"label": {"names": ["zero", "one"]}}}}
    note = draw(damaged_json(json.dumps(features).encode()))
    pyarrow.parquet.write_table(table.replace_schema_metadata({b"huggingface": note}), buffer := io.BytesIO())
    return buffer.getvalue()


def read_table(folder: Path, example: tuple[str, bytes]) -> None:
    """Read all rows as texts and labels, as a task and a corpus do."""
    from tinylm.text.tables import is_missing, open_table, text_of

    (folder / example[0]).write_bytes(example[1])
    for row in open_table(folder / example[0], ["text"], ["label"]):
        text = text_of(row, ["text"])
        if isinstance(text, str):
            text.encode()
        is_missing(row.get("label"))


TEXT_OF_SPEC = (
    (Path(__file__).parents[1] / "src/tinylm/paper/specs/table3.yaml")
    .read_text(encoding="utf-8")[:1500]
    .encode()
)
SNIPPETS = [
    b"&a ",
    b"*a",
    b"<<: ",
    b"!!python/object/apply:os.system [ls]",
    b"!!int x",
    b"2020-99-99",
    b"? ",
    b"- [" * 400,
]
SETTINGS = (
    b"seed: 3\ntask: fewrel\nepochs: 2\ntext: [a, b]\nout: there\nlearning_rate: 1e-3\nlabels: [1, 2]\n"
)


@st.composite
def damaged_yaml(draw: st.DrawFn, text: bytes) -> bytes:
    """YAML with tags, aliases and other nuisances at random places."""
    text = draw(damaged_bytes(text) | st.just(text))
    for _ in range(draw(st.integers(0, 3))):
        place = draw(st.integers(0, len(text)))
        snippet = draw(st.sampled_from(SNIPPETS) | VALUES.map(lambda value: json.dumps(value).encode()))
        text = text[:place] + snippet + text[place:]
    return text


def read_spec(folder: Path, example: bytes) -> None:
    """Read a table of experiments."""
    from tinylm.paper.spec import load_table

    (folder / "mine.yaml").write_bytes(example)
    load_table(str(folder / "mine.yaml"))


def read_settings(folder: Path, example: bytes) -> None:
    """Start a command with settings from a file; it must not get further than its model, which is missing."""
    from helpers.command import tinylm

    (folder / "settings.yaml").write_bytes(example)
    outcome = tinylm("finetune", folder / "missing", "--settings", folder / "settings.yaml")
    assert outcome.code == 2, outcome
    assert "Traceback" not in outcome.err, outcome


# --- HTTP ---

REQUEST = json.dumps({"texts": ["one", {"a": "two", "b": "three"}], "details": True}).encode()
HEAD = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(REQUEST)


@functools.cache
def application() -> Any:
    """The application around an exported committee."""
    from tinylm.export.runtime import load_predictor
    from tinylm.serve.app import create_app

    with tempfile.TemporaryDirectory() as temporary:
        for name, content in models()["onnx"].items():
            (Path(temporary) / name).write_bytes(content)
        return load_predictor(temporary), create_app


def read_request(folder: Path, example: bytes) -> None:
    """Send bytes to a server of this process, over a connection as a client has it."""
    import socket

    from tinylm.serve.limits import Limits
    from tinylm.serve.server import Server, listen, server_config

    async def talk() -> bytes:
        predictor, create_app = application()
        config = server_config(create_app(predictor), Limits(header_seconds=0.3, body_seconds=0.3))
        server, listener = Server(config), listen("127.0.0.1", 0)
        config.load()
        server.lifespan = config.lifespan_class(config)
        await server.startup([listener])
        reader, writer = await asyncio.open_connection(*listener.getsockname())
        writer.write(example)
        writer.get_extra_info("socket").shutdown(socket.SHUT_WR)
        received = b""
        with suppress(ConnectionResetError):
            received = await reader.read(-1)
        writer.close()
        await server.shutdown([listener])
        return received

    received = asyncio.run(talk())
    statuses = set(map(int, re.findall(rb"(?m)^HTTP/1.1 (\d+) ", received)))
    assert all(status == 200 or 400 <= status < 500 for status in statuses), received[:500]


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """A request with another body, or other bytes altogether."""
    if draw(st.booleans()):
        return draw(damaged_bytes(HEAD + REQUEST))
    body = draw(damaged_json(REQUEST))
    return HEAD.replace(b"%d" % len(REQUEST), b"%d" % len(body)) + body


def targets() -> dict[str, Target]:
    """All targets by name."""
    return {
        "model folder": Target(st.deferred(lambda: damaged_folder("committee")), read_folder),
        "ONNX folder": Target(st.deferred(lambda: damaged_folder("onnx")), read_folder),
        "table": Target(damaged_table(), read_table),
        "spec": Target(damaged_yaml(TEXT_OF_SPEC), read_spec),
        "settings": Target(damaged_yaml(SETTINGS), read_settings),
        "request": Target(requests(), read_request),
    }


@contextmanager
def allowed() -> Iterator[None]:
    """Nothing but a sentence for the user may come of it."""
    try:
        yield
    except UserError as error:
        assert str(error).strip()


def check(target: Target, example: Any) -> None:
    """Let a target read an example: it must be right or refused, soon, and in bounded memory."""
    content = example[-1] if isinstance(example, tuple) else example
    with tempfile.TemporaryDirectory() as temporary, bounded(len(content)), allowed():
        target.read(Path(temporary), example)


def fuzz(name: str, examples: int, seed: int | None = None) -> None:
    """Let a target read so many examples, the same ones each time where there is no seed.

    Raises:
        Exception: the first that an example raised, with the example in its notes.
    """
    target = targets()[name]

    @hypothesis.settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=seed is None,
        suppress_health_check=list(hypothesis.HealthCheck),
        phases=[hypothesis.Phase.generate] + ([] if seed is None else [hypothesis.Phase.shrink]),
    )
    @hypothesis.given(target.examples)
    def run(example: Any) -> None:
        check(target, example)

    if seed is not None:
        run = hypothesis.seed(seed)(run)
    run()


def main() -> None:
    """Fuzz the targets named on the command line, or all, in turn until the time is over."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("targets", nargs="*", choices=[*targets(), []], help="all by default")
    parser.add_argument("--minutes", type=float, default=30, help="altogether")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6), help="of the first examples")
    arguments = parser.parse_args()
    end = time.monotonic() + 60 * arguments.minutes
    counts = dict.fromkeys(arguments.targets or targets(), 0)
    for seed, name in zip(itertools.count(arguments.seed), itertools.cycle(counts)):
        if time.monotonic() > end:
            break
        fuzz(name, 200, seed)
        counts[name] += 200
        print(f"seed {seed}, {name}: {counts[name]:,} examples", flush=True)


if __name__ == "__main__":
    main()
