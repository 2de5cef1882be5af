"""`tinylm distill`: one encoder in place of a committee."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tinylm.cli.common import (
    Out,
    RecipeName,
    Seed,
    Settings,
    TextColumns,
    TextEncoding,
    columns_fitted_on,
    say,
    settings_of,
)


def distill_command(
    context: typer.Context,
    model: Annotated[Path, typer.Argument(help="Folder of the committee that teaches.", metavar="COMMITTEE")],
    texts: Annotated[
        list[str],
        typer.Argument(
            help="Texts to learn from, with or without labels: tables, such as the one of the fit, hf:NAME"
            " or -.",
            metavar="TEXTS...",
        ),
    ],
    out: Out,
    text: TextColumns = None,
    corpus: Annotated[
        str,
        typer.Option(
            help="Text to learn from beside your own: vital (the built-in sample), wikipedia, hf:NAME, a"
            " file, a folder, or none.",
            metavar="CORPUS",
        ),
    ] = "vital",
    encoding: TextEncoding = None,
    recipe: RecipeName = "fast",
    seed: Seed = 0,
    settings: Settings = None,
) -> None:
    """Distil a committee: its widest encoder learns to predict as all members do together.

    The student takes the time of one member. More texts of the kind that it will read make it better; labels
    are not needed. `tinylm evaluate` measures it.

    Example: `tinylm distill model train.csv more.txt --out student`
    """
    from itertools import islice

    from tinylm.export import hub
    from tinylm.fit.distill import CORPUS_TEXTS, distill
    from tinylm.fit.pipeline import LATENCY_TEXTS
    from tinylm.infer.committee import load_committee
    from tinylm.infer.latency import measure_latency
    from tinylm.system.files import new_folder, read_record, write_record
    from tinylm.text.corpus import open_corpus
    from tinylm.text.labelled import read_texts
    from tinylm.train.recipes import recipe_named

    with new_folder(out) as folder:
        committee, record = load_committee(model), read_record(model)
        columns = columns_fitted_on(model, "text", text)
        read = [one for table in texts for one in read_texts(table, columns, encoding)]
        articles = open_corpus(corpus).articles() if corpus != "none" else iter(())
        more = [article.text for article in islice(articles, max(CORPUS_TEXTS, len(read)))]
        found = distill(committee, read, recipe_named(recipe), seed=seed, more=more)
        predictors = [found.student.predict, committee.predict]
        latency, before = measure_latency(predictors, read[:LATENCY_TEXTS])
        figures = {"agreement": found.agreement, "held_out": found.held_out, "learnt": found.learnt}
        if "label_type" in (facts := record.get("facts", {})):  # written by `tinylm fit`
            facts = hub.facts_of_student(facts, found.student, committee, latency)
            hub.write(found.student, facts, folder, out.name)
        else:
            facts = {}
            found.student.save(folder)
        settings_here = settings_of(context)
        write_record(folder, "committee", settings=settings_here, facts=facts, distillation=figures)
    say(
        f"The student decides as the committee does on {found.agreement:.1%} of {found.held_out:,} held-out"
        f" texts, in {latency.p50:.2f} ms a text (committee: {before.p50:.2f} ms). It is in {out}. Now try:\n"
        f"  tinylm evaluate {out} your-test-table"
    )
