"""Records of a results folder: loose, packed, damaged, and written by two processes at once."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tinylm.paper.records import Records


def lines(path: Path) -> list[str]:
    return [json.loads(line)["record"] for line in path.read_text().splitlines()]


def test_packing_moves_each_record_into_the_file_of_its_table(tmp_path: Path):
    records = Records(tmp_path)
    contents = {f"cells/{name}": {"text": f"a\u2028b {name}\n"} for name in "abc"}
    for name, content in contents.items():
        records.write(name, content)
    records.write("tables/t1", {"rows": 2})
    records.pack({"cells/a": "t1", "cells/b": "t2", "tables/t1": "t1"})
    assert lines(tmp_path / "t1.jsonl") == ["cells/a", "tables/t1"] and lines(tmp_path / "t2.jsonl") == [
        "cells/b"
    ]
    assert [path.name for path in (tmp_path / "cells").iterdir()] == ["c.json"]  # of no table
    assert not (tmp_path / "tables").exists()
    for reader in (records, Records(tmp_path)):
        assert {name: reader.read(name) for name in contents} == contents
        assert (reader.names("cells"), reader.names("tables"), reader.notes) == ({"a", "b", "c"}, {"t1"}, [])


def test_a_loose_record_is_newer_and_stays_where_its_predecessor_was(tmp_path: Path):
    records = Records(tmp_path)
    records.write("cells/a", {"n": 1})
    records.pack({"cells/a": "t1"})
    before = (tmp_path / "t1.jsonl").stat().st_mtime_ns
    records.write("cells/a", {"n": 1})
    records.pack({"cells/a": "t2"})
    assert (tmp_path / "t1.jsonl").stat().st_mtime_ns == before  # nothing new to write
    records.write("cells/a", {"n": 2})
    assert records.read("cells/a") == {"n": 2}
    records.pack({"cells/a": "t2"})
    assert lines(tmp_path / "t1.jsonl") == ["cells/a"] and not (tmp_path / "t2.jsonl").exists()
    assert Records(tmp_path).read("cells/a") == records.read("cells/a") == {"n": 2}


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"record": "cells/b", "conte', "line 2 is damaged (Unterminated string"),
        ("<<<<<<< ours", "line 2 is damaged (Expecting value"),
        ('{"key": 1}', "line 2 is damaged (expected an object with the keys record and content"),
        ('{"record": "cells/b", "content": 3}', "line 2 is damaged (its content is not an object"),
    ],
)
def test_a_damaged_line_is_reported_and_kept_aside_when_its_file_is_written(tmp_path: Path, line, reason):
    path = tmp_path / "t.jsonl"
    good = '{"record": "cells/a", "content": {"n": 1}}'
    path.write_text(f"{good}\n{line}\n")
    records = Records(tmp_path)
    assert records.read("cells/b") is None and records.read("cells/a") == {"n": 1}
    assert len(records.notes) == 1 and reason in records.notes[0]
    records.write("cells/b", {"n": 2})
    records.pack({"cells/b": "t"})
    assert lines(path) == ["cells/a", "cells/b"]
    assert (tmp_path / "t.jsonl.damaged").read_text() == line + "\n"


def test_what_has_a_problem_is_not_used(tmp_path: Path):
    records = Records(tmp_path)
    for name in ("cells/loose", "cells/packed"):
        records.write(name, {"n": 1})
    records.pack({"cells/packed": "t"})

    def problem(content: dict[str, object]) -> str | None:
        return None if content["n"] == 2 else "has the wrong number"

    assert records.read("cells/loose", problem) is None and records.read("cells/packed", problem) is None
    assert (tmp_path / "cells" / "loose.json.damaged").is_file()
    assert sorted(note.split(str(tmp_path))[1] for note in records.notes) == [
        "/cells/loose.json has the wrong number; it was renamed to loose.json.damaged and is not used.",
        "/t.jsonl: the record cells/packed has the wrong number and is not used.",
    ]


# Writes records and packs after each, while others do the same, and reads all own ones every time.
WORK = """
import sys
from pathlib import Path
from tinylm.paper.records import Records

number, records = sys.argv[1], Records(Path(sys.argv[2]))
file_of = {f"cells/{worker}-{i}": f"t{i % 2}" for worker in range(3) for i in range(20)}
for i in range(20):
    records.write(f"cells/{number}-{i}", {"n": i})
    records.write("tables/shared", {"by": number, "n": i})
    records.pack(file_of | {"tables/shared": "t0"})
    assert all(records.read(f"cells/{number}-{n}") == {"n": n} for n in range(i + 1))
    assert records.read("tables/shared") is not None
"""


def test_processes_that_write_and_pack_at_once_lose_nothing(tmp_path: Path):
    processes = [subprocess.Popen([sys.executable, "-c", WORK, str(n), str(tmp_path)]) for n in range(3)]
    assert [process.wait() for process in processes] == [0, 0, 0]
    packed = lines(tmp_path / "t0.jsonl") + lines(tmp_path / "t1.jsonl")
    assert sorted(packed) == sorted(
        {*(f"cells/{n}-{i}" for n in range(3) for i in range(20)), "tables/shared"}
    )
    assert not (tmp_path / "cells").exists()
