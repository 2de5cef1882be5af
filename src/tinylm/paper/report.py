"""The report: every table with the paper's value beside ours, and a plain verdict on each claim.

It is made from the small stored files alone, so a fresh clone can make it without data sets,
weights or logits. Sentences follow the figures wherever they fall.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tinylm.paper import plots
from tinylm.paper.claims import MARGIN, Claim, claims, random_rows_of
from tinylm.paper.committees import store_committees
from tinylm.paper.open_questions import open_questions
from tinylm.paper.preset import load_preset
from tinylm.paper.results import Results
from tinylm.paper.spec import table_names
from tinylm.paper.statistics import fit_curve
from tinylm.paper.tokens import token_section
from tinylm.paper.tuned import COMPARED, TUNED, comparison
from tinylm.paper.view import PanelResult, RowResult, TableResult, load_results
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


def write_report(
    folder: Path,
    out: Path | None = None,
    page: Path | None = None,
    tokens: Path | None = None,
    beside: Path | None = None,
) -> list[str]:
    """Write Markdown, HTML and plots from a results folder.

    Args:
        folder: the results.
        out: of the Markdown; `report.md` in the results folder when None. The plots stay in
            `plots/` of the results folder.
        page: of the HTML; `report.html` in the results folder when None.
        tokens: another results folder whose token counts are shown; this one's when None.
        beside: another results folder, whose accuracies and gaps stand beside these.

    Returns:
        A sentence for each stored file that was set aside.

    Raises:
        UserError: no results there.
    """
    results = Results(folder)
    store_committees(results)  # of a run that was stopped before it could
    tables = load_results(results)
    counted = load_results(Results(tokens)) if tokens else tables
    document = build(tables, counted, load_results(Results(beside)) if beside else [])
    out, page = out or folder / "report.md", page or folder / "report.html"
    plot_folder = folder / "plots"
    for each in (plot_folder, out.parent, page.parent):
        each.mkdir(parents=True, exist_ok=True)
    write_plots(document, plot_folder)
    to_plots = _relative(plot_folder, out.parent)
    for path, text in ((out, markdown(document, to_plots)), (page, html(document))):
        write_text(path, text)
    return results.notes


def build(
    tables: Sequence[TableResult], counted: Sequence[TableResult], beside: Sequence[TableResult] = ()
) -> Document:
    """The report of some tables.

    Args:
        tables: the results.
        counted: those whose token counts are shown.
        beside: those whose accuracies and gaps stand beside.
    """
    preset = tables[0].preset
    verdicts = claims(tables)
    others = {
        panel.name: (table.preset, panel)
        for table in beside
        for panel in table.panels
        if any(row.accuracy for row in panel.rows)
    }
    sections = [
        Section("The paper's claims", blocks=[_verdicts(verdicts), *_gaps(tables, others)]),
        _knobs(tables[0]),
        *(
            section
            for table in tables
            if table.panels and not table.spec.analysis
            for section in _table(table, others)
        ),
        *open_questions(tables),
        *([section] if (section := token_section(counted)) else []),
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
        f" does not state is left empty. Accuracies are mean ± standard deviation of up to {trials} trials"
        " after the last epoch, with nothing chosen on test data; **best epoch** is the paper's way, the"
        " epoch that was best on the test data, and flatters. Brackets hold 95 % intervals, in which trials"
        " that share a pre-training count as one.",
        sections,
    )


MARKS = {"shown": "✓ shown", "not shown": "not shown", "not run": "not run"}


def _verdicts(verdicts: Sequence[Claim]) -> Grid:
    """Each claim in one line: the paper's figures and ours, from the smallest to the largest."""
    rows = []
    for claim in verdicts:
        supporting = sum(one.shown for one in claim.evidence)
        printed = list(dict.fromkeys(map(signed, claim.printed[:1] + claim.printed[-1:])))
        found = list(dict.fromkeys(map(interval_words, claim.found[:1] + claim.found[-1:])))
        verdict = MARKS[claim.verdict]
        if len(claim.evidence) > 1:
            verdict += f" ({supporting} of {len(claim.evidence)})"
        rows.append([claim.text, " to ".join(printed), " to ".join(found), verdict])
    return Grid(
        ["the paper's claim", "the paper's number", "ours", "shown or not"],
        rows,
        "Differences of accuracy; where there are several comparisons, the smallest and the largest. A claim"
        " is ticked only where every comparison supports it by its 95 % interval; all of them stand below,"
        " under “The claims, comparison by comparison”.",
    )


def _comparisons(verdicts: Sequence[Claim]) -> list[Section]:
    """Each claim with all that bears on it."""
    sections = [Section("The claims, comparison by comparison")]
    for claim in verdicts:
        if claim.evidence:
            rows = [
                [
                    one.what,
                    signed(one.paper),
                    interval_words(one.found),
                    MARKS["shown" if one.shown else "not shown"],
                ]
                for one in claim.evidence
            ]
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
    beside = {name: panel for name, (_, panel) in others.items()}
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
    return [Plot("gaps", plots.gaps_plot(panels, beside), caption, words)]


def _knobs(table: TableResult) -> Section:
    paper = load_preset("paper").model_dump(mode="json")
    rows = [
        [f"`{name}`", _plain(value), _plain(paper.get(name))]
        for name, value in table.knobs.items()
        if name not in NOT_KNOBS and value != paper.get(name)
    ]
    blocks: list[Block] = []
    if rows:
        blocks.append(
            Grid(
                ["knob", f"preset {table.preset}", "preset paper"],
                rows,
                "None stands for the recipe's or the spec's value.",
            )
        )
    else:
        blocks.append(Text("None: the sizes and hyper-parameters are the paper's."))
    corpus = table.knobs["corpus"]
    names = corpus if isinstance(corpus, str) else ", ".join([*corpus["articles"], *corpus["further"]])
    blocks.append(Text(f"Pre-training text: {names}."))
    return Section("Knobs that were turned", blocks=blocks)


def _table(table: TableResult, others: Others) -> list[Section]:
    title = f"{table.name[:-1].capitalize()} {table.name[-1]}" if table.name[-1].isdigit() else table.name
    name = table.name.removesuffix(TUNED)
    tuned = " --tuned" if name != table.name else ""
    command = Text(f"`tinylm paper run {name} --preset {table.preset}{tuned}`")
    sections = [Section(f"{title}: {table.spec.title}", blocks=[command])]
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
            f"{facts['name']}, {len(facts['labels'])} labels: {facts['train_texts']:,} training and"
            f" {facts['test_texts']:,} test texts were used here. T_C {facts['t_c']:,}"
            + (f" (paper {panel.spec.t_c:,})" if panel.spec.t_c else "")
            + ", counted on the task at the paper's number of rows."
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
    head = ["row", "W_S paper", "W_S", "T_W paper", "T_W", "T_M paper", "T_M", "overlap", "tokens",
            "Acc. paper", "Acc.", "best epoch", "gap paper", "gap"]  # fmt: skip
    rows = [
        [
            row.spec.name,
            count(row.paper.w_s),
            count(row.w_s if row.accuracy or row.coverage else None),
            count(row.paper.t_w),
            count(row.coverage.get("t_w")),
            count(row.paper.t_m),
            count(row.coverage.get("t_m")),
            _share(row.coverage.get("weighted_overlap")),
            "" if row.mean_tokens is None else f"{row.mean_tokens:.0f}",
            number(row.paper.accuracy),
            mean_deviation(row.accuracy) + _few(row),
            number(float(np.mean(row.best)) if row.best else None),
            number(row.paper.gap),
            interval_words(row.gap_interval) or signed(row.gap),
        ]
        for row in panel.rows
    ]
    note = (
        "overlap: share of the token occurrences in the task whose token is in W_S; tokens: mean length of a"
        " paragraph of W_S. The models in the last rows learn from the same training texts, without"
        " pre-training."
    )
    if other is not None:
        preset, results = other
        by_name = {row.spec.name: row for row in results.rows}
        head += [f"Acc. {preset}", f"gap {preset}"]
        for line, row in zip(rows, panel.rows, strict=True):
            line += _beside(by_name.get(row.spec.name))
        note += (
            f" The last two columns are of the preset {preset}: the paper's own sizes, epochs and W_S on the"
            " text that we have, without an interval where there is one trial."
        )
    empty = [""] * (len(head) - 14)
    rows += [
        [METHODS[name], *[""] * 9, f"{accuracy:.3f}", *[""] * 3, *empty]
        for name, accuracy in panel.baselines.items()
    ]
    return Grid(head, rows, note)


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

    def line(
        name: str,
        what: str,
        layers: str,
        ms: str,
        parameters: float | None,
        seconds: float | None,
        *accuracies: str,
    ) -> list[str]:
        return [
            name, what, layers,
            f"{milliseconds[ms]['p50']:.2f}" if ms in milliseconds else "",
            "" if parameters is None else f"{parameters / 1e6:.1f}",
            "" if seconds is None else f"{seconds:.0f}",
            *accuracies,
        ]  # fmt: skip

    rows = [
        line(
            row.spec.name,
            row.architecture,
            str(row.layer_count),
            row.spec.name,
            row.parameters,
            row.seconds,
            number(row.paper.accuracy),
            mean_deviation(row.accuracy) + _few(row),
            number(float(np.mean(row.best)) if row.best else None),
        )
        for row in panel.rows
    ]
    if panel.committee is not None:
        rows.append(
            line(
                f"soft committee of {len(members)}",
                "all members",
                f"{panel.committee_layers} side by side",
                "committee",
                _sum(row.parameters for row in members),
                _sum(row.seconds for row in members),
                number(panel.spec.committee),
                mean_deviation(panel.committee["trials"]),
                "",
            )
        )
    rows += [[METHODS[name], *[""] * 6, f"{value:.3f}", ""] for name, value in panel.baselines.items()]
    return Grid(
        ["row", "architecture here", "layers", "ms", "millions of parameters", "seconds", "Acc. paper",
         "Acc.", "best epoch"],
        rows,
        "ms: median latency of one text on one thread, tokenizing included; the committee's members predict"
        " one after the other. layers: the paper's measure of latency, that of members side by side. seconds:"
        " of one trial on one core, pre-training included.",
    )  # fmt: skip


def _sum(values: Iterable[float | None]) -> float | None:
    """The sum; None where a value is unknown."""
    known = list(values)
    return None if None in known else sum(value for value in known if value is not None)


def _plot(panel: PanelResult, kind: str) -> list[Block]:
    name = f"{panel.table}{panel.spec.name and '-' + panel.spec.name}-{kind}"
    if kind == "gap" and len(rows := random_rows_of(panel)) > 1:
        curve = fit_curve([row.w_s for row in rows], [row.arm for row in rows], rows[0].without)
        words = "; ".join(f"W_S {row.w_s:,}: gap {number(row.gap)}" for row in rows)
        caption = (
            f"Gap against W_S, {panel.name}. The paper's values belong to its own, larger models and W_S."
        )
        return [Plot(name, plots.gap_plot(panel, curve), caption, words)]
    with_coverage = [row for row in panel.rows if row.coverage and row.accuracy]
    if kind in ("t_m", "reverse") and with_coverage:
        words = "; ".join(
            f"W_S {row.w_s:,}, T_M {row.coverage['t_m']:,}: accuracy {np.mean(row.accuracy):.3f}"
            for row in with_coverage
        )
        if kind == "t_m":
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
    incomplete = [
        f"{panel.name} {row.spec.name}: {len(row.accuracy)} of {row.planned} trials"
        for table in tables
        for panel in table.panels
        for row in panel.rows
        if len(row.accuracy) < row.planned
    ]
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
        blocks += [Text("Not finished yet:"), Points(incomplete)]
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
