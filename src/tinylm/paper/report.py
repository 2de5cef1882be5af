"""The report: every table with the paper's value beside ours, and a plain verdict on each claim.

It is made from the small stored files alone, so a fresh clone can make it without data sets,
weights or logits. Sentences follow the figures wherever they fall.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tinylm.errors import UserError
from tinylm.paper import plots
from tinylm.paper.claims import MARGIN, Claim, claims, random_rows_of
from tinylm.paper.committees import store_committees
from tinylm.paper.open_questions import curve_of, open_questions
from tinylm.paper.preset import load_preset
from tinylm.paper.results import Folder, Results, open_results
from tinylm.paper.spec import table_names
from tinylm.paper.tokens import token_section
from tinylm.paper.tuned import COMPARED, TUNED, comparison
from tinylm.paper.view import Effort, PanelResult, RowResult, TableResult, efforts_of, load_results
from tinylm.report.document import (
    Block,
    Document,
    Grid,
    Plot,
    Points,
    Section,
    Text,
    html,
    markdown,
    write_plots,
)
from tinylm.report.format import count, interval_words, mean_deviation, number, signed
from tinylm.system.files import write_text

Others = Mapping[str, tuple[str, PanelResult]]  # preset and results of panels at other sizes, by name
METHODS = {
    "tfidf": "TF-IDF + logistic regression",
    "linear-svm": "linear SVM, words and characters",
    "fasttext": "fastText",
}
NOT_KNOBS = {"corpus", "leaves_out"}
DISCUSSION = "discussion.md"  # of a results folder: what differs from the paper and why, by hand
MARKS = {"shown": "✓ shown", "not shown": "not shown", "not run": "not run"}
MOST_NAMED = 4  # comparisons that a sentence names


@dataclass(frozen=True)
class Written:
    """A report.

    Attributes:
        markdown: its Markdown file.
        page: its HTML file.
        notes: a sentence for each stored file that was set aside.
    """

    markdown: Path
    page: Path
    notes: list[str]


def write_report(
    folder: Folder,
    out: Path | None = None,
    page: Path | None = None,
    beside: Folder | None = None,
) -> Written:
    """Write Markdown, HTML and plots from a results folder.

    Args:
        folder: the results; its `discussion.md`, where there is one, becomes a section.
        out: of the Markdown; `report.md` in the results folder when None. The plots stay in
            `plots/` of the results folder. Of results behind a URL, `out` is needed, and its folder
            takes the place of theirs.
        page: of the HTML; `report.html` in the results folder when None.
        beside: another results folder, whose accuracies and gaps stand beside these.

    Raises:
        UserError: no results there, an HTML file as `out`, or no `out` for results behind a URL.
    """
    if out is not None and out.suffix.lower() in (".html", ".htm"):
        raise UserError(f"out was {out}; expected a Markdown file. The HTML file is another, page.")
    if isinstance(folder, str) and out is None:
        raise UserError(f"`results` was {folder}; give a Markdown file on this machine, too (`out`).")
    results = _opened(folder)
    store_committees(results)  # of a run that was stopped before it could
    tables = load_results(results)
    document = build(
        tables,
        beside=load_results(_opened(beside)) if beside else [],
        efforts=efforts_of(results),
        discussion=results.text(DISCUSSION) or "",
    )
    here = folder if isinstance(folder, Path) else Path(out or "").parent
    out, page = out or here / "report.md", page or here / "report.html"
    plot_folder = here / "plots"
    for each in (plot_folder, out.parent, page.parent):
        each.mkdir(parents=True, exist_ok=True)
    write_plots(document, plot_folder)
    to_plots = _relative(plot_folder, out.parent)
    for path, text in ((out, markdown(document, to_plots)), (page, html(document))):
        write_text(path, text)
    return Written(out, page, results.notes)


def _opened(folder: Folder) -> Results:
    results = open_results(folder)
    results.refresh()
    return results


def build(
    tables: Sequence[TableResult],
    beside: Sequence[TableResult],
    efforts: Sequence[Effort],
    discussion: str,
) -> Document:
    """The report of some tables.

    Args:
        tables: the results.
        beside: those whose accuracies and gaps stand beside.
        efforts: who trained the cells.
        discussion: paragraphs on what differs from the paper, and why.
    """
    preset = tables[0].preset
    verdicts = claims(tables)
    others = {
        panel.name: (table.preset, panel)
        for table in beside
        for panel in table.panels
        if any(row.accuracy for row in panel.rows)
    }
    shown = [table for table in tables if table.panels and not table.spec.analysis]
    questions = open_questions(tables)
    answers = [[each.title, each.finding.answer] for each in questions]
    answers += [[table.spec.title, _committees_answer(table)] for table in shown if _is_question(table)]
    paragraphs = [Text(" ".join(each.split())) for each in discussion.split("\n\n") if each.strip()]
    sections = [
        Section(
            "The paper's claims", blocks=[_verdicts(verdicts), *_doubts(verdicts), *_gaps(tables, others)]
        ),
        *([Section("Where ours differ, and why", blocks=[*paragraphs])] if paragraphs else []),
        *(
            [Section("Open questions of the paper", blocks=[Grid(["question", "answer"], answers)])]
            if answers
            else []
        ),
        _how_it_was_run(tables, efforts),
        _legend(shown, others),
        *(section for table in shown if not _is_question(table) for section in _table(table, others)),
        *(section for table in shown if _is_question(table) for section in _table(table, others)),
        *(question.section for question in questions),
        *([section] if (section := token_section(tables)) else []),
        *_comparisons(verdicts),
        _limits(tables),
    ]
    trials = max(
        (len(row.accuracy) for table in tables for panel in table.panels for row in panel.rows), default=0
    )
    return Document(
        f"Tiny language models: the paper's tables, preset {preset}",
        f"Made by `tinylm paper report` from the results of `tinylm paper run all --preset {preset}`."
        " Values of the paper (Gross et al. 2025, arXiv 2507.14871) stand beside ours; what its text"
        f" does not state is left empty. Accuracies are mean ± standard deviation of up to {trials} trials,"
        " with nothing chosen on test data. Brackets hold 95 % intervals, in which trials that share a"
        " pre-training count as one.",
        sections,
    )


def _is_question(table: TableResult) -> bool:
    """Whether a table is ours and not the paper's, although it looks like one."""
    return table.name in table_names() and not table.name[-1].isdigit()


def _committees_answer(table: TableResult) -> str:
    """What the committees of an open question reach."""
    found = claims([table])
    evidence = [one for claim in found for one in claim.evidence]
    alone = sum(len(claim.alone) for claim in found)
    means = sorted(one.mean for claim in found for one in [*claim.evidence, *claim.alone])
    if not means:
        return "Not run."
    answer = f"Committee minus deep model: {' to '.join(dict.fromkeys(map(signed, (means[0], means[-1]))))}."
    if evidence:
        shown = sum(one.shown for one in evidence)
        answer += f" That the committee reaches it is shown in {shown} of {len(evidence)} comparisons."
    return answer + (f" {alone} have one trial and no interval." if alone else "")


def _verdicts(verdicts: Sequence[Claim]) -> Grid:
    """Each claim in one line: the paper's figures and ours, from the smallest to the largest."""
    rows = []
    for claim in verdicts:
        supporting = sum(one.shown for one in claim.evidence)
        printed = list(dict.fromkeys(map(signed, claim.printed[:1] + claim.printed[-1:])))
        found = list(dict.fromkeys(map(interval_words, claim.found[:1] + claim.found[-1:])))
        if not claim.evidence:
            means = sorted(one.mean for one in claim.alone)
            found = list(dict.fromkeys(map(signed, means[:1] + means[-1:])))
        verdict = MARKS[claim.verdict]
        if claim.verdict == "not shown" and supporting:
            verdict = f"shown in {supporting} of {len(claim.evidence)}"
        elif len(claim.evidence) > 1:
            verdict += f" ({supporting} of {len(claim.evidence)})"
        if claim.alone:
            verdict = f"{verdict}; {len(claim.alone)} with one trial" if claim.evidence else "one trial"
        rows.append([claim.text, " to ".join(printed), " to ".join(found), verdict])
    return Grid(
        ["the paper's claim", "the paper's number", "ours", "shown or not"],
        rows,
        "Differences of accuracy; where there are several comparisons, the smallest and the largest. A claim"
        " is ticked only where every comparison supports it by its 95 % interval; those of one trial have"
        " none and decide nothing. All of them stand below, under “The claims, comparison by comparison”.",
    )


def _doubts(verdicts: Sequence[Claim]) -> list[Block]:
    """The comparisons that do not support their claim, in words."""
    points = []
    for claim in verdicts:
        undecided = [one for one in claim.evidence if not one.shown and not one.opposed]
        opposed = [one for one in claim.evidence if one.opposed]
        for found, words in (
            (opposed, "the opposite is shown by"),
            (undecided, "the interval allows both for"),
        ):
            if found:
                named = [f"{one.what} ({interval_words(one.found)})" for one in found[:MOST_NAMED]]
                more = f", and {len(found) - MOST_NAMED} more" if len(found) > MOST_NAMED else ""
                points.append(f"{claim.text}: {words} {'; '.join(named)}{more}.")
    return [Text("What does not support its claim:"), Points(points)] if points else []


def _comparisons(verdicts: Sequence[Claim]) -> list[Section]:
    """Each claim with all that bears on it."""
    sections = [Section("The claims, comparison by comparison")]
    for claim in verdicts:
        if claim.evidence or claim.alone:
            rows = [
                [
                    one.what,
                    signed(one.paper),
                    interval_words(one.found),
                    "the opposite" if one.opposed else MARKS["shown" if one.shown else "not shown"],
                ]
                for one in claim.evidence
            ]
            rows += [[one.what, signed(one.paper), signed(one.mean), "one trial"] for one in claim.alone]
            grid = Grid(["comparison", "paper", "ours", "shown or not"], rows, f"Rule: {claim.rule}.")
            sections.append(Section(claim.text, 3, [grid]))
    return sections if len(sections) > 1 else []


def _gaps(tables: Sequence[TableResult], others: Others) -> list[Block]:
    """The gap against W_S of all tasks in one picture."""
    panels = [
        panel
        for table in tables
        for panel in table.panels
        if "growth" in panel.spec.claims and len(random_rows_of(panel)) > 1
    ]
    if not panels:
        return []
    words = "; ".join(
        f"{panel.name}: from {number(rows[0].gap)} at W_S {rows[0].w_s:,}"
        f" to {number(rows[-1].gap)} at {rows[-1].w_s:,}"
        for panel in panels
        for rows in [random_rows_of(panel)]
    )
    lost = [panel.name for panel in panels if all(row.paper.gap is None for row in panel.rows if row.w_s)]
    caption = (
        "The gap, accuracy with minus without pre-training, against W_S for all tasks. The paper's points"
        " belong to its own, larger models"
        + (f"; of {', '.join(lost)} its text prints none." if lost else ".")
    )
    shown = [others[panel.name] for panel in panels if panel.name in others]
    if shown:
        most = max(len(row.accuracy) for _, panel in shown for row in panel.rows)
        trials = "one trial each" if most == 1 else f"up to {most} trials each"
        caption += f" Triangles are of the preset {shown[0][0]}, {trials}, without an interval."
    return [Plot("gaps", plots.gaps_plot(panels, others), caption, words)]


def _how_it_was_run(tables: Sequence[TableResult], efforts: Sequence[Effort]) -> Section:
    """Devices, seconds and the settings in which the preset differs from the paper."""
    table = tables[0]
    points = [
        f"{effort.cells:,} cells (pre-trainings, fine-tunings and linear models) on {effort.device}:"
        f" {effort.seconds / 3600:.1f} hours in sum, several at a time."
        for effort in efforts
    ]
    corpus = table.knobs["corpus"]
    names = corpus if isinstance(corpus, str) else ", ".join([*corpus["articles"], *corpus["further"]])
    points.append(f"Pre-training text: {names}.")
    paper = load_preset("paper").model_dump(mode="json")
    rows = [
        [f"`{name}`", _plain(value), _plain(paper.get(name))]
        for name, value in table.knobs.items()
        if name not in NOT_KNOBS and value != paper.get(name)
    ]
    blocks: list[Block] = [Points(points)]
    if rows:
        blocks.append(
            Grid(
                ["setting", f"preset {table.preset}", "preset paper"],
                rows,
                "Everything else is the paper's. None stands for the value of the recipe or of the table.",
            )
        )
    else:
        blocks.append(Text("The sizes and hyper-parameters are the paper's."))
    return Section("How it was run", blocks=blocks)


def _legend(tables: Sequence[TableResult], others: Others) -> Section:
    """What the columns of the tables say, once for all of them."""
    panels = [panel for table in tables for panel in table.panels]
    points = [
        "T_C is counted on the task at the paper's number of rows; **overlap** is the share of the task's"
        " token occurrences whose token is in W_S; **tokens** is the mean length of a paragraph of W_S.",
        "The models in the last rows learn from the same training texts, without pre-training.",
    ]
    if any(row.best for panel in panels for row in panel.rows):
        points.append(
            "**best epoch** is the paper's way, the epoch that was best on the test data, and flatters."
        )
    if any(panel.with_role("member") for panel in panels):
        points.append(
            "**ms** is the median latency of one text on one thread of a CPU, tokenizing included, where the"
            " committee's members predict one after the other; **layers** is the paper's measure of latency,"
            " with the members side by side; **seconds** are those of the first trial, pre-training included,"
            " while others were trained beside it."
        )
    if others:
        preset = next(iter(others.values()))[0]
        points.append(
            f"Columns of the preset {preset}: the paper's own sizes, epochs and W_S on the text that we have,"
            " without an interval where there is one trial."
        )
    return Section("How to read the tables", blocks=[Points(points)])


def _table(table: TableResult, others: Others) -> list[Section]:
    title = f"{table.name[:-1].capitalize()} {table.name[-1]}" if table.name[-1].isdigit() else table.name
    title = "Open question" if _is_question(table) else title
    name = table.name.removesuffix(TUNED)
    tuned = " --tuned" if name != table.name else ""
    command = Text(f"`tinylm paper run {name} --preset {table.preset}{tuned}`")
    blocks: list[Block] = [command]
    if _is_question(table):
        blocks.insert(0, Text(f"**Answer.** {_committees_answer(table)}"))
    sections = [Section(f"{title}: {table.spec.title}", blocks=blocks)]
    for panel in table.panels:
        section = sections[0]
        if panel.spec.name:
            section = Section(f"{panel.name}: {panel.spec.title}", 3)
            sections.append(section)
        section.blocks += _panel(panel, others.get(panel.name))
    return sections


def _panel(panel: PanelResult, other: tuple[str, PanelResult] | None) -> list[Block]:
    facts = panel.task
    blocks: list[Block] = [
        Text(
            f"{facts['train_texts']:,} training and {facts['test_texts']:,} test texts of"
            f" {len(facts['labels'])} labels; T_C {facts['t_c']:,}"
            + (f" (paper {panel.spec.t_c:,})." if panel.spec.t_c else ".")
        )
    ]
    rows = _committee_rows(panel) if panel.with_role("member") else _data_rows(panel, other)
    blocks.append(rows)
    blocks += [Text(f"{row.spec.name}: left empty, {row.note}") for row in panel.rows if row.note]
    for kind in panel.spec.plots:
        blocks += _plot(panel, kind)
    if panel.tuning:
        blocks.append(
            Grid(
                COMPARED,
                comparison(panel.tuning),
                "Learning rate and weight decay of fine-tuning: accuracy on validation rows, in one trial."
                " `tinylm paper tune` searched them; test rows were not read.",
            )
        )
    return blocks


def _data_rows(panel: PanelResult, other: tuple[str, PanelResult] | None) -> Grid:
    results = ["Acc. paper", "Acc.", "best epoch", "gap paper", "gap"]
    counts = ["T_M paper", "T_M", "W_S paper", "W_S", "T_W paper", "T_W", "overlap", "tokens"]
    beside: dict[str, RowResult] = {}
    if other is not None:
        preset, of = other
        results += [f"Acc. {preset}", f"gap {preset}"]
        beside = {row.spec.name: row for row in of.rows}
    rows = [
        [
            row.spec.name,
            number(row.paper.accuracy),
            mean_deviation(row.accuracy) + _few(row),
            number(float(np.mean(row.best)) if row.best else None),
            number(row.paper.gap),
            interval_words(row.gap_interval) or signed(row.gap),
            *(_beside(beside.get(row.spec.name)) if other is not None else []),
            count(row.paper.t_m),
            count(row.coverage.get("t_m")),
            count(row.paper.w_s),
            count(row.w_s if row.accuracy or row.coverage else None),
            count(row.paper.t_w),
            count(row.coverage.get("t_w")),
            _share(row.coverage.get("weighted_overlap")),
            "" if row.mean_tokens is None else f"{row.mean_tokens:.0f}",
        ]
        for row in panel.rows
    ]
    head = ["row", *results, *counts]
    rows += [
        [METHODS[name], "", number(accuracy), *[""] * (len(head) - 3)]
        for name, accuracy in panel.baselines.items()
    ]
    return _filled(head, rows)


def _filled(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Grid:
    """A table without the columns in which no row has anything."""
    kept = [i for i in range(len(head)) if i == 0 or any(row[i] for row in rows)]
    return Grid([head[i] for i in kept], [[row[i] for i in kept] for row in rows])


def _beside(row: RowResult | None) -> list[str]:
    """Accuracy and gap of another preset's row, with the number of its trials."""
    if row is None or not row.accuracy:
        return ["", ""]
    trials = "1 trial" if len(row.accuracy) == 1 else f"{len(row.accuracy)} trials"
    accuracy = f"{mean_deviation(row.accuracy)} ({trials})"
    return [accuracy, interval_words(row.gap_interval) or signed(row.gap)]


def _committee_rows(panel: PanelResult) -> Grid:
    milliseconds = (panel.latency or {}).get("ms", {})
    members = panel.with_role("member")

    def cost(ms: str, layers: str, parameters: float | None, seconds: float | None) -> list[str]:
        return [
            layers,
            f"{milliseconds[ms]['p50']:.2f}" if ms in milliseconds else "",
            "" if parameters is None else f"{parameters / 1e6:.1f}",
            "" if seconds is None else f"{seconds:.0f}",
        ]

    rows = [
        [
            row.spec.name,
            number(row.paper.accuracy),
            mean_deviation(row.accuracy) + _few(row),
            number(float(np.mean(row.best)) if row.best else None),
            row.architecture,
            *cost(row.spec.name, str(row.layer_count), row.parameters, row.seconds),
        ]
        for row in panel.rows
    ]
    if panel.committee is not None:
        layers = f"{panel.committee_layers} side by side"
        parameters = _sum(row.parameters for row in members)
        rows.append(
            [
                f"soft committee of {len(members)}",
                number(panel.spec.committee),
                mean_deviation(panel.committee["trials"]),
                "",
                "all members",
                *cost("committee", layers, parameters, _sum(row.seconds for row in members)),
            ]
        )
    rows += [[METHODS[name], "", number(value), *[""] * 6] for name, value in panel.baselines.items()]
    return _filled(
        ["row", "Acc. paper", "Acc.", "best epoch", "architecture here", "layers", "ms",
         "millions of parameters", "seconds"],
        rows,
    )  # fmt: skip


def _sum(values: Iterable[float | None]) -> float | None:
    """The sum; None where a value is unknown."""
    known = list(values)
    return None if None in known else sum(value for value in known if value is not None)


def _plot(panel: PanelResult, kind: str) -> list[Block]:
    name = f"{panel.table}{panel.spec.name and '-' + panel.spec.name}-{kind}"
    if kind == "gap" and len(rows := random_rows_of(panel)) > 1:
        curve = curve_of(panel)
        words = "; ".join(f"W_S {row.w_s:,}: gap {number(row.gap)}" for row in rows)
        caption = (
            f"Gap against W_S, {panel.name}. The paper's values belong to its own, larger models and W_S."
        )
        return [Plot(name, plots.gap_plot(panel, curve), caption, words)]
    with_coverage = [row for row in panel.rows if row.coverage and row.accuracy]
    if kind == "t_m" and with_coverage:
        words = "; ".join(
            f"W_S {row.w_s:,}, T_M {row.coverage['t_m']:,}: accuracy {np.mean(row.accuracy):.3f}"
            for row in with_coverage
        )
        caption = f"Accuracy against T_M at equal W_S, {panel.name}; bars are one standard deviation."
        return [Plot(name, plots.t_m_plot(panel), caption, words)]
    if kind == "labels" and with_coverage:
        row = with_coverage[0]
        labels = panel.task["labels"]
        words = (
            f"Accuracy of {len(labels)} labels, from {row.per_label.min():.2f} to {row.per_label.max():.2f}."
        )
        caption = "Accuracy of each label, mean of the trials; the dashed line is their mean."
        if row.paper.accuracy is not None:
            caption += f" The dotted line is the paper's mean, {row.paper.accuracy:.3f}."
        return [Plot(name, plots.label_plot(row.per_label, labels, row.paper.accuracy), caption, words)]
    if kind == "committee" and panel.committee and panel.latency and panel.with_role("deep"):
        caption = (
            "Accuracy against measured latency, and against the paper's measure of it, the number of layers;"
            " upper left is better. Bars are one standard deviation."
        )
        speed = panel.latency["ms"]["committee"]["p50"]
        words = f"Committee {mean_deviation(panel.committee['trials'])}, {speed:.2f} ms."
        return [Plot(name, plots.committee_plot(panel), caption, words)]
    return []


def _limits(tables: Sequence[TableResult]) -> Section:
    rows = [row for table in tables for panel in table.panels for row in panel.rows if row.planned]
    incomplete = sum(len(row.accuracy) < row.planned for row in rows)
    points = [
        f"Trials begin in turn from {tables[0].knobs['pretrainings']} pre-trainings. Those that share one are"
        " not independent, so that their mean counts as one value; intervals are Welch's, and wide where"
        " there are two pre-trainings. That W_S is chosen by one seed, as in the paper, is in no interval.",
        _arms(tables[0].knobs),
        f"“Reaches” means: not more than {MARGIN} below, with the whole interval.",
        "W_S, T_W and T_M are counted on texts cut to the preset's number of tokens.",
    ]
    blocks: list[Block] = [Points(points)]
    missing = [name for name in table_names() if name not in [table.name for table in tables]]
    if missing:
        blocks.append(Text(f"Not run here: {', '.join(missing)}."))
    notes = list(
        dict.fromkeys(note for table in tables for panel in table.panels for note in panel.task["notes"])
    )
    if notes:
        blocks.append(Text(f"The local data sets are not complete: {len(notes)} notes, such as: {notes[0]}"))
    if incomplete:
        blocks.append(
            Text(f"{incomplete} of {len(rows)} rows lack trials; those have marks such as (1 of 5).")
        )
    return Section("How to read this, and its limits", blocks=blocks)


def _arms(knobs: Mapping[str, Any]) -> str:
    """How models without pre-training are trained."""
    if knobs.get("patience"):
        return (
            "Models with and without pre-training are fine-tuned alike: until validation texts bring nothing"
            f" better for {knobs['patience']} epochs."
        )
    return (
        "Models without pre-training have the same number of epochs and the same learning rate. With more"
        " epochs, or with Muon for the matrices (`finetune_muon_lr` of a preset), they come closer to those"
        " with it, so a gap belongs to its way of fine-tuning."
    )


def _few(row: RowResult) -> str:
    return f" ({len(row.accuracy)} of {row.planned})" if 0 < len(row.accuracy) < row.planned else ""


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _plain(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _relative(target: Path, start: Path) -> str:
    return Path(os.path.relpath(target, start)).as_posix()
