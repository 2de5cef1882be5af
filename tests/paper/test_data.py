"""What cells are made of: corpora of several files, tasks at another size, reverse selections."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from tinylm.errors import UserError
from tinylm.infer.baselines import fasttext_accuracy
from tinylm.paper.data import Materials
from tinylm.paper.preset import Preset, Sources, load_preset
from tinylm.paper.public import find_public
from tinylm.paper.spec import Selection, TaskSpec
from tinylm.text.select import reverse_rows, reverse_share_rows
from tinylm.text.store import TokenIds
from tinylm.text.tasks import hold_out, load_task


def write_rows(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps({"title": title, "text": text}) + "\n" for title, text in rows))


def test_a_title_has_one_opening_and_any_number_of_further_paragraphs(tmp_path, monkeypatch):
    monkeypatch.setenv("TINYLM_DATA", str(tmp_path))
    monkeypatch.setenv("TINYLM_CACHE", str(tmp_path / "cache"))
    words = [f"the river number {n} rises in the hills and flows into the sea" for n in range(6)]
    write_rows(tmp_path / "w" / "first.jsonl", [("A", words[0]), ("B", words[1])])
    write_rows(tmp_path / "w" / "second.jsonl", [("B", words[2]), ("C", words[3])])
    write_rows(tmp_path / "w" / "body.jsonl", [("A", words[4]), ("A", words[5])])
    preset = Preset.model_validate(
        {
            "recipe": "fast",
            "vocabulary": 300,
            "corpus": {"articles": ["w/first.jsonl", "w/second.jsonl"], "further": ["w/body.jsonl"]},
        }
    )
    paragraphs = Materials(preset).corpus.paragraphs
    assert len(paragraphs) == 5  # B of the second file is left out
    with pytest.raises(UserError, match="corpus file w/lost.jsonl is in none of .*title and text"):
        Materials(preset.model_copy(update={"corpus": Sources(articles=["w/lost.jsonl"])}))


@pytest.fixture(scope="module")
def materials(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TINYLM_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield Materials(load_preset("smoke").model_copy(update={"max_train_texts": 30, "max_test_texts": 12}))


def test_a_smaller_task_keeps_the_tokens_of_the_whole_one(materials):
    spec = TaskSpec(name="vital-topics", labels=[0, 1, 2], train_per_label=40, test_per_label=20)
    data = materials.of(spec)
    assert (len(data.task.train_texts), len(data.validation), len(data.task.test_texts)) == (30, 9, 12)
    whole = load_task("vital-topics", labels=[0, 1, 2], train_per_label=40, test_per_label=20)
    assert len(data.tokens) == len(whole.train_texts) + len(whole.test_texts)
    # Nothing that is trained on is tested, and validation texts are neither.
    assert set(data.task.train_texts) <= set(whole.train_texts)
    assert set(data.task.test_texts) <= set(whole.test_texts)
    rest = set(whole.train_texts) - set(data.task.train_texts)
    validation = [materials.tokenizer.encode([text], 24).ids.tolist() for text in rest]
    assert all(data.validation[row].tolist() in validation for row in range(len(data.validation)))


def test_held_out_rows_are_no_training_rows(materials):
    held = materials.of(
        TaskSpec(name="vital-topics", labels=[0, 1], train_per_label=12, test_per_label=5, hold_out=4)
    )
    assert len(held.task.train_texts) == 2 * 8 and len(held.validation) == 2 * 3


def test_a_share_of_the_training_rows_serves_validation(materials):
    share = materials.preset.model_copy(update={"validation_share": 0.25, "max_train_texts": None})
    data = Materials(share).of(
        TaskSpec(name="vital-topics", labels=[0, 1], train_per_label=12, test_per_label=5, hold_out=4)
    )
    # A quarter of 12 rows of each label; `hold_out` asks for nothing beyond it.
    assert np.bincount(data.validation_labels).tolist() == [3, 3]
    assert np.bincount(data.task.train_labels).tolist() == [9, 9]
    whole = load_task("vital-topics", labels=[0, 1], train_per_label=12, test_per_label=5)
    assert data.task.fingerprint != whole.fingerprint != hold_out(whole, 9)[0].fingerprint


def test_a_t_m_out_of_reach_is_approached(materials):
    spec = TaskSpec(name="vital-topics", labels=[0, 1], train_per_label=40, test_per_label=20)
    found = Materials(materials.preset.model_copy(update={"paper_t_m": True}))

    def t_m(missing: int | None) -> int:
        selection = Selection(select="mismatched", size=500, missing=missing)
        return found.coverage(selection, 500, spec).t_m

    t_c, largest = int(found.of(spec).in_task.sum()), t_m(None)
    assert t_m(t_c) == largest < t_c  # what 500 paragraphs allow
    assert t_m(largest // 2) == pytest.approx(largest // 2, abs=0.05 * t_c)


def test_a_reduced_vocabulary_knows_the_tokens_of_w_s_alone(materials):
    spec = TaskSpec(name="vital-topics", labels=[0, 1], train_per_label=60, test_per_label=20)
    selection = Selection(select="random", size=50)
    full, reduced = materials.paragraphs(selection, 50, spec), materials.reduced(selection, 50, spec)
    used = set(full.ids.tolist()) | set(materials.tokenizer.special_ids)
    assert len(reduced.tokenizer) == len(used) < len(materials.tokenizer)
    # The same words, by other numbers.
    before, after = materials.tokenizer.vocab, reduced.tokenizer.vocab
    for row in range(50):
        assert [before[i] for i in full[row]] == [after[i] for i in reduced.paragraphs[row]]
    encoded = reduced.tokenizer.encode(reduced.data.task.test_texts, materials.preset.max_tokens)
    np.testing.assert_array_equal(reduced.data.encoded.test.ids, encoded.ids)
    assert len(reduced.data.validation) == len(materials.of(spec).validation) > 0
    assert reduced.data.tokens is materials.of(spec).tokens


def test_a_reverse_selection_has_no_more_paragraphs_than_are_custom_made(materials):
    spec = TaskSpec(name="vital-topics", labels=[0, 1], train_per_label=60, test_per_label=20)
    custom_made = materials.paragraphs(Selection(select="custom-made"), None, spec)
    size = len(custom_made) + 1000
    for absent in ("none", "many"):
        chosen = materials.paragraphs(Selection(select="reverse", size=size, absent=absent), size, spec)
        assert len(chosen) == len(custom_made) > 0


def test_the_rows_of_stored_cells_are_still_those_of_the_real_tasks(data_folder):
    """Fingerprints that cells of results/paper/cpu hold."""
    agnews = load_task("agnews", train_per_label=325 + 20, test_per_label=350)
    assert hold_out(agnews, 325)[0].fingerprint == "6d871de30f480f2a-325"
    labels = [5, 10, 11, 16, 17, 25, 27, 33, 36, 39]
    fewrel = load_task("fewrel", labels=labels, train_per_label=130 + 20, test_per_label=70)
    assert hold_out(fewrel, 130)[0].fingerprint == "3b9fa86d5141124d-130"


def paragraphs_with_absent_tokens() -> tuple[TokenIds, np.ndarray]:
    """4,000 paragraphs, some with tokens outside a task; the mask of its tokens."""
    rng = np.random.default_rng(0)
    in_task = np.zeros(400, bool)
    in_task[:200] = True
    paragraphs = []
    for _ in range(4000):
        share = rng.choice([0.0, 0.0, 0.3, 0.6])
        # Rare and frequent tokens, as in text.
        inside = np.minimum(rng.zipf(1.3, 12), 195) + 4
        outside = 200 + np.minimum(rng.zipf(1.3, 12), 199)
        paragraphs.append([2, *np.where(rng.random(12) < share, outside, inside), 3])
    ids = TokenIds.from_lists(paragraphs)
    in_task[[2, 3]] = True
    return ids, in_task


def test_shares_of_absent_tokens_are_reached_at_one_t_m():
    ids, in_task = paragraphs_with_absent_tokens()
    t_m = []
    for share in (0.0, 0.1, 0.25, 0.4):
        rows = reverse_share_rows(ids, in_task, 100, share)
        assert len(set(rows.tolist())) == 100
        tokens = {token for row in rows for token in ids[row].tolist()}
        outside = sum(not in_task[token] for token in tokens)
        assert outside / len(tokens) == pytest.approx(share, abs=0.04)
        t_m.append(len(set(np.flatnonzero(in_task).tolist()) - tokens))
    assert max(t_m) - min(t_m) <= 10
    most = reverse_share_rows(ids, in_task, 100, 1.0)  # out of reach: the most there is
    tokens = np.unique(np.concatenate([ids[row] for row in most]))
    assert np.mean(~in_task[tokens]) > 0.4
    with pytest.raises(UserError, match="consist solely of"):
        reverse_share_rows(ids, in_task, 3900, 0.5)


def test_reverse_selections_differ_only_in_the_tokens_absent_from_the_task():
    ids, in_task = paragraphs_with_absent_tokens()
    chosen = reverse_rows(ids, in_task, 100)
    absent, t_m = {}, {}
    for name, rows in chosen.items():
        assert len(set(rows.tolist())) == 100
        tokens = np.concatenate([ids[row] for row in rows])
        absent[name] = float(np.mean(~in_task[tokens]))
        t_m[name] = len(set(np.flatnonzero(in_task)) - set(tokens.tolist()))
    assert absent["none"] == 0 < absent["some"] < absent["many"]
    assert max(t_m.values()) - min(t_m.values()) <= 10


def test_fasttext_learns_what_words_tell_in_whatever_order_the_rows_are():
    """Rows are stored label after label, in which fastText would forget the first labels."""
    task = load_task("vital-topics", train_per_label=50, test_per_label=30)
    assert sorted(task.train_labels) == task.train_labels.tolist()
    mixed = np.random.default_rng(1).permutation(len(task.train_texts))
    shuffled = replace(
        task,
        train_texts=[task.train_texts[row] for row in mixed],
        train_labels=task.train_labels[mixed],
    )
    assert fasttext_accuracy(task) > fasttext_accuracy(shuffled) - 0.05 > 0.5


def test_a_public_model_that_is_nowhere_says_where_to_put_it(tmp_path, monkeypatch):
    monkeypatch.setenv("TINYLM_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)  # read from the environment once
    monkeypatch.delenv("TINYLM_DATA", raising=False)
    with pytest.raises(UserError, match=r"could not be downloaded .* config.json and model.safetensors into"):
        find_public("nobody/no-such-model", 30522)
