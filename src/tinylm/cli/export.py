"""`tinylm export`: models for other programs."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from tinylm.cli.common import Out, Settings, remark, say, settings_of
from tinylm.errors import UserError

FORMS = ("onnx", "huggingface")


def export_command(
    context: typer.Context,
    model: Annotated[Path, typer.Argument(help="Folder of a classifier or a committee.", metavar="MODEL")],
    out: Out,
    to: Annotated[
        str,
        typer.Option(
            help="onnx (one file for the whole committee) or huggingface (a folder for each member).",
            metavar="FORM",
        ),
    ] = "onnx",
    int8: Annotated[
        bool, typer.Option("--int8", help="Store the weights of the ONNX file in 8 bits.")
    ] = False,
    settings: Settings = None,
) -> None:
    """Export a classifier or a committee for other programs.

    Example: `tinylm export committee --to onnx --int8 --out committee-onnx`
    """
    from tinylm.system.files import new_folder, read_record, write_record

    if to not in FORMS:
        raise UserError(f"--to was {to!r}; expected {' or '.join(FORMS)}.")
    if to == "huggingface":
        from tinylm.export.onnx import export_huggingface

        if int8:
            raise UserError("--int8 is for --to onnx; HuggingFace folders hold fp32 weights.")
        with new_folder(out) as folder:
            folders, left_out = export_huggingface(model, folder)
            write_record(folder, "huggingface", settings=settings_of(context), model=read_record(model))
        places = ", ".join(str(out / place.relative_to(folder)) for place in folders)
        say(f"for transformers: {places}")
        for name in left_out:
            remark(f"the member '{name}' is left out: HuggingFace has no form for it.")
        return
    from tinylm.export.onnx import export_onnx

    with new_folder(out) as folder:
        export = export_onnx(model, folder, int8)
        facts = {"settings": settings_of(context), "check": asdict(export), "model": read_record(model)}
        write_record(folder, "onnx", **facts)
    say(
        f"{export.megabytes:.1f} MB in {out}; beside PyTorch on {export.checked_on}: logits differ by at most"
        f" {export.largest_difference:.2g} (the largest is {export.largest_logit:.2g}),"
        f" {export.agreement:.1%} of the decisions agree"
    )
