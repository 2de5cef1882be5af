"""The engine ray on a local Ray of two workers, which are killed at work: results are the local engine's."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers import ray_jobs
from helpers.command import NOUNS, done, refused, sentence, tinylm, write_table
from helpers.fitting import labelled, tiny
from helpers.inputs import TINY_SPEC
from helpers.runner import Here
from tinylm.cli import predict
from tinylm.errors import InputError, UserError
from tinylm.fit import encoders
from tinylm.paper import execute, runner
from tinylm.paper.records import Records
from tinylm.paper.results import Folder, Results
from tinylm.system import ray_engine
from tinylm.system.processes import Engine, in_order, threads
from tinylm.system.ray_engine import engine_named
from tinylm.text import corpus

ray = pytest.importorskip("ray")
ROOT = Path(__file__).parents[2]


def engine_of_another_process(*arguments: str) -> list[str]:
    """Where a process of its own finds its Ray, and what two jobs tell it."""
    script = (
        "import sys, ray\n"
        "from tinylm.system.ray_engine import engine_named\n"
        "with engine_named('ray', *sys.argv[1:]) as engine, engine.workers(2) as submit:\n"
        "    print(ray.get_runtime_context().gcs_address, engine.places())\n"
        "    print(*sorted(submit(abs, -n).result() for n in (1, 2)))\n"
        "print(ray.is_initialized())\n"
    )
    process = subprocess.run(
        [sys.executable, "-c", script, *arguments], stdout=subprocess.PIPE, text=True, timeout=300
    )
    assert process.returncode == 0
    return process.stdout.split()


def throw(error: Exception) -> None:
    raise error


def test_what_cannot_be_is_one_sentence(home: Path, vital: None, monkeypatch) -> None:
    Path("tiny.yaml").write_text(TINY_SPEC)
    assert refused(tinylm("predict classifier text --engine spark")) == (
        "--engine was 'spark'; expected local or ray."
    )
    assert "expected a file for the engine ray" in refused(tinylm("predict classifier - --engine ray"))
    assert "the engine is local" in refused(tinylm("paper run tiny.yaml --preset smoke --address auto"))
    for address in ("127.0.0.1:1", "ray://127.0.0.1:1", "somewhere"):
        outcome = tinylm(f"predict classifier task.csv --engine ray --address {address}")
        assert f"no Ray could be reached at the --address '{address}'" in refused(outcome)
    with pytest.raises(InputError, match="engine is 'spark'; expected local or ray"):
        tiny(engine="spark").check_parameters()
    # A Ray that runs and cannot be joined: no second one is started. None runs, and none starts.
    for raised, expected in (
        (
            [RuntimeError("another version")],
            "no Ray could be joined at the --address 'auto': another version",
        ),
        ([TimeoutError("too slow"), ConnectionError()], "no Ray could be started on this machine: too slow"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(ray, "init", lambda *_, raised=raised, **__: throw(raised.pop()))
            assert refused(tinylm("predict classifier task.csv --engine ray")) == expected
        assert not raised
    monkeypatch.setattr(ray_engine, "find_spec", lambda name: None)
    needs = 'the engine ray needs the package ray: pip install "tinylm[ray]".'
    assert refused(tinylm("predict classifier text --engine ray")) == needs


@pytest.mark.slow
def test_without_a_ray_one_is_started_for_the_run() -> None:
    assert engine_of_another_process()[1:] == [str(os.cpu_count()), "1", "2", "False"]


def started() -> Any:
    """A local Ray with two workers. Ray gives itself 30 seconds to start, too little on a busy machine."""

    def start() -> Any:
        return ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False)

    for _ in range(2):
        with suppress(Exception):
            return start()
        ray.shutdown()
    return start()


@pytest.fixture(scope="module")
def two_workers() -> Iterator[str]:
    """The address of a Ray with two workers, that this process has joined."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_worker_niceness", "0")  # Ray lets what else runs go first
        patch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT / "src"), str(ROOT / "tests"), str(ROOT)]))
        found = started()
    yield found.address_info["gcs_address"]
    ray.shutdown()


@pytest.fixture
def engine(two_workers: str) -> Iterator[Engine]:
    with engine_named("ray") as found:
        yield found


@pytest.mark.slow
def test_a_running_ray_is_joined_and_stays(two_workers: str) -> None:
    assert engine_of_another_process(two_workers) == [two_workers, "2", "1", "2", "False"]
    assert ray.is_initialized()
    with pytest.raises(UserError, match="this process has joined a Ray already"), engine_named("ray", "auto"):
        pass


@pytest.mark.slow
def test_workers_work_as_local_ones_do(engine: Engine, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    with engine_named("ray") as engine, engine.workers(engine.places()) as submit:
        process, cores, folder, writeable = submit(ray_jobs.seen, np.zeros(3)).result()
        assert process != os.getpid() and (cores, folder, writeable) == (1, tmp_path, True)
        assert list(in_order(submit, pow, ((n, 2) for n in range(20)), 4)) == [n * n for n in range(20)]
    with pytest.raises(UserError, match=r"^number 2 is not wanted\.$"), engine.workers(2) as submit:
        submit(ray_jobs.refuse, 2).result()


@pytest.mark.slow
def test_a_lost_job_is_started_again_but_not_for_ever(engine: Engine, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(ray_engine, "RETRIES", 1)  # each one waits for a process to start
    log = tmp_path / "log"
    with engine.workers(2) as submit:
        submit(ray_jobs.die_once, log).result()
        assert len(set(log.read_text().split())) == 2
        with pytest.raises(BrokenProcessPool):
            submit(ray_jobs.die).result()


@pytest.mark.slow
def test_a_node_that_does_not_share_a_folder_is_refused(two_workers: str, tmp_path: Path) -> None:
    with engine_named("ray", shared=[tmp_path]) as engine, engine.workers(1) as submit:
        (mark,) = tmp_path.iterdir()
        mark.unlink()
        with pytest.raises(UserError, match=f"does not share the folder {tmp_path}; expected the same"):
            submit(abs, -1).result()
    assert not list(tmp_path.iterdir())


def run_cells(folder: Folder, engine: Engine) -> runner.Summary:
    """All cells of `TINY_SPEC`, in the working folder and with a cache of their own."""
    Path("tiny.yaml").write_text(TINY_SPEC)
    execute._pretrained.cache_clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TINYLM_CACHE", "cache")
        planned = runner.plan_tables(["tiny.yaml"], preset_name="smoke", folder=folder)
        return runner.run_tables(planned, engine=engine)


@pytest.fixture(scope="module")
def cells_here(vital: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[int, dict[str, Any]]:
    """How many cells there are, and what they hold where this process runs them."""
    with pytest.MonkeyPatch.context() as patch, threads(1):
        patch.chdir(tmp_path_factory.mktemp("here"))
        return run_cells(Path("results"), Here()).done, stored(Path("results"))


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["", "local://"])
def test_cells_are_the_local_ones_where_a_worker_is_killed(
    two_workers: str, tmp_path: Path, monkeypatch, scheme: str, cells_here: tuple[int, dict[str, Any]]
) -> None:
    monkeypatch.chdir(tmp_path)
    results = f"{scheme}{tmp_path}/there"
    with monkeypatch.context() as patch, engine_named("ray", shared=[] if scheme else [tmp_path]) as engine:
        patch.setattr(runner, "run_cell", ray_jobs.cell_killed_once)
        there = run_cells(results if scheme else Path(results), engine)
    assert len(set(Path("there/killed.partial").read_text().split())) > 1
    assert not (there.failed or there.notes)
    assert (there.done, stored(Path("there"))) == cells_here
    # As a user types it: nothing is left to be done.
    monkeypatch.setenv("TINYLM_CACHE", "cache")
    outcome = done(f"paper run tiny.yaml --preset smoke --results {results} --engine ray")
    assert outcome.out.startswith("0 cells run, ")


def stored(folder: Path) -> dict[str, Any]:
    """All cells by their key, without times, and all logits, to the bit."""
    results = Results(folder)
    found: dict[str, Any] = {}
    for key in Records(folder).names("cells"):
        cell = results.read(key)
        assert cell is not None
        logits = results.logits(key) or {}
        arrays = {name: array.tobytes() for name, array in logits.items()}
        found[key] = {name: cell[name] for name in cell if name not in ("seconds", "finished")}, arrays
    return found


@pytest.mark.slow
def test_rows_are_predicted_in_their_order_where_a_worker_is_killed(
    two_workers: str, home: Path, tmp_path: Path, monkeypatch
) -> None:
    chance = random.Random(3)
    topics = [chance.choice(sorted(NOUNS)) for _ in range(500)]
    texts = ["" if number % 70 == 3 else sentence(topic, chance) for number, topic in enumerate(topics)]
    write_table(tmp_path / "in.csv", [(text, "x") for text in texts])
    monkeypatch.setattr(predict, "BATCH", 50)
    monkeypatch.setattr(predict, "_found_by_worker", ray_jobs.batch_killed_once)
    here, there = tmp_path / "here.csv", tmp_path / "there.csv"
    done(f"predict classifier {tmp_path}/in.csv --probabilities", "--out", here)
    done(f"predict classifier {tmp_path}/in.csv --probabilities --engine ray", "--out", there)
    assert (home / "classifier/killed.partial").read_text().split()
    assert there.read_text() == here.read_text()


@pytest.mark.slow
def test_a_corpus_is_the_local_one_where_a_worker_is_killed(
    two_workers: str, home: Path, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr(corpus, "BATCH_ARTICLES", 30)
    monkeypatch.setattr(corpus, "encode_batch", ray_jobs.texts_killed_once)
    written = []
    for engine in ("local", "ray"):
        (tmp_path / engine).mkdir()
        monkeypatch.chdir(tmp_path / engine)
        monkeypatch.setenv("TINYLM_CACHE", "cache")
        command = f"corpus --corpus {home}/corpus.txt --vocabulary 300 --select custom-made --size 40"
        done(f"{command} --task {home}/task.csv --engine {engine} --out out")
        written.append({path.name: path.read_bytes() for path in Path("out").iterdir()})
        record = json.loads(written[-1].pop("tinylm.json"))
        written.append({name: record[name] for name in record if name != "finished"})
    here, record_here, there, record_there = written
    assert (there, record_there) == (here, record_here)
    assert len(set(Path("cache/stores/killed.partial").read_text().split())) > 1


@pytest.mark.slow
def test_members_are_the_local_ones_where_a_worker_is_killed(
    two_workers: str, tmp_path: Path, monkeypatch
) -> None:
    texts, labels = labelled(60)
    fitted = []
    for name in ("local", "ray"):
        monkeypatch.setenv("TINYLM_CACHE", str(tmp_path / name))
        if name == "ray":
            monkeypatch.setattr(encoders, "train_member", ray_jobs.member_killed_once)
        fitted.append(tiny(members=2, engine=name, budget=None, random_state=0).fit(texts, labels))
    assert (tmp_path / "ray/pretrained/killed.partial").exists()
    here, there = (one.committee_.member_logits(texts) for one in fitted)
    assert here.tobytes() == there.tobytes()


@pytest.mark.slow
def test_members_keep_to_a_budget(two_workers: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("TINYLM_CACHE", str(tmp_path))
    texts, labels = labelled(60)
    fitted = tiny(members=1, engine="ray", budget="20s", random_state=0).fit(texts, labels).fitted_
    assert fitted.histories[0].finetuning.epochs  # the deadline was neither over nor years away
    assert fitted.seconds < 60
