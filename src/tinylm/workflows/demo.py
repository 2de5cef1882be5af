"""The main job on the embedded corpus: pre-train, fine-tune, compare, combine.

`tinylm demo` shows on 10,000 Wikipedia openings what the paper shows on six million:
a gap between a model with and one without pre-training, and a soft committee of
shallow models beside a deep one. Test articles never enter pre-training, and no
figure is chosen on them.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from tinylm.infer.baselines import tfidf_accuracy
from tinylm.infer.classifier import Classifier
from tinylm.infer.committee import Committee
from tinylm.infer.latency import measure_latency
from tinylm.model.config import ModelConfig
from tinylm.model.heads import MaskedLanguageModel
from tinylm.report.demo import DemoResults, Trained, write_demo_report
from tinylm.system.files import check_new, new_folder, write_record
from tinylm.system.processes import run_side_by_side
from tinylm.system.progress import progress_log
from tinylm.text.coverage import Coverage, coverage
from tinylm.text.prepare import TokenizedCorpus, prepare
from tinylm.text.tasks import load_task
from tinylm.train.finetune import EncodedTask, Finetuned, accuracy_of, encode_task, finetune
from tinylm.train.pretrain import pretrain
from tinylm.train.recipes import RECIPES

TASK = "vital-topics"
TRIALS = 3
# A larger vocabulary than the recipe's: what cross-validation on the training articles
# preferred among settings that take a few minutes.
RECIPE = RECIPES["fast"].model_copy(update={"vocabulary": 16_000})
LATENCY_TEXTS = 100

# A deep model and three shallow ones of different width. Table 8 also varies the
# convolutions in front, which would not fit into a few minutes.
DEEP = {"layers": 3, "heads": 2}
MEMBERS = [{"layers": 1, "heads": heads} for heads in (1, 2, 3)]


@progress_log()
def run_demo(out: Path, seed: int = 0) -> DemoResults:
    """Run the main job on `vital` and write a report and a classifier.

    Args:
        out: a new folder; it will hold `report.html`, `classifier/` (the committee) and
            `tinylm.json`.
        seed: of the first trial; the others follow.

    Returns:
        What the report shows.
    """
    console = Console()
    check_new(out)
    start = time.monotonic()
    task = load_task(TASK)
    corpus = prepare("vital", vocabulary=RECIPE.vocabulary, max_tokens=RECIPE.max_tokens, strip_accents=True)
    tokenizer = corpus.tokenizer
    encoded = encode_task(task, tokenizer, RECIPE.max_tokens)
    texts = tokenizer.encode([*task.train_texts, *task.test_texts], RECIPE.max_tokens)
    found = coverage(corpus.paragraphs, texts, len(tokenizer))
    console.print(_coverage_table(found))
    tfidf = tfidf_accuracy(task)

    # What takes longest begins first, so that no core is left waiting in the end.
    shapes = [DEEP, *reversed(MEMBERS)]
    configs = [RECIPE.model_config_for(len(tokenizer), **shape) for shape in shapes]
    console.print(f"Pre-training and fine-tuning {len(configs)} models; this takes a few minutes.")
    jobs = [
        # The report follows the first member through its epochs.
        (config, corpus, encoded, seed + number, pretrained, shapes[number] == MEMBERS[0])
        for number, config in enumerate(configs)
        for pretrained in (True, False)
    ]
    trials = iter(run_side_by_side(_trials, jobs))
    deep, *members = [Trained(config.name, config, next(trials), next(trials)) for config in configs]
    members.reverse()
    fields = [
        np.sum([member.with_pretraining[trial].test_logits for member in members], axis=0)
        for trial in range(TRIALS)
    ]
    committee = Committee(
        [Classifier.of(member.with_pretraining[0].model, tokenizer, task.label_names) for member in members]
    )
    alone = {
        "deep": Classifier.of(deep.with_pretraining[0].model, tokenizer, task.label_names),
        "member": committee.members[0],
    }
    rivals = {name: Committee([member]).predict for name, member in alone.items()}
    rivals["committee"] = committee.predict
    latencies = measure_latency(
        list(rivals.values()), task.test_texts[:: len(task.test_texts) // LATENCY_TEXTS]
    )
    results = DemoResults(
        label_names=task.label_names,
        test_labels=task.test_labels,
        coverage=found,
        deep=deep,
        members=members,
        committee=[accuracy_of(field, task.test_labels) for field in fields],
        committee_logits=fields[0],
        tfidf=tfidf,
        latency=dict(zip(rivals, latencies, strict=True)),
        seconds=time.monotonic() - start,
        train_texts=len(task.train_texts),
    )
    with new_folder(out) as folder:
        committee.save(folder / "classifier")
        write_demo_report(results, folder / "report.html")
        facts = {"seed": seed, "recipe": RECIPE.model_dump(mode="json"), "corpus": corpus.meta}
        write_record(folder / "classifier", "committee", **facts)
        write_record(folder, "demo", **facts, figures=_figures(results))
    console.print(_accuracy_table(results))
    console.print(
        f"{results.seconds / 60:.1f} minutes. Report: {out / 'report.html'}. Now try:\n"
        f'  tinylm predict {out / "classifier"} "The striker scored twice in the final."',
        highlight=False,
        soft_wrap=True,
    )
    return results


def _trials(
    config: ModelConfig,
    corpus: TokenizedCorpus,
    task: EncodedTask,
    seed: int,
    pretrained: bool,
    test_each_epoch: bool,
) -> list[Finetuned]:
    """Fine-tune one architecture several times, from pre-trained weights or without any."""
    start: MaskedLanguageModel | ModelConfig = config
    if pretrained:
        start, _ = pretrain(
            corpus.paragraphs,
            corpus.tokenizer,
            config,
            RECIPE,
            seed=seed,
            label=f"{config.name}: pre-training",
        )
    what = "fine-tuning" if pretrained else "no pre-training"
    return [
        finetune(
            task,
            corpus.tokenizer,
            start,
            RECIPE,
            seed=seed + trial,
            label=f"{config.name}: {what}, trial {trial + 1} of {TRIALS}",
            test_each_epoch=test_each_epoch,
        )
        for trial in range(TRIALS)
    ]


def _mean_and_deviation(values: Sequence[float]) -> str:
    return f"{np.mean(values):.3f} ± {np.std(values, ddof=1):.3f}"


def _accuracies(runs: list[Finetuned]) -> list[float]:
    return [run.accuracy for run in runs]


def _coverage_table(found: Coverage) -> Table:
    table = Table(title="Pre-training text and the tokens of the task", box=SIMPLE)
    for column in ("W_S", "T_W", "T_C", "T_M", "frequency-weighted overlap"):
        table.add_column(column, justify="right")
    counts = (found.paragraphs, found.t_w, found.t_c, found.t_m)
    table.add_row(*(f"{count:,}" for count in counts), f"{found.weighted_overlap:.4f}")
    return table


def _accuracy_table(results: DemoResults) -> Table:
    title = f"Topic of an article: accuracy on {len(results.test_labels):,} held-out articles"
    table = Table(title=title, box=SIMPLE, padding=(0, 1, 0, 0))
    table.add_column("model")
    for column in ("layers", "no pre-training", "pre-trained", "gap", "ms"):
        table.add_column(column, justify="right")
    measured = {
        results.members[0].name: results.latency["member"],
        results.deep.name: results.latency["deep"],
    }
    for trained in [*results.members, results.deep]:
        table.add_row(
            trained.name,
            str(trained.config.layer_count),
            _mean_and_deviation(_accuracies(trained.without)),
            _mean_and_deviation(_accuracies(trained.with_pretraining)),
            _mean_and_deviation(trained.gaps.tolist()),
            f"{measured[trained.name].p50:.2f}" if trained.name in measured else "",
        )
    committee = _mean_and_deviation(results.committee)
    latency = f"{results.latency['committee'].p50:.2f}"
    table.add_section()
    table.add_row("soft committee of BERT-1", "", "", committee, "", latency)
    table.add_row("TF-IDF + logistic", "", f"{results.tfidf:.3f}", "", "", "")
    return table


def _figures(results: DemoResults) -> dict[str, Any]:
    """The figures of the tables, for `tinylm.json`."""
    return {
        "coverage": asdict(results.coverage),
        "models": {
            trained.name: {
                "with_pretraining": _accuracies(trained.with_pretraining),
                "without": _accuracies(trained.without),
                "gap": trained.gaps.tolist(),
            }
            for trained in [*results.members, results.deep]
        },
        "committee": results.committee,
        "tfidf": results.tfidf,
        "latency_ms": {name: asdict(latency) for name, latency in results.latency.items()},
        "seconds": results.seconds,
    }
