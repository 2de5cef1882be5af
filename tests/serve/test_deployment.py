"""The container file and the unit of docs/serving: their commands exist, and systemd understands the unit."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from tinylm.cli import app

FOLDER = Path(__file__).parents[2] / "docs" / "serving"


def command_lines() -> dict[str, list[str]]:
    """What each file starts, by the name of the file."""
    unit = (FOLDER / "tinylm.service").read_text(encoding="utf-8")
    container = (FOLDER / "Containerfile").read_text(encoding="utf-8")
    started = re.search(r"^ExecStart=(.+)$", unit, re.MULTILINE)
    entry = re.search(r"^ENTRYPOINT (.+)$", container, re.MULTILINE)
    assert started and entry
    return {"tinylm.service": shlex.split(started[1]), "Containerfile": json.loads(entry[1])}


@pytest.mark.parametrize("name", ["tinylm.service", "Containerfile"])
def test_the_command_has_these_options(name: str) -> None:
    program, command, model, *options = command_lines()[name]
    assert (Path(program).name, command) == ("tinylm", "serve")
    assert model.startswith("/")
    serve = typer.main.get_command(app).commands["serve"]  # type: ignore[attr-defined]
    with serve.make_context("serve", [model, *options]) as context:
        assert context.params["port"] == 8000


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="no systemd here")
def test_systemd_understands_the_unit(tmp_path: Path) -> None:
    unit = (FOLDER / "tinylm.service").read_text(encoding="utf-8")
    here = tmp_path / "tinylm.service"  # with a program that exists
    here.write_text(unit.replace(command_lines()["tinylm.service"][0], sys.executable), encoding="utf-8")
    verified = subprocess.run(["systemd-analyze", "verify", here], capture_output=True, text=True)
    assert (verified.returncode, verified.stdout + verified.stderr) == (0, "")
