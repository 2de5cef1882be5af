"""The laboratory: which texts it reads, that it trains nothing twice, and what its tables say."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from helpers.command import done, refused, tinylm
from tinylm.bench.recipe import data, questions, report, runs, schedule
from tinylm.bench.recipe.questions import BASE, QUESTIONS, Question, Variant
from tinylm.errors import UserError
from tinylm.system.files import locked
from tinylm.text.tasks import Task, copy_key
from tinylm.train.recipes import RECIPES

SMALL = BASE.but(
    heads=1, vocabulary=300, w_s=40, own_last=1, recipe={"max_tokens": 16, "neighbour_window": None},
    pretrain={"epochs": 1}, epochs=dict.fromkeys(data.TASKS, 1),
)  # fmt: skip
ROWS = 12  # of a label


def toy_task(name: str, *, labels: list[int] | None = None, seed: int, train_per_label: int = 8) -> Task:
    """As `load_task` gives it: rows of a label do not depend on the other labels."""
    numbers = list(labels or range({"fewrel": 64, "agnews": 4, "dbpedia": 14}[name]))
    rows = [[f"{name} word{label} number{row} of it" for row in range(ROWS)] for label in numbers]
    for texts in rows:
        texts[9] = texts[0].upper()  # a copy of a training text validates nothing
    kept = min(train_per_label, 10)
    return Task(
        name=name,
        label_names=[f"label {number}" for number in numbers],
        train_texts=[text for texts in rows for text in texts[:kept]],
        train_labels=np.repeat(np.arange(len(numbers)), kept),
        test_texts=[text for texts in rows for text in texts[10:]],
        test_labels=np.repeat(np.arange(len(numbers)), 2),
        unusable={},
        notes=[],
        fingerprint="toy",
    )


@pytest.fixture
def toy_data(monkeypatch, tmp_path):
    """Few short texts in place of the data sets, and an empty cache folder."""
    monkeypatch.setenv("TINYLM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(data, "load_task", toy_task)
    monkeypatch.setattr(data, "LEARNED", {"frdev": 5, "ag": 5, "db": 5})
    monkeypatch.setattr(data, "MEASURED", 5)
    leads = [f"lead {row} about word{row} and number{row}" for row in range(60)]
    leads += [
        "AGNEWS word0 number11 of it",
        "dbpedia  word1 number6 of it",
    ]  # a test text, and one that validates
    monkeypatch.setattr(
        data, "articles_of", lambda name: leads if name == data.LEADS else [f"{name} text"] * 9
    )
    forget()
    yield
    forget()


def forget() -> None:
    for cached in (data.splits, data.tested, data.held_out, data.own_texts, data.paragraphs, data.prepare):
        cached.cache_clear()


def keys(texts: list[str]) -> set[str]:
    return set(map(copy_key, texts))


def check_that_nothing_leaks() -> set[str]:
    """Look at all texts of all tasks; returns the keys of those that nothing is trained on."""
    tested = [
        text for name in ("fewrel", "agnews", "dbpedia") for text in data.load_task(name, seed=42).test_texts
    ]
    forbidden = keys(tested)
    for task in data.splits().values():
        assert task.train_texts and task.test_texts
        assert not keys(task.train_texts) & keys(task.test_texts)
        assert not keys(task.test_texts) & keys(tested)
        forbidden |= keys(task.test_texts)
    assert data.own_texts() and not keys(data.own_texts()) & forbidden
    return forbidden


def test_no_text_that_validates_is_trained_on(toy_data):
    forbidden = check_that_nothing_leaks()
    chosen, measured = data.paragraphs(40)
    assert len(chosen) == 40 and not keys(chosen) & (forbidden | keys(measured))
    assert len(data.splits()["ag"].test_texts) == 4 * 4  # 5 of 10 rows of a label learn, one is a copy
    assert len(data.paragraphs(60 - 5 + 2)[0]) == 57  # those in front of the other files
    with pytest.raises(UserError, match=r"W_S is 900; there are \d+ paragraphs"):
        data.paragraphs(900)


@pytest.mark.slow
def test_no_text_that_validates_is_trained_on_in_the_data_sets(data_folder):
    forget()
    check_that_nothing_leaks()
    rows = {name: (len(task.train_texts), len(task.label_names)) for name, task in data.splits().items()}
    assert rows["ag"] == (4000, 4) and rows["db"] == (1400, 14) and rows["frdev"] == (16 * 315, 16)
    assert not {*data.splits()["frdev"].label_names} & {*data.splits()["fr10"].label_names}
    forget()


@pytest.fixture
def counted(monkeypatch) -> list[runs.Cell]:
    """The cells that were trained."""
    trained: list[runs.Cell] = []
    measure = runs.measure

    def measure_and_count(cell: runs.Cell):
        trained.append(cell)
        return measure(cell)

    monkeypatch.setattr(runs, "measure", measure_and_count)
    return trained


def test_a_second_call_trains_nothing(toy_data, counted, tmp_path):
    asked = {
        "one": Question("?", {"base": SMALL, "[CLS]": SMALL.but(pooling="first")}),
        "two": Question("?", {"the same": SMALL, "from scratch": SMALL.but(pretrained=False)}),
    }
    cells = runs.cells_of(asked, 2, ["ag"])
    assert len(cells) == 6
    folder = tmp_path / "results"
    assert schedule.run_cells(cells, folder, 1, minutes=0) == schedule.Summary(0, 0, 6, [])
    assert schedule.run_cells(cells[:3], folder, 1) == schedule.Summary(3, 0, 0, [])
    assert schedule.run_cells(cells, folder, 1) == schedule.Summary(3, 3, 0, [])
    assert [cell.key for cell in counted] == [cell.key for cell in cells]
    # A variant of fine-tuning shares the weights of pre-training; each seed has its own.
    assert len(list((tmp_path / "cache" / "recipe" / "models").iterdir())) == 2
    lines = [json.loads(line) for line in (folder / "runs.jsonl").read_text().splitlines()]
    assert {line["record"] for line in lines} == {f"cells/{cell.key}" for cell in cells}
    first = runs.Runs(folder).read(cells[0].key)
    assert first["rows"]["train"] == 4 * 5 and 0 <= first["accuracy"] <= 1 and first["loss"] > 0
    assert first["pretraining"]["seconds"] > 0 and first["seconds"] > 0
    grid = report.table_of(asked["one"], runs.Runs(folder).by_settings())
    assert [row[1] for row in grid.rows] == ["base", "[CLS]", "strong linear model"]


def test_no_job_waits_for_a_training_that_is_under_way(toy_data):
    asked = {"base": SMALL, "[CLS]": SMALL.but(pooling="first"), "deep": SMALL.but(layers=2)}
    asked["from scratch"] = SMALL.but(pretrained=False)
    base, first, deep, scratch, *second_seed = runs.cells_of({"one": Question("?", asked)}, 2, ["ag"])
    queue = schedule.Queue([base, first, deep, scratch, *second_seed])
    begun = [queue.next() for _ in range(6)]
    weights = [runs.weights_name(cell.variant, cell.seed) for cell in (base, deep, *second_seed)]
    assert weights[2] == weights[3]
    assert begun == [
        (base, weights[0]),  # one pre-training for two cells
        (deep, weights[1]),
        (scratch, ""),
        (second_seed[0], weights[2]),
        (second_seed[2], weights[4]),
        (second_seed[3], ""),
    ]
    assert queue.next() is None
    assert queue.pretrained(weights[0], runs.DONE) == []
    assert [queue.next(), queue.next(), queue.next()] == [(base, ""), (first, ""), None]
    assert queue.pretrained(weights[2], "no luck") == ["no luck"] * 2
    assert queue.waiting == [deep, second_seed[2]] and queue.next() is None


def test_two_runners_share_the_cells(toy_data, counted, tmp_path):
    (cell,) = runs.cells_of({"one": Question("?", {"base": SMALL})}, 1, ["ag"])
    with locked(tmp_path / ".locks" / cell.key):  # another runner is at it
        assert runs.run_cell(cell, tmp_path, float("inf")) == runs.LEFT
    assert runs.run_cell(cell, tmp_path, float("inf")) == runs.DONE
    assert runs.run_cell(cell, tmp_path, float("inf")) == runs.LEFT  # it is there by now
    assert len(counted) == 1


def test_a_cell_that_fails_leaves_the_others(toy_data, tmp_path):
    steep = SMALL.but(finetune={"learning_rate": 1e30, "muon_lr": None}, epochs={"ag": 3})
    cells = runs.cells_of({"one": Question("?", {"base": SMALL, "steep": steep})}, 1, ["ag"])
    summary = schedule.run_cells(cells[::-1], tmp_path, 1)
    assert (summary.done, summary.left) == (1, 0)
    assert "one, steep, ag, seed 0: steep, ag: the loss is not a number" in summary.failed[0]
    assert schedule.run_cells(cells, tmp_path, 1).failed == summary.failed  # it is tried again


def test_a_cell_is_keyed_by_what_decides_it():
    def key(variant: Variant, seed: int = 0, task: str = "ag") -> str:
        return runs.Cell("a question", "a name", variant, seed, task).key

    same = [BASE, BASE.but(finetune={}), BASE.but(epochs={"db": 99})]  # epochs of another task
    assert len(set(map(key, same))) == 1
    others = [variant for asked in QUESTIONS.values() for variant in asked.variants.values()]
    distinct = {variant.model_dump_json(): variant for variant in others}
    assert len(set(map(key, distinct.values()))) == len(distinct)
    assert len({key(BASE, 0), key(BASE, 1), key(BASE, 0, "db")}) == 3


def test_variants_are_recipes():
    recipe = BASE.but(finetune={"learning_rate": 0.5}, recipe={"mask_rate": 0.4}).recipe_for("db")
    fast = RECIPES["sketch"]
    assert (recipe.finetune.learning_rate, recipe.finetune.epochs, recipe.mask_rate) == (0.5, 8, 0.4)
    assert recipe.pretrain.muon_lr == fast.pretrain.muon_lr and recipe.finetune.muon_lr == 0.01
    for asked in QUESTIONS.values():
        for variant in asked.variants.values():
            for task in data.TASKS:
                variant.recipe_for(task)
    with pytest.raises(UserError, match="'finetune.speed' was 3"):
        BASE.but(finetune={"speed": 3}).recipe_for("ag")


def test_members_are_cooled_before_they_are_added():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 3000)
    right = np.eye(3)[labels]
    strong, weak = (share * right + rng.normal(size=(3000, 3)) for share in (3.0, 0.5))
    together = runs.accuracy_together([strong, weak], labels)
    assert together == runs.accuracy_together([strong, 50 * weak], labels)  # an over-confident member
    assert together > np.mean(weak.argmax(1) == labels) + 0.2
    # The best sum of independent members of normal noise weighs them by their strength.
    best = np.mean((3.0 * strong + 0.5 * weak).argmax(1) == labels)
    assert together == pytest.approx(best, abs=0.01)


ACCURACIES = {"base": [0.70, 0.72, 0.74], "other": [0.73, 0.74, 0.79]}


def write_cell(results: runs.Runs, cell: runs.Cell, accuracy: float) -> None:
    content = {"identity": cell.identity, "seed": cell.seed, "pretraining": {"seconds": 80.0, "loss": 4.0}}
    content |= {"seconds": 20.0, "accuracy": accuracy, "with_linear": accuracy + 0.1}
    results.write(cell.key, content | {"linear": {"accuracy": 0.6, "seconds": 4.0}})


@pytest.fixture
def made_up(monkeypatch, tmp_path) -> Path:
    """A results folder with three seeds of two variants on `ag`, and two of one on `db`."""
    asked = Question("?", {"base": BASE, "other": BASE.but(layers=2), "not run": BASE.but(layers=3)})
    monkeypatch.setitem(questions.QUESTIONS, "pooling", asked)
    monkeypatch.setitem(questions.QUESTIONS, "longer", Question("?", {"longer": BASE.but(w_s=40_000)}))
    results = runs.Runs(tmp_path)
    for cell in runs.cells_of({"pooling": asked}, 3, ["ag", "db"]):
        if cell.name == "not run" or (
            cell.task == "db" and (cell.name, cell.seed) in [("other", 0), ("base", 2)]
        ):
            continue
        write_cell(results, cell, ACCURACIES[cell.name][cell.seed])
    return tmp_path


def test_table_by_hand(made_up):
    grid = report.table_of(questions.QUESTIONS["pooling"], runs.Runs(made_up).by_settings())
    assert grid.head == [
        "task", "variant", "seeds", "seconds", "MLM loss", "encoder", "with the linear model",
    ]  # fmt: skip
    # Differences are paired by seed: on `ag` 0.03, 0.02 and 0.05; on `db` and of the means one seed has both.
    width = stats.sem([0.03, 0.02, 0.05]) * stats.t.ppf(0.975, 2)
    same = ["80 + 20", "4.00"]
    assert grid.rows == [
        ["ag", "base", "3", *same, "0.720 ± 0.020", "0.820 ± 0.020"],
        ["ag", "other", "3", *same, f"0.753 (+0.033 ± {width:.3f})", f"0.853 (+0.033 ± {width:.3f})"],
        ["ag", "strong linear model", "", "4", "", "", "0.600"],
        ["db", "base", "2", *same, "0.710 ± 0.014", "0.810 ± 0.014"],
        ["db", "other", "2", *same, "0.765 (+0.020)", "0.865 (+0.020)"],
        ["db", "strong linear model", "", "4", "", "", "0.600"],
        ["mean", "base", "2", *same, "0.710 ± 0.014", "0.810 ± 0.014"],
        ["mean", "other", "2", *same, "0.765 (+0.020)", "0.865 (+0.020)"],
        ["mean", "strong linear model", "", "4", "", "", "0.600"],
    ]


def test_a_mean_needs_all_tasks_of_the_base(made_up):
    asked = questions.QUESTIONS["pooling"]
    write_cell(runs.Runs(made_up), runs.Cell("pooling", "other", asked.variants["other"], 0, "fr10"), 0.9)
    grid = report.table_of(asked, runs.Runs(made_up).by_settings())
    assert [row[:2] for row in grid.rows[6:]] == [["fr10", "other"], ["fr10", "strong linear model"]]
    assert grid.rows[6][5:] == ["0.900", "1.000"]


def test_a_page_is_written_again(made_up, tmp_path):
    page = tmp_path / "page.md"
    page.write_text("Words.\n\n<!-- recipe: questions -->\nold\n<!-- end -->\nMore.\n")
    out = done("recipe report", page, "--results", made_up).out
    assert f"{page}: recipe: questions" in " ".join(out.split())
    text = page.read_text()
    assert text.startswith("Words.\n\n<!-- recipe: questions -->\n\nWithout results so far: `parts` (What do")
    assert text.endswith("\n\n<!-- end -->\nMore.\n") and "old" not in text
    assert text.count("###") == 1 and "`longer` (?)" in text
    assert "### ?\n\n`tinylm recipe run pooling`\n\n| task | variant |" in text
    assert "<svg" in (made_up / "seconds.svg").read_text()
    again = done("recipe report", page, "--results", made_up).out
    assert again == out and page.read_text() == text
    on_gpu = questions.questions_named(["pooling"], "cuda")
    for cell in runs.cells_of(on_gpu, 1, ["db"]):
        write_cell(runs.Runs(made_up), cell, 0.9)
    done("recipe report", page, "--results", made_up)
    expected = "`tinylm recipe run pooling --device cuda`\n\n"
    assert expected in page.read_text().replace(text, "") and "| db | base | 1 |" in page.read_text()
    page.write_text("<!-- recipe: weather -->\n<!-- end -->")
    assert "'recipe: weather' is unknown; there are fits: all," in refused(tinylm("recipe report", page))


SPLIT = {
    "linear_svm": 0.86, "fasttext": 0.5, "members": [0.8, 0.84, 0.1], "seconds": 90.0, "milliseconds": 0.5,
    "paragraphs": 30_000, "teacher": 0.93, "teacher_milliseconds": 2.0,
}  # fmt: skip


def write_fits(
    folder: Path, name: str, fits: dict[str, list[dict[str, object]]], processor: str = "A"
) -> Path:
    """A record of the suite `accuracy`; returns the folder of cells that lies beside it."""
    for each in ("bench", "recipe"):
        (folder / each).mkdir(exist_ok=True)
    results = [
        {"name": case, "details": {"splits": [{"seed": 42} | SPLIT | split for split in splits]}}
        for case, splits in fits.items()
    ]
    machine = {"processor": processor, "cores": 2}
    record = {"settings": {"suite": "accuracy"}, "machine": machine, "results": results}
    (folder / "bench" / f"accuracy-{name}.json").write_text(json.dumps(record))
    return folder / "recipe"


def shown(folder: Path, place: str) -> list[str]:
    """The lines of a page whose `place` was filled."""
    page = folder / "page.md"
    page.write_text(f"Words.\n<!-- fits: {place} -->\nold\n<!-- end -->\n")
    done("recipe report", page, "--results", folder / "recipe")
    lines = page.read_text().splitlines()
    assert [*lines[:2], lines[-1]] == ["Words.", f"<!-- fits: {place} -->", "<!-- end -->"]
    return [line for line in lines[2:-1] if line]


def test_a_page_shows_what_fits_reached(tmp_path):
    """Means of two splits, by hand; the order is that of the suite."""
    second = {"accuracy": 0.92, "linear_svm": 0.88, "members": [0.82, 0.86, 0.1], "paragraphs": 40_000}
    write_fits(tmp_path, "dbpedia", {"dbpedia-1min": [{"accuracy": 0.9}]})
    fits = {"agnews-1min": [{"accuracy": 0.9}, {"seed": 43} | second]}
    fits |= {"agnews-1min-paper": [{"accuracy": 0.7, "members": [0.7]}]}
    write_fits(tmp_path, "agnews", fits)
    assert shown(tmp_path, "all")[2:] == [
        "| agnews-1min | 2 | 0.910 ± 0.014 | 0.870 ± 0.014 | +0.040 ± 0.000 | 0.500 ± 0.000 | 0.830"
        " | 35,000 | 1.5 | 0.50 |",
        "| dbpedia-1min | 1 | 0.900 | 0.860 | +0.040 | 0.500 | 0.820 | 30,000 | 1.5 | 0.50 |",
        "| agnews-1min-paper | 1 | 0.700 | 0.860 | −0.160 | 0.500 | 0.700 | 30,000 | 1.5 | 0.50 |",
        "Measured on 2 cores of A.",
    ]
    assert shown(tmp_path, "students") == ["Not measured yet."]
    # A third split of another machine, in a record of its own.
    write_fits(tmp_path, "more", {"agnews-1min": [{"seed": 44, "accuracy": 0.92}]}, "B")
    lines = shown(tmp_path, "all")
    width = stats.sem([0.04, 0.04, 0.06]) * stats.t.ppf(0.975, 2)
    assert f"| agnews-1min | 3 | 0.913 ± 0.012 | 0.867 ± 0.012 | +0.047 ± {width:.3f} |" in lines[2]
    assert lines[-1] == (
        "Measured on 2 cores of A: `*-1min`, `agnews-1min-paper`. Measured on 2 cores of B: `agnews-1min`."
    )
    page = tmp_path / "page.md"
    page.write_text("<!-- fits: weather -->\n<!-- end -->")
    assert "'fits: weather' is unknown; there are fits: all" in refused(
        tinylm("recipe report", page, "--results", tmp_path / "recipe")
    )


def test_a_page_shows_students_beside_their_teachers(tmp_path):
    students = [{"accuracy": 0.92}, {"seed": 43, "accuracy": 0.93}]
    fits = {"agnews-10min-student": students, "agnews-10min": [{"seed": 43, "accuracy": 0.94}]}
    write_fits(tmp_path, "agnews", fits)
    assert shown(tmp_path, "students")[2] == (
        "| agnews-10min-student | 2 | 0.925 ± 0.007 | 0.930 ± 0.000 | −0.005 ± 0.064 | 0.820 | 0.940 |"
        " 0.860 ± 0.000 | 0.50 | 2.00 |"
    )


def test_a_page_shows_what_texts_without_labels_bring(tmp_path):
    """In a line stand the splits that both fits have, by hand."""
    more = {"unlabelled": 5_000, "self_trained_svm": 0.87}
    fits = {
        "agnews-8rows": [{"accuracy": 0.9}, {"seed": 43, "accuracy": 0.8}],
        "agnews-8rows-unlabelled": [{"accuracy": 0.95} | more],
        "dbpedia-8rows-unlabelled": [{"accuracy": 0.95} | more],
    }
    write_fits(tmp_path, "small", fits)
    assert shown(tmp_path, "unlabelled")[2:3] == [
        "| AG News, 8 | 1 | 5,000 | 0.860 | 0.870 | 0.900 | 0.950 |"
    ]
    assert "| agnews-8rows-unlabelled | 1 | 0.950 |" in "\n".join(shown(tmp_path, "all"))


def test_a_page_shows_the_gap_of_committees_and_of_encoders(tmp_path):
    """By hand; the last member is the TF-IDF member, which has no gap."""
    without = {"without": 0.85, "without_members": [0.60, 0.64, 0.85]}
    fits = {"agnews-8rows-compared": [{"accuracy": 0.90} | without, {"seed": 43, "accuracy": 0.92} | without]}
    write_fits(tmp_path, "agnews", fits | {"dbpedia-5min-compared": [{"accuracy": 0.9} | without]})
    width = stats.sem([0.05, 0.07]) * stats.t.ppf(0.975, 1)
    assert shown(tmp_path, "compared")[2:4] == [
        f"| AG News, 8 | 2 | 0.860 ± 0.000 | 0.910 ± 0.014 | 0.850 ± 0.000 | +0.060 ± {width:.3f} | 0.820 |"
        " 0.620 | +0.200 |",
        "| DBpedia, 100 | 1 | 0.860 | 0.900 | 0.850 | +0.050 | 0.820 | 0.620 | +0.200 |",
    ]


def test_a_table_of_minutes_has_no_empty_cell(tmp_path):
    """Columns that all tasks have; in a line, the splits that all its fits have."""
    assert shown(tmp_path, "minutes") == ["Not measured yet."]
    three = [{"seed": 42 + k, "accuracy": 0.90 + 0.01 * k, "linear_svm": 0.8 + 0.01 * k} for k in range(3)]
    fits = {"agnews-1min": three[:2], "agnews-10min": three[1:], "agnews-5min": three}
    write_fits(tmp_path, "agnews", fits | {"agnews-8rows": three[:1], "agnews-1min-paper": three})
    head = "| task, training rows per label | splits | linear SVM | fastText | fit, 1 minute |"
    assert shown(tmp_path, "minutes") == [
        f"{head} fit, 5 minutes | fit, 10 minutes |",
        "| --- | --- | --- | --- | --- | --- | --- |",
        "| AG News, 1,000 | 1 | 0.810 | 0.500 | 0.910 | 0.910 | 0.910 |",
        "Measured on 2 cores of A.",
    ]
    assert shown(tmp_path, "rows")[0] == head.replace("1 minute", "5 minutes")
    assert shown(tmp_path, "rows")[2] == "| AG News, 8 | 1 | 0.800 | 0.500 | 0.900 |"
    write_fits(tmp_path, "dbpedia", {"dbpedia-5min": three[:2], "dbpedia-60min": three})
    assert shown(tmp_path, "minutes")[2:4] == [
        "| AG News, 1,000 | 3 | 0.810 ± 0.010 | 0.500 ± 0.000 | 0.910 ± 0.010 |",
        "| DBpedia, 100 | 2 | 0.805 ± 0.007 | 0.500 ± 0.000 | 0.905 ± 0.007 |",
    ]


def test_points_of_a_task_are_for_the_same_splits(tmp_path):
    """A fit that has one split of two is as far above the linear SVM as it was there."""
    seconds = {"linear_svm_seconds": 4.0, "fasttext_seconds": 8.0}
    both = [
        {"seed": 42, "linear_svm": 0.80, "fasttext": 0.75, "accuracy": 0.82, "seconds": 500.0},
        {"seed": 43, "linear_svm": 0.90, "fasttext": 0.87, "accuracy": 0.96, "seconds": 520.0} | seconds,
    ]
    one = [{"seed": 42, "linear_svm": 0.80, "fasttext": 0.75, "accuracy": 0.81, "seconds": 60.0}]
    folder = write_fits(tmp_path, "agnews", {"agnews-1min": one, "agnews-10min": both, "agnews-8rows": one})
    found = report.points(report.read_fits(tmp_path / "bench"))
    assert list(found) == ["agnews"] and found["agnews"]["paper"] == []
    deviation = np.std([0.02, 0.06], ddof=1)
    expected = {
        "fit": [(60, 0.85 + 0.01, 0), (510, 0.89, deviation)],
        "linear_svm": [(4, 0.85, 0)],
        "fasttext": [(8, 0.85 - 0.03, 0)],  # timed on the second split alone
    }
    for name, points in expected.items():
        assert [list(vars(point).values()) for point in found["agnews"][name]] == [
            pytest.approx(list(point)) for point in points
        ]
    report.draw(folder)
    drawn = (folder / "fits.svg").read_text()
    assert "AG News" in drawn and "fastText" in drawn and "recipe paper" not in drawn
    assert not (folder / "seconds.svg").exists()


def test_the_pages_show_the_stored_results(tmp_path):
    """Tables that were not written again after a measurement would be stale."""
    root = Path(__file__).parents[2]
    for page in ("README.md", "docs/recipe.md"):
        copy = tmp_path / Path(page).name
        copy.write_text((root / page).read_text(encoding="utf-8"), encoding="utf-8")
        assert report.refresh(copy, root / "results" / "recipe")
        assert copy.read_text(encoding="utf-8") == (root / page).read_text(encoding="utf-8")


def test_a_run_shows_its_tables(toy_data, counted, monkeypatch, tmp_path):
    asked = {"one": Question("What if?", {"base": SMALL, "[CLS]": SMALL.but(pooling="first")})}
    monkeypatch.setattr(questions, "QUESTIONS", asked)
    command = "recipe run one --tasks ag --seeds 1 --workers 1 --results"
    assert "0 done, 0 found, 2 left, 0 failed" in done(f"{command} {tmp_path} --minutes 0").out
    out = done(command, tmp_path).out
    assert "What if?\n| task | variant |" in out and "2 done, 0 found, 0 left, 0 failed" in out
    assert [(cell.task, cell.seed) for cell in counted] == [("ag", 0)] * 2


def test_wrong_names_are_refused(tmp_path):
    assert "pooling, consistency" in refused(tinylm("recipe run weather --results", tmp_path))
    assert "frdev, ag, db" in refused(tinylm("recipe run --tasks agnews --results", tmp_path))
    assert "expected a Markdown" in refused(tinylm("recipe report", tmp_path / "absent.md"))
    assert not list(tmp_path.iterdir())
