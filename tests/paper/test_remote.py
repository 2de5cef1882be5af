"""Results behind a URL: those of a folder, whoever computes them and whatever is cut off."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from helpers.command import done, refused, tinylm
from helpers.inputs import TINY_SPEC
from helpers.runner import Here
from tinylm.errors import UserError
from tinylm.paper import execute, runner
from tinylm.paper.records import RemoteRecords
from tinylm.paper.results import Folder, RemoteResults, Results
from tinylm.system.files import locked
from tinylm.system.processes import Submit, threads
from tinylm.system.remote import RemoteFolder

SPEC = TINY_SPEC + "".join(
    f"      - {{name: {name}, role: member, w_s: {{select: none}}, architecture: {{layers: 1}}}}\n"
    for name in ("plain-1", "plain-2")
)


class Nodes(Here):
    """Machines without a folder in common: every cell finds a cache that is empty."""

    def __init__(self, caches: Path) -> None:
        self._caches = caches
        self._jobs = 0

    @contextmanager
    def workers(self, most: int, gpu: float = 0) -> Iterator[Submit]:
        with super().workers(most, gpu) as submit, pytest.MonkeyPatch.context() as patch:

            def elsewhere(function: Callable[..., Any], *arguments: Any) -> Future[Any]:
                self._jobs += 1
                patch.setenv("TINYLM_CACHE", str(self._caches / str(self._jobs)))
                execute._pretrained.cache_clear()
                return submit(function, *arguments)

            yield elsewhere


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a spec and a cache of its own, and the results of that spec in `results`."""
    folder = tmp_path_factory.mktemp("remote")
    (folder / "tiny.yaml").write_text(SPEC)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TINYLM_CACHE", str(folder / "cache"))
        assert run(home=folder, folder=folder / "results").failed == []
        yield folder


def plan(home: Path, folder: Folder) -> runner.Prepared:
    return runner.plan_tables([str(home / "tiny.yaml")], preset_name="smoke", folder=folder)


def run(home: Path, folder: Folder, engine: Here | None = None) -> runner.Summary:
    execute._pretrained.cache_clear()
    with threads(1):
        return runner.run_tables(plan(home, folder), engine=engine or Here())


def objects(url: str) -> dict[str, bytes]:
    remote = RemoteFolder(url)
    return remote.read_all(remote.names())


def copied(url: str, folder: Path) -> Path:
    """The objects as files, as the provider's tools copy them."""
    for name, data in objects(url).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


def content(results: Results, keys: set[str]) -> dict[str, Any]:
    """Cells without their times, logits to the bit, and committees."""
    found: dict[str, Any] = {"committees": results.committees("tiny", "")}
    for key in keys:
        cell = results.read(key)
        assert cell is not None
        logits = {name: array.tobytes() for name, array in (results.logits(key) or {}).items()}
        found[key] = {name: cell[name] for name in cell if name not in ("seconds", "finished")}, logits
    return found


def keys(home: Path) -> set[str]:
    """Of the cells of the spec."""
    return Results(home / "results")._records.names("cells")


def test_machines_that_share_nothing_else_get_what_a_folder_gets(home: Path, tmp_path: Path) -> None:
    url = "memory://apart"
    summary = run(home, url, Nodes(tmp_path))
    expected = content(Results(home / "results"), keys(home))
    assert expected["committees"]["numbers"] == [0, 1]
    assert (summary.done, summary.failed, summary.notes) == (len(keys(home)), [], [])
    remote = RemoteResults(url)
    remote.refresh()
    assert content(remote, keys(home)) == expected
    # Copied into a folder they are results like any others, and the next run there packs them.
    copy = copied(url, tmp_path / "copy")
    assert content(Results(copy), keys(home)) == expected
    assert run(home, copy).done == 0
    assert not (copy / "cells").exists() and content(Results(copy), keys(home)) == expected
    # Packed records are found when a folder is copied to a URL.
    for path in (path for path in copy.rglob("*") if path.is_file()):
        RemoteFolder("memory://back").write(str(path.relative_to(copy)), path.read_bytes())
    assert plan(home, "memory://back").jobs == []


def test_an_interrupted_run_resumes(home: Path, tmp_path: Path, monkeypatch) -> None:
    url = "memory://interrupted"
    write, written = RemoteRecords.write, []

    def interrupted(self: RemoteRecords, name: str, content: Any) -> None:
        if name.startswith("cells/"):
            written.append(name)
            if len(written) == 6:  # its logits are stored
                raise KeyboardInterrupt
        write(self, name, content)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(RemoteRecords, "write", interrupted)
        run(home, url, Nodes(tmp_path / "first"))
    before = objects(url)
    cells = {name for name in before if name.startswith("cells/")}
    assert len(cells) == 5
    summary = run(home, url, Nodes(tmp_path / "second"))
    assert summary.done == len(keys(home)) - 5
    after = objects(url)
    assert {name: after[name] for name in cells} == {name: before[name] for name in cells}
    remote = RemoteResults(url)
    remote.refresh()
    assert content(remote, keys(home)) == content(Results(home / "results"), keys(home))


def test_what_another_machine_has_finished_is_not_computed_again(
    home: Path, tmp_path: Path, monkeypatch
) -> None:
    url = "memory://two"
    prepared = plan(home, url)
    run(home, url, Nodes(tmp_path / "other"))
    before = objects(url)
    for name in ("pretrain", "finetune", "tfidf_accuracy"):
        monkeypatch.setattr(execute, name, lambda *_, **__: pytest.fail("computed again"))
    summary = runner.run_tables(prepared, engine=Nodes(tmp_path / "this"))
    assert (summary.done, summary.failed) == (len(keys(home)), [])
    assert objects(url) == before
    # Processes that share a cache folder wait for each other.
    cell = prepared.jobs[0]
    with locked(RemoteResults(url).lock(cell.key)):
        assert execute.run_cell(cell, prepared.preset.model_dump_json(), url).busy


def test_what_cannot_be_trusted_is_computed_again(home: Path) -> None:
    url = "memory://damaged"
    folder = RemoteFolder(url)
    copy = home / "loose"
    shutil.copytree(home / "results", copy)
    for path in (path for path in copy.rglob("*") if path.is_file()):
        folder.write(str(path.relative_to(copy)), path.read_bytes())
    lines = folder.read("tiny.jsonl").decode().splitlines()  # type: ignore[union-attr]
    cells = sorted(line for line in lines if '"kind": "baseline"' in line)
    others = [line for line in lines if line not in cells]
    record = json.loads(cells[0])
    folder.write("tiny.jsonl", "\n".join([*others, *cells[1:], '{"record": 1']).encode())
    folder.write(f"{record['record']}.json", json.dumps(record["content"] | {"identity": {}}).encode())
    prepared = plan(home, url)
    assert [f"cells/{job.key}" for job in prepared.jobs] == [record["record"]]
    summary = runner.run_tables(prepared, engine=Here())
    assert (summary.done, summary.failed) == (1, [])
    foreign, damaged = sorted(summary.notes)
    assert damaged.startswith(f"{url}/tiny.jsonl, line {len(lines)} is damaged")
    assert foreign == f"{url}/{record['record']}.json belongs to other settings and is not used."
    assert plan(home, url).jobs == []


def test_commands_read_a_url(home: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    spec, url = home / "tiny.yaml", "memory://commands"
    for path in (path for path in (home / "results").rglob("*") if path.is_file()):
        RemoteFolder(url).write(str(path.relative_to(home / "results")), path.read_bytes())
    planned = done(f"paper plan {spec} --preset smoke --results {url}").out
    assert f"{len(keys(home)) - 2} cells are found in {url}" in planned  # pre-trainings are not counted
    done(f"paper report --results {url} --out here/report.md --beside {url}")
    done(f"paper report --results {home}/results --beside {home}/results")
    assert Path("here/report.html").is_file()
    assert Path("here/report.md").read_text() == (home / "results/report.md").read_text()


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("report --results memory://nothing --out r.md", "memory://nothing holds no results"),
        ("report --results memory://nothing", "--results was memory://nothing; give a Markdown file"),
        ("tune tiny.yaml --results memory://nothing", "a search keeps its attempts in files under locks"),
        ("plan tiny.yaml --results fish://bucket/path", "fish://bucket/path cannot be opened: Protocol not"),
        ("plan tiny.yaml --results memory://full", "memory://full is not empty and holds no results"),
    ],
)
def test_what_cannot_be_is_one_sentence(
    home: Path, tmp_path: Path, monkeypatch, command: str, expected: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("tiny.yaml").write_text(SPEC)
    RemoteFolder("memory://full").write("letter.txt", b"x")
    assert expected in refused(tinylm(f"paper {command}"))
    assert not fsspec.filesystem("memory").exists("/nothing")


def test_without_credentials_it_is_one_sentence(home: Path, monkeypatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError("Access Denied")

    with monkeypatch.context() as patch:
        patch.setattr(MemoryFileSystem, "_open", refuse)
        outcome = tinylm(f"paper run {home}/tiny.yaml --preset smoke --results memory://closed")
    assert refused(outcome) == (
        "memory://closed cannot be written: Access Denied; expected credentials that may list, read and write"
        " there"
    )


@pytest.mark.slow
def test_a_store_that_does_not_answer_is_one_sentence(home: Path, tmp_path: Path, monkeypatch) -> None:
    for name, value in {
        "AWS_ENDPOINT_URL": "http://127.0.0.1:1",
        "AWS_ACCESS_KEY_ID": "x",
        "AWS_SECRET_ACCESS_KEY": "x",
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=r"^s3://bucket/path cannot be read: .*127\.0\.0\.1"):
        plan(home, "s3://bucket/path/")
