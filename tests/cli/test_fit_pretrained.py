"""A fit whose encoders begin with a pre-trained model."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch

from helpers.command import done, record_of, refused, sentence, tinylm
from helpers.fitting import (
    FakeClock,
    Watched,
    labelled,
    labelled_texts,
    recipe,
    settings,
    tiny,
    watch_finetunings,
)
from tinylm import TinyTextClassifier
from tinylm.errors import InputError
from tinylm.fit import member
from tinylm.fit.pipeline import fit_committee
from tinylm.fit.pretrained import read_pretrained
from tinylm.infer.committee import load_committee
from tinylm.model.heads import MaskedLanguageModel
from tinylm.model.huggingface import for_shorter_texts, load_masked_language_model
from tinylm.ops.packed import make_batch
from tinylm.text.tokenizer import load_tokenizer


@pytest.fixture
def trainings(monkeypatch: pytest.MonkeyPatch) -> list[Watched]:
    """All fine-tunings; a pre-training fails."""
    monkeypatch.setattr(member, "pretrain", lambda *a, **k: pytest.fail("something was pre-trained"))
    return watch_finetunings(monkeypatch)


def test_all_encoders_begin_with_it(home: Path, trainings: list[Watched]) -> None:
    texts, labels = labelled(60)
    classifier = tiny(pretrained="pretrained", members=2, max_tokens=128, recipe=recipe(1, 2))
    fitted = classifier.fit_for_report(texts, labels, compare=True).fitted_
    starts = [one.start for one in trainings if one.label.endswith(member.FINETUNING)]
    expected = load_masked_language_model(Path("pretrained")).state_dict()
    assert len(starts) == 2
    for start in starts:
        for name, weight in start.state_dict().items():
            torch.testing.assert_close(weight, expected[name], atol=0, rtol=0)
    one, other = (reader.weights for reader in fitted.committee.readers)
    assert any((one[name].data != other[name].data).any() for name in one)  # fine-tuned with other seeds
    config = load_masked_language_model(Path("pretrained")).config
    assert [one.start for one in trainings if one.label.endswith(member.WITHOUT)] == [config] * 2


def test_what_it_has_read_is_counted(home: Path) -> None:
    texts, labels = labelled(60)
    fitted = tiny(pretrained="pretrained", recipe=recipe(1, 1)).fit(texts, labels).fitted_
    tokenizer = load_tokenizer("pretrained")
    corpus = Path("corpus.txt").read_text(encoding="utf-8").splitlines()
    read, task = (set(tokenizer.encode(part, 128).ids.tolist()) for part in (corpus, texts))
    assert (fitted.coverage.paragraphs, fitted.coverage.t_w) == (400, len(read))
    assert (fitted.coverage.t_c, fitted.coverage.t_m) == (len(task), len(task - read))


def test_all_of_the_time_is_for_fine_tuning(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = watch_finetunings(monkeypatch)
    pretrained = read_pretrained("pretrained", 24)
    for given in (None, pretrained):
        clock = FakeClock()
        clock.work_takes(monkeypatch, lambda run: 0.15)
        begin = clock.now
        # R-Drop needs 113 of 150 steps: 40 % of 38 s are too little for them, all of it is not.
        fit_committee(labelled_texts(320), settings(seconds=40, pretrained=given, clock=clock, cache=False))
        assert clock.now - begin <= 38.1
        assert seen[-1].recipe.finetune.consistency == (0 if given is None else 4)
        reads = [isinstance(run.model, MaskedLanguageModel) for run in clock.steps]
        assert any(reads) == (given is None)


def test_a_model_of_huggingface(home: Path, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    tokenizer = load_tokenizer("pretrained")
    shape = {"hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 512}
    config = transformers.BertConfig(vocab_size=len(tokenizer), max_position_embeddings=64, **shape)
    transformers.BertForMaskedLM(config).save_pretrained(tmp_path / "theirs")
    transformers.AutoTokenizer.from_pretrained("pretrained").save_pretrained(tmp_path / "theirs")
    outcome = done(
        f"fit task.csv --pretrained {tmp_path / 'theirs'} --members 1 --max-tokens 32 --budget none --out",
        tmp_path / "ours",
    )
    assert "report.html" in outcome.out
    committee = load_committee(tmp_path / "ours")
    (reader,) = committee.readers
    assert (reader.config.layers, reader.config.heads, reader.config.max_tokens) == (2, 2, 32)
    card = (tmp_path / "ours" / "README.md").read_text(encoding="utf-8")
    assert "of the model `theirs`, which does not say what it has read" in card and "T_M" not in card
    page = (tmp_path / "ours" / "report.html").read_text(encoding="utf-8")
    assert "All encoders began with the pre-trained model <code>theirs</code>" in page and "T_M" not in page


def test_a_model_for_shorter_texts_reads_them_as_before(home: Path) -> None:
    model = load_masked_language_model(Path("pretrained"))
    shorter = for_shorter_texts(model, 16)
    assert shorter.config.max_tokens == 16
    texts = load_tokenizer("pretrained").encode([sentence("sea", random.Random(i)) for i in range(4)], 16)
    batch, _ = make_batch(texts, range(4), 16)
    with torch.no_grad():
        everything = torch.arange(len(batch.ids))
        torch.testing.assert_close(shorter(batch, everything), model(batch, everything), atol=0, rtol=0)


def test_the_command_says_what_was_read_and_resumes(home: Path, tmp_path: Path, monkeypatch: Any) -> None:
    command = f"fit task.csv --pretrained pretrained --members 2 --budget none --out {tmp_path / 'model'}"
    monkeypatch.setattr("tinylm.fit.estimator.worker_count", lambda n_jobs: 1)
    with monkeypatch.context() as patch:
        first = watch_finetunings(patch, dies_at=3)
        assert tinylm(command).code == 130
    again = watch_finetunings(monkeypatch)
    done(command)
    assert {one.label for one in again}.isdisjoint(one.label for one in first[:2])
    facts = record_of(tmp_path / "model")["facts"]
    assert facts["pretrained"] == "pretrained" and facts["coverage"]["paragraphs"] == 400
    assert facts["corpus"]["corpus"] == "corpus.txt"
    page = (tmp_path / "model" / "report.html").read_text(encoding="utf-8")
    assert "corpus.txt, read by the model that the encoders began with" in page
    assert "trained for 4, 4 epochs, a number set beforehand" in page  # of the recipe
    again = TinyTextClassifier.from_pretrained(tmp_path / "model")
    assert again.pretrained == "pretrained"


def test_the_largest_committee_that_fits_keeps_the_vocabulary(home: Path, tmp_path: Path) -> None:
    texts, labels = labelled(60)
    sizes = {}
    for wanted in (None, "250KB", "140KB"):
        classifier = tiny(
            pretrained="pretrained", members=3, max_size=wanted, tfidf_member=False, recipe=recipe(1, 1)
        ).fit(texts, labels)
        classifier.save_pretrained(tmp_path / str(wanted))
        files = [path for path in (tmp_path / str(wanted)).rglob("*") if path.is_file()]
        form = classifier.fitted_.form
        sizes[wanted] = (form.encoders, form.int8, sum(path.stat().st_size for path in files))
        (vocabulary,) = {len(reader.tokenizer) for reader in classifier.committee_.readers}
        assert vocabulary == len(load_tokenizer("pretrained"))
    assert sizes[None][:2] == (3, False)
    assert sizes["250KB"][1] and sizes["250KB"][2] <= 250_000
    assert sizes["140KB"][0] < sizes["250KB"][0] and sizes["140KB"][2] <= 140_000


def test_few_texts_without_labels_are_said_to_be_unused(home: Path) -> None:
    texts, labels = labelled(60)
    for count, unused in ((20, True), (80, False)):
        more, _ = labelled(count, seed=1)
        classifier = tiny(pretrained="pretrained", unlabelled=more, recipe=recipe(1, 1)).fit(texts, labels)
        said = any("nothing was learned from them" in sentence for sentence in classifier.data_warnings_)
        assert said == unused == (classifier.fitted_.self_taught == 0)


def test_a_student_learns_from_the_corpus_too(home: Path) -> None:
    texts, labels = labelled(60)
    fitted = (
        tiny(pretrained="pretrained", corpus="corpus.txt", student=True, recipe=recipe(1, 2))
        .fit(texts, labels)
        .fitted_
    )
    assert len(fitted.committee.members) == 1 and fitted.teacher is not None
    assert fitted.corpus["corpus"] == "corpus.txt" and fitted.coverage.paragraphs == 400


def test_what_is_refused(home: Path, tmp_path: Path) -> None:
    out = f"--out {tmp_path / 'out'}"
    assert "nothing-here is not a folder; expected one that 'tinylm pretrain' wrote" in refused(
        tinylm(f"fit task.csv --pretrained nothing-here {out}")
    )
    assert "classifier" in refused(tinylm(f"fit task.csv --pretrained classifier {out}"))
    assert "max_tokens is 200; expected at most 128, as pretrained has." in refused(
        tinylm(f"fit task.csv --pretrained pretrained --max-tokens 200 {out}")
    )
    assert not (tmp_path / "out").exists()
    with pytest.raises(InputError, match="nothing-here is not a folder"):
        tiny(pretrained="nothing-here").check_parameters()
