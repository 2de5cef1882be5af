"""`tinylm committee`: combine classifiers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tinylm.cli.common import Out, Settings, say, settings_of


def committee_command(
    context: typer.Context,
    members: Annotated[
        list[Path], typer.Argument(help="Folders of fine-tuned classifiers.", metavar="MODEL...")
    ],
    out: Out,
    settings: Settings = None,
) -> None:
    """Combine classifiers into a soft committee, in which the sum of their logits decides.

    Example: `tinylm committee bert1-a bert1-b bert1-c --out committee`
    """
    from tinylm.infer.committee import Committee, load_member
    from tinylm.system.files import new_folder, read_record, write_record

    committee = Committee([load_member(folder) for folder in members])
    with new_folder(out) as folder:
        committee.save(folder)
        records = [read_record(member) for member in members]
        write_record(folder, "committee", settings=settings_of(context), members=records)
    say(f"committee of {len(members)} members in {out}")
