"""`tinylm verify`: whether a folder still holds what was written."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from tinylm.cli.common import Settings, console, remark, say


def verify_command(
    folder: Annotated[
        Path,
        typer.Argument(
            help="Output folder of any command: a model, an export, a token store.", metavar="FOLDER"
        ),
    ],
    settings: Settings = None,
) -> None:
    """Compare the files of an output folder with the hashes in its record, `tinylm.json`.

    The files that it was made of, such as a table, are compared too, where they still are. The exit code is 0
    if nothing differs, and 2 if a file is missing or has changed. A file that was added is mentioned.

    Example: `tinylm verify model`
    """
    from tinylm.system.files import verify

    found = verify(folder)
    for sentence in found.remarks:
        remark(sentence)
    if not found.wrong:
        say(f"{found.right:,} files of {folder} are as they were written")
        return
    table = Table("file", "what is wrong")
    for name, what in found.wrong.items():
        table.add_row(name, what)
    console.print(table)
    say(
        f"{len(found.wrong):,} of {found.right + len(found.wrong):,} files of {folder} differ from the record"
    )
    raise typer.Exit(2)
