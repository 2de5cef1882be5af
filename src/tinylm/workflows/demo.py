"""The main job on the built-in sample `vital`: pre-train, fine-tune, compare, combine.

`tinylm demo` shows on 10,000 Wikipedia openings what the paper shows on six million:
a gap between a model with and one without pre-training, and a soft committee of
shallow models beside a deep one. Test articles never enter pre-training, and no
figure is chosen on them: a part of the labelled articles, the validation part,
calibrates the committee.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from scipy.special import softmax

from tinylm.fit.budget import RIVAL_TIMES, enough_epochs
from tinylm.fit.early_stopping import finetune_until_best
from tinylm.infer.baselines import linear_svm_on
from tinylm.infer.calibration import fit_temperature, reliability
from tinylm.infer.classifier import Classifier
from tinylm.infer.committee import Committee
from tinylm.infer.latency import Latency, measure_latency
from tinylm.model.config import ModelConfig
from tinylm.model.heads import MaskedLanguageModel
from tinylm.model.logits import logits_of
from tinylm.report.demo import DemoResults, Trained, Trial, write_demo_report
from tinylm.report.tables import coverage_table
from tinylm.system.files import check_new, new_folder, write_record
from tinylm.system.processes import run_side_by_side
from tinylm.system.progress import progress_log
from tinylm.text.coverage import coverage
from tinylm.text.prepare import TokenizedCorpus, prepare
from tinylm.text.store import TokenIds
from tinylm.text.tasks import load_task, split_rows
from tinylm.train.finetune import EncodedTask, accuracy_of
from tinylm.train.pretrain import pretrain
from tinylm.train.recipes import RECIPES, Recipe

LATENCY_TEXTS = 100
Shape = Mapping[str, int]


@dataclass(frozen=True)
class DemoSettings:
    """What the demo trains; tests train something smaller.

    Attributes:
        task: see `load_task`.
        train_per_label: labelled texts of each label, beside those for the test: few, as users have them.
        validation: share of the labelled texts that calibrates the committee.
        corpus: for pre-training, see `prepare`.
        recipe: of all models; texts are cut short, so that it takes a few minutes, and pre-training is
            masked language modelling alone, as in the paper.
        deep: shape of the deep model.
        members: shapes of the shallow ones, of different width. Table 8 of the paper also varies
            the convolutions in front, which would not fit into a few minutes.
        trials: fine-tunings of each.
        example: a text to try the committee on: about one of the topics, and not in the corpus.
    """

    task: str | Path = "vital-topics"
    train_per_label: int | None = 32
    validation: float = 1 / 6
    corpus: str = "vital"
    recipe: Recipe = RECIPES["fast"].model_copy(update={"max_tokens": 64, "bag_of_words": None})
    deep: Shape = field(default_factory=lambda: {"layers": 3, "heads": 2})
    members: Sequence[Shape] = tuple({"layers": 1, "heads": heads} for heads in (1, 2, 3))
    trials: int = 3
    example: str = "The planet has a thin atmosphere and two small moons."


@progress_log()
def run_demo(out: Path, seed: int = 0, settings: DemoSettings = DemoSettings()) -> DemoResults:  # noqa: B008
    """Run the main job and write a report and a classifier.

    Args:
        out: a new folder; it will hold `report.html`, `classifier/` (the committee) and
            `tinylm.json`.
        seed: of the first trial; the others follow.
        settings: what is trained, and on what.

    Returns:
        What the report shows.
    """
    console = Console()
    check_new(out)
    start = time.monotonic()
    recipe = settings.recipe
    task = load_task(settings.task, train_per_label=settings.train_per_label)
    corpus = prepare(
        settings.corpus, vocabulary=recipe.vocabulary, max_tokens=recipe.max_tokens, strip_accents=True
    )
    tokenizer = corpus.tokenizer
    ids = tokenizer.encode([*task.train_texts, *task.test_texts], recipe.max_tokens)
    test = ids.take(np.arange(len(task.train_texts), len(ids)))
    split = split_rows(task.train_texts, task.train_labels, settings.validation, seed)
    learnt = EncodedTask(
        ids.take(split.train),
        task.train_labels[split.train],
        ids.take(split.validation),
        task.train_labels[split.validation],
        len(task.label_names),
    )
    found = coverage(corpus.paragraphs, ids, len(tokenizer))
    console.print(coverage_table(found))
    baseline = linear_svm_on(task)
    assert baseline is not None  # articles hold words

    shapes = [settings.deep, *reversed(settings.members)]
    configs = [recipe.model_config_for(len(tokenizer), **shape) for shape in shapes]
    console.print(f"Pre-training and fine-tuning {len(configs)} models; this takes a few minutes.")
    # The longest jobs start first, so that no core waits at the end.
    jobs = [
        (config, corpus, learnt, test, task.test_labels, settings, seed + number, pretrained)
        for number, config in enumerate(configs)
        for pretrained in (True, False)
    ]
    trials = iter(run_side_by_side(_trials, jobs))
    deep, *members = [Trained(config.name, config, next(trials), next(trials)) for config in configs]
    members.reverse()

    summed = [
        np.sum([member.with_pretraining[trial].test_logits for member in members], axis=0)
        for trial in range(settings.trials)
    ]
    validation_logits = np.sum([member.with_pretraining[0].validation_logits for member in members], axis=0)
    committee = Committee(
        [Classifier.of(member.with_pretraining[0].model, tokenizer, task.label_names) for member in members],
        temperature=fit_temperature(validation_logits, learnt.test_labels),
    )
    probabilities = softmax(summed[0] / committee.temperature, axis=1)
    calibration_error, _ = reliability(probabilities.max(1), probabilities.argmax(1) == task.test_labels)
    results = DemoResults(
        label_names=task.label_names,
        test_labels=task.test_labels,
        coverage=found,
        deep=deep,
        members=members,
        committee=[accuracy_of(logits, task.test_labels) for logits in summed],
        committee_logits=summed[0],
        calibration_error=calibration_error,
        linear_svm=baseline,
        latency=_latencies(
            Classifier.of(deep.with_pretraining[0].model, tokenizer, task.label_names),
            committee,
            task.test_texts[:: max(1, len(task.test_texts) // LATENCY_TEXTS)],
        ),
        seconds=time.monotonic() - start,
        train_texts=len(split.train),
        validation_texts=len(split.validation),
    )
    _write(out, committee, results, seed, settings, corpus.meta)
    console.print(results.table())
    console.print(
        f"{results.seconds / 60:.1f} minutes. Report: {out / 'report.html'}. Now try:\n"
        f'  tinylm predict {out / "classifier"} "{settings.example}"',
        highlight=False,
        soft_wrap=True,
    )
    return results


def _trials(
    config: ModelConfig,
    corpus: TokenizedCorpus,
    learnt: EncodedTask,
    test: TokenIds,
    test_labels: np.ndarray,
    settings: DemoSettings,
    seed: int,
    pretrained: bool,
) -> list[Trial]:
    """Fine-tune one architecture several times, from pre-trained weights or without any."""
    start: MaskedLanguageModel | ModelConfig = config
    recipe, phase, what = settings.recipe, settings.recipe.finetune, "no pre-training"
    epochs = enough_epochs(phase.epochs, len(learnt.train), phase.batch_size)
    if pretrained:
        what, label = "fine-tuning", f"{config.name}: pre-training"
        start, _ = pretrain(corpus.paragraphs, corpus.tokenizer, config, recipe, seed=seed, label=label)
    else:
        epochs *= RIVAL_TIMES
    recipe = recipe.with_epochs(finetune=epochs)
    trials = []
    for trial in range(settings.trials):
        found = finetune_until_best(
            learnt,
            corpus.tokenizer,
            start,
            recipe,
            seed=seed + trial,
            label=f"{config.name}: {what}, trial {trial + 1} of {settings.trials}",
            patience=None,
        )
        logits = logits_of(found.model, test)
        validation = logits_of(found.model, learnt.test)
        trials.append(Trial(found.model, found.log, validation, logits, accuracy_of(logits, test_labels)))
    return trials


def _latencies(deep: Classifier, committee: Committee, texts: Sequence[str]) -> dict[str, Latency]:
    """Of the deep model, the first member and the committee, from a text to its label."""
    models = {"deep": Committee([deep]), "member": Committee(committee.members[:1]), "committee": committee}
    latencies = measure_latency([model.predict for model in models.values()], texts)
    return dict(zip(models, latencies, strict=True))


def _write(
    out: Path,
    committee: Committee,
    results: DemoResults,
    seed: int,
    settings: DemoSettings,
    corpus: dict[str, Any],
) -> None:
    """Write the folder of the demo, all or nothing."""
    with new_folder(out) as folder:
        committee.save(folder / "classifier")
        write_demo_report(results, folder / "report.html")
        facts = {"seed": seed, "recipe": settings.recipe.model_dump(mode="json"), "corpus": corpus}
        write_record(folder / "classifier", "committee", **facts)
        write_record(folder, "demo", settings={"seed": seed}, **facts, figures=results.figures())
